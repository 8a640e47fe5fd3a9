"""The streaming evaluation: rows go in at the top, rows of the score map come out, every output computed once.

Each layer keeps the last rows of its input that its next outputs still need, so neighboring bands share all work and
no border appears between them: padding is added where the image ends, at every layer, and nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verydeep.scoremaps.layers import Layer


@dataclass(frozen=True)
class Rectangle:
    """Rows from `top` to before `bottom`, columns from `left` to before `right`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def area(self) -> int:
        """Cells inside."""
        return max(self.bottom - self.top, 0) * max(self.right - self.left, 0)

    def around(self, other: "Rectangle") -> "Rectangle":
        """Return the smallest rectangle that holds both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        return Rectangle(top, left, max(self.bottom, other.bottom), max(self.right, other.right))


def map_size(layers: Sequence[Layer], height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the map of an image of `height` x `width` pixels; 0 where it is too small."""
    for layer in layers:
        height, width = layer.rows.size(height), layer.columns.size(width)
    return height, width


@dataclass(frozen=True)
class Extent:
    """What one layer computes for a part of the map.

    Attributes
    ----------
    height, width : int
        Of the layer's whole input.
    inputs, outputs : Rectangle
        Which of its inputs and outputs are needed.
    left, right : int
        Columns of padding.
    """

    height: int
    width: int
    inputs: Rectangle
    outputs: Rectangle
    left: int
    right: int


def extents(
    layers: Sequence[Layer], height: int, width: int, part: Rectangle, taps: Mapping[int, Rectangle] | None = None
) -> list[Extent]:
    """Return what each layer has to compute for `part` of the map of an image: the halo, derived backwards.

    `taps` are the outputs of layers, by their number, that are wanted beside the map.
    """
    sizes = [(height, width)]
    for layer in layers:
        sizes.append((layer.rows.size(sizes[-1][0]), layer.columns.size(sizes[-1][1])))
    found: list[Extent] = []
    outputs = part
    for number, (rows, columns) in reversed(list(enumerate(sizes[:-1]))):
        layer = layers[number]
        outputs = outputs.around(taps[number]) if taps and number in taps else outputs
        top, bottom = layer.rows.needs(outputs.top, outputs.bottom, rows)
        left, right = layer.columns.needs(outputs.left, outputs.right, columns)
        before = left - layer.columns.start(outputs.left)
        after = layer.columns.start(outputs.right - 1) + layer.columns.extent - right
        found.append(Extent(rows, columns, Rectangle(top, left, bottom, right), outputs, before, after))
        outputs = found[-1].inputs
    return found[::-1]


def row_bytes(layer: Layer, extent: Extent) -> tuple[int, int]:
    """Return the bytes of one input row, padding included, and of one output row."""
    columns = extent.inputs.right - extent.inputs.left + extent.left + extent.right
    return _FLOAT * columns * layer.inputs, _FLOAT * (extent.outputs.right - extent.outputs.left) * layer.outputs


