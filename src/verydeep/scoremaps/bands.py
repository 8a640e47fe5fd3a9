"""The streaming evaluation: rows go in at the top, rows of the score map come out, every output computed once.

Each layer keeps the last rows of its input that its next outputs still need, so neighboring bands share all work and
no border appears between them: padding is added where the image ends, at every layer, and nowhere else.
"""

from collections.abc import Iterable, Iterator, Sequence
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


def extents(layers: Sequence[Layer], height: int, width: int, part: Rectangle) -> list[Extent]:
    """Return what each layer has to compute for `part` of the map of an image: the halo, derived backwards."""
    sizes = [(height, width)]
    for layer in layers:
        sizes.append((layer.rows.size(sizes[-1][0]), layer.columns.size(sizes[-1][1])))
    found: list[Extent] = []
    outputs = part
    for layer, (rows, columns) in zip(reversed(layers), reversed(sizes[:-1]), strict=True):
        top, bottom = layer.rows.needs(outputs.top, outputs.bottom, rows)
        left, right = layer.columns.needs(outputs.left, outputs.right, columns)
        before = left - layer.columns.start(outputs.left)
        after = layer.columns.start(outputs.right - 1) + layer.columns.extent - right
        found.append(Extent(rows, columns, Rectangle(top, left, bottom, right), outputs, before, after))
        outputs = found[-1].inputs
    return found[::-1]


class _Stage:
    """One layer at work: the rows of its input that are still needed, and how far it got.

    Parameters
    ----------
    layer : Layer
    extent : Extent
        What it has to compute.
    most : int
        Output rows to compute at a time.
    """

    def __init__(self, layer: Layer, extent: Extent, most: int) -> None:
        self.layer, self.extent, self.most = layer, extent, most
        self.next = extent.outputs.top
        self.first = layer.rows.start(self.next)  # the input row that `rows` begins with; negative in the padding
        self.have = extent.inputs.top
        self.rows: Tensor | None = None

    def add(self, box: list[Tensor]) -> None:
        """Take the rows in `box` out of it, behind those that are there."""
        new = box.pop()
        axis, fill = self.layer.rows, self.layer.fill
        pieces = [] if self.rows is None else [self.rows]
        if self.rows is None and self.first < self.have:
            pieces.append(new.new_full((self.have - self.first, *new.shape[1:]), fill))
        self.have += len(new)
        pieces.append(new)
        end = axis.start(self.extent.outputs.bottom - 1) + axis.extent
        if self.have >= self.extent.inputs.bottom and end > self.have:
            pieces.append(new.new_full((end - self.have, *new.shape[1:]), fill))
            self.have = end
        self.rows = torch.cat(pieces) if len(pieces) > 1 else new

    def take(self) -> Tensor | None:
        """Return the next output rows, or None until more input has come."""
        axis, stop = self.layer.rows, self.extent.outputs.bottom
        ready = min(axis.ready(self.have), stop, self.next + self.most)
        if self.rows is None or ready <= self.next:
            return None
        begin, end = axis.start(self.next) - self.first, axis.start(ready - 1) + axis.extent - self.first
        y = self.layer(self.rows[begin:end], self.extent.left, self.extent.right)
        self.next = ready
        # A copy, so that the memory of the rows that are done with is given back.
        keep = axis.start(ready) - self.first
        self.first += min(keep, len(self.rows))
        self.rows = self.rows[keep:].clone() if ready < stop else None
        return y


def bands(
    layers: Sequence[Layer], height: int, width: int, part: Rectangle, band: int, rows: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Compute a part of the score map of an image that is read from top to bottom.

    Parameters
    ----------
    layers : sequence of Layer
        The network.
    height, width : int
        Of the whole image in pixels.
    part : Rectangle
        Which cells of its map.
    band : int
        Pixel rows to work on at a time; it decides memory and speed, not the result.
    rows : iterable of Tensor
        The pixels that `extents(...)[0].inputs` names, from top to bottom, in pieces of at most `band` rows:
        rows x columns x channels, preprocessed.

    Yields
    ------
    Tensor
        Rows x columns x classes of the part, from top to bottom.
    """
    stages = []
    most = band
    for layer, extent in zip(layers, extents(layers, height, width, part), strict=True):
        most = -(-most // layer.rows.stride)
        stages.append(_Stage(layer, extent, most))
    for piece in rows:
        box = [piece]
        del piece
        yield from _pass(stages, box)


def _pass(stages: Sequence[_Stage], box: list[Tensor]) -> Iterator[Tensor]:
    """Pass rows down through the layers as far as they go."""
    if not stages:
        yield box.pop()
        return
    stages[0].add(box)
    while (y := stages[0].take()) is not None:
        box.append(y)
        del y
        yield from _pass(stages[1:], box)