def steps(layers: Sequence[Layer], found: Sequence[Extent], work: int) -> list[int]:
    """Return how many output rows each layer computes at a time, so that it works on about `work` bytes.

    Measured: much more than what a processor caches is slower, and so is a row at a time in the deep layers.
    """
    result = []
    for layer, extent in zip(layers, found, strict=True):
        before, after = row_bytes(layer, extent)
        most = max(1, work // (before * layer.rows.stride + after))
        result.append(min(most, extent.outputs.bottom - extent.outputs.top))
    return result


_FLOAT = 4  # bytes of a float32


class _Stage:
    """One layer at work: the rows of its input that are still needed, and how far it got.

    Parameters
    ----------
    layer : Layer
    extent : Extent
        What it has to compute.
    step : int
        Output rows to compute at a time; it waits until so many can be.
    """

    def __init__(self, layer: Layer, extent: Extent, step: int) -> None:
        self.layer, self.extent, self.step = layer, extent, step
        self.next = extent.outputs.top
        # The input row that `rows` begins with; negative in the padding.
        self.first = min(layer.rows.start(self.next), extent.inputs.top)
        self.have = extent.inputs.top
        self.rows: list[Tensor] = []

    def add(self, box: list[Tensor]) -> None:
        """Take the rows in `box` out of it, behind those that are there."""
        new = box.pop()
        if not self.rows and self.first < self.have:
            self.rows.append(self._padding(new, self.have - self.first))
        self.have += len(new)
        self.rows.append(new)
        end = self.layer.rows.start(self.extent.outputs.bottom - 1) + self.layer.rows.extent
        if self.have >= self.extent.inputs.bottom and end > self.have:
            self.rows.append(self._padding(new, end - self.have))
            self.have = end

    def take(self, rest: bool = False) -> Tensor | None:
        """Return the next output rows, or None until more input has come; of the `rest`, fewer than a step, too."""
        axis, stop = self.layer.rows, self.extent.outputs.bottom
        possible = axis.ready(self.have)
        ready = min(self.next + self.step, stop, possible if rest else stop)
        if not self.next < ready <= possible:
            return None
        if len(self.rows) > 1:
            self.rows = [torch.cat(self.rows)]
        begin, end = axis.start(self.next) - self.first, axis.start(ready - 1) + axis.extent - self.first
        y = self.layer(self.rows[0][begin:end], self.extent.left, self.extent.right)
        self.next = ready
        keep = min(axis.start(ready) - self.first, len(self.rows[0]))
        self.first += keep
        # A copy, so that the memory of the rows that are done with is given back.
        self.rows = [self.rows[0][keep:].clone()] if ready < stop else []
        return y

    def _padding(self, like: Tensor, rows: int) -> Tensor:
        return like.new_full((rows, *like.shape[1:]), self.layer.fill)


@dataclass(frozen=True)
class Tap:
    """Outputs of a layer that are wanted beside the map: `take` is given the first row's number, and some rows."""

    wanted: Rectangle
    take: Callable[[int, Tensor], None]


class _TapStage:
    """Stands between two layers: gives a tap its rows, and the layer behind it those that it needs."""

    def __init__(self, tap: Tap, given: Rectangle, needed: Rectangle) -> None:
        self.tap, self.given, self.needed = tap, given, needed
        self.row = given.top
        self.rest: Tensor | None = None

    def add(self, box: list[Tensor]) -> None:
        rows = box.pop()
        taken, self.rest = self._part(rows, self.tap.wanted), self._part(rows, self.needed)
        if taken is not None:
            self.tap.take(max(self.row, self.tap.wanted.top), taken)
        self.row += len(rows)

    def take(self, rest: bool = False) -> Tensor | None:
        rows, self.rest = self.rest, None
        return rows

    def _part(self, rows: Tensor, part: Rectangle) -> Tensor | None:
        first, last = (min(max(row - self.row, 0), len(rows)) for row in (part.top, part.bottom))
        if first == last:
            return None
        return rows[first:last, part.left - self.given.left : part.right - self.given.left].contiguous()


def bands(
    layers: Sequence[Layer],
    found: Sequence[Extent],
    at_a_time: Sequence[int],
    rows: Iterable[Tensor],
    taps: Mapping[int, Tap] | None = None,
) -> Iterator[Tensor]:
    """Compute a part of the score map of an image that is read from top to bottom; yield its rows likewise.

    What each layer has to compute is `found`, from `extents`; how many output rows `at_a_time` decides memory and
    speed, not the result. `rows` are the pixels that `found[0].inputs` names, in pieces of any height, rows x columns x
    channels, preprocessed; where they end early, so does the map, rows x columns x classes. `taps` are given outputs of
    layers, by their number; `found` must hold them.
    """
    stream = Stream(layers, found, at_a_time, taps)
    for piece in rows:
        box = [piece]
        del piece
        yield from stream.push(box)
    yield from stream.finish()


class Stream:
    """The layers at work on an image whose rows are given as they come; arguments are those of `bands`."""

    def __init__(
        self,
        layers: Sequence[Layer],
        found: Sequence[Extent],
        at_a_time: Sequence[int],
        taps: Mapping[int, Tap] | None = None,
    ) -> None:
        self.stages = list[_Stage | _TapStage]()
        for number, each in enumerate(zip(layers, found, at_a_time, strict=True)):
            self.stages.append(_Stage(*each))
            if taps and number in taps:
                self.stages.append(_TapStage(taps[number], found[number].outputs, found[number + 1].inputs))

    def push(self, box: list[Tensor]) -> Iterator[Tensor]:
        """Take the next rows out of `box`, and yield what can be computed now."""
        yield from _pass(self.stages, box)

    def finish(self) -> Iterator[Tensor]:
        """Yield the rest; no more rows come."""
        for i, stage in enumerate(self.stages, start=1):
            while (y := stage.take(rest=True)) is not None:
                yield from _pass(self.stages[i:], [y])


def _pass(stages: Sequence["_Stage | _TapStage"], box: list[Tensor]) -> Iterator[Tensor]:
    """Pass rows down through the layers as far as they go."""
    if not stages:
        yield box.pop()
        return
    stages[0].add(box)
    while (y := stages[0].take()) is not None:
        box.append(y)
        del y
        yield from _pass(stages[1:], box)
