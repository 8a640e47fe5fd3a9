"""Pictures of any size compared: what a metric averages over places is averaged band by band."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.progress import track
from verydeep.images.rescale_rows import Source
from verydeep.inference.memory import parse_memory
from verydeep.perceptual.comparison import PIXELS, Comparison, wide
from verydeep.perceptual.dists import L2_LEAST
from verydeep.perceptual.features import Features
from verydeep.scoremaps.bands import Extent, Rectangle, Stream, extents, map_size, steps
from verydeep.scoremaps.densify import Dense, layers_between
from verydeep.scoremaps.layers import Axis, Layer
from verydeep.scoremaps.native import native_layers
from verydeep.scoremaps.plan import MemoryTooSmallError, Plan, make_plan, within
from verydeep.scoremaps.sources import Picture, open_image

Segments = Sequence[tuple[Layer, ...]]

_COMPARED = 2**21
"""Bytes of a map that are compared at a time: what is made of them for it stays small."""


def distance_in_bands(
    comparison: Comparison, picture: Picture, reference: Picture, memory: str | int | None = "4GiB", quiet: bool = True
) -> float:
    """Compare two pictures of any size within a limit of memory: what a call gives for the whole ones.

    Both are read from top to bottom, and pass through the layers a few rows at a time: every place of every map is
    computed once (where even a full row is too much, the seams of strips are computed twice), and what the metric
    averages over places is summed in float64. The result is the whole pictures' but for the order of sums.

    Parameters
    ----------
    comparison : LPIPS, DISTS, ContentLoss, StyleLoss or PerceptualLoss
        What is measured. What it was told of tensors (range, channels) does not matter here: files say it.
    picture, reference : path, array or PIL image
        As in `verydeep.score_map`: files that are read in parts, arrays of numpy (mapped files, too) or zarr.
    memory : str or int, default "4GiB"
        Most that the process may hold, as text or in bytes; None is no limit.
    quiet : bool, default True
        Whether to show no progress.

    Returns
    -------
    float
        The distance.

    Raises
    ------
    UserError
        A picture that cannot be read, sizes that differ or are too small, or too little memory for a single row.
    """
    sources = [open_image(picture), open_image(reference)]
    sizes = [(source.height, source.width) for source in sources]
    if sizes[0] != sizes[1]:
        words = " and ".join(f"{width} x {height}" for height, width in sizes)
        raise UserError(f"{sources[0].name} and {sources[1].name}: {words} pixels; expected one size")
    comparison.features.net.check_size(*sizes[0])
    segments = _segments(comparison.features)
    plan = _plan(comparison.features, segments, sources, parse_memory(memory) if isinstance(memory, str) else memory)
    strips = _strips(segments, plan)
    averages = _Averages(comparison, [(level.height, level.width) for level in strips[0]])
    rows = sum(strip[0].part.bottom for strip in strips)
    bar = iter(track(range(rows), rows, "comparing", "rows", quiet=quiet))
    with torch.inference_mode():
        for strip in strips:
            _Strip(segments, strip, plan.work, averages).run(comparison.features, sources, plan.band, bar)
        for _ in bar:
            pass
        return averages.distance()


@dataclass(frozen=True)
class _L2Pool(Layer):
    """DISTS's pool as a layer that slides."""

    @classmethod
    def of(cls, channels: int) -> "_L2Pool":
        """Return it for so many channels."""
        axis = Axis(3, 2, before=1, after=1)
        return cls("pool", axis, axis, channels, channels)

    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Pool: halve the mean squares along one axis, then the other."""
        x = self.padded(x, left, right).square()
        x = x[1:-1:2] / 2 + (x[:-2:2] + x[2::2]) / 4
        x = x[:, 1:-1:2] / 2 + (x[:, :-2:2] + x[:, 2::2]) / 4
        return x.add_(L2_LEAST).sqrt_()

    def workspace(self, rows: int, columns: int) -> int:
        """Return the bytes of squares and of sums of rows."""
        return 4 * self.inputs * (2 * rows + 1) * (2 * columns + 1) * 3


def _segments(features: Features) -> list[tuple[Layer, ...]]:
    """Return what slides from the pixels to the first map that is compared, from there to the next, and so on."""
    found = [layers_between(features.net, after, layer) for after, layer in features.segments]
    if features.pool:
        pools = [_L2Pool.of(segment[0].inputs) for segment in found[1:]]
        found[1:] = [(pool, *segment) for pool, segment in zip(pools, found[1:], strict=True)]
    if features.engine == "native" and next(features.net.parameters()).dtype == torch.float32:
        found = [native_layers(segment) for segment in found]
    return found


def _plan(features: Features, segments: Segments, sources: Sequence[Source], memory: int | None) -> Plan:
    """Find strips and bands such that both pictures' rows fit into the memory that is left."""
    net = features.net
    layers = tuple(layer for segment in segments for layer in segment)
    dense = Dense(net.configuration.name, layers, net.window, net.stride, (), net.preprocessing)
    height, width = sources[0].height, sources[0].width
    whole = Rectangle(0, 0, *map_size(layers, height, width))
    left = within(memory, next(net.parameters()).device)
    kept = max(source.row_bytes for source in sources)
    try:
        return make_plan(dense, height, width, [whole], left and left // 2, row_bytes=kept, kept=1)
    except MemoryTooSmallError as error:
        assert memory is not None
        assert left is not None
        least = -(-(memory - left + 2 * error.least) // 2**20)
        raise UserError(
            f"memory: {memory // 2**20} MiB are too little for even one row of {sources[0].name} at a time; the least "
            f"that works here is {least}MiB"
        ) from None


@dataclass(frozen=True)
class _Level:
    """What a strip has of the pixels, or of a map that is compared.

    `height` and `width` are of the whole map, columns from `left` to before `right` are the strip's own, and `part` is
    computed: these, and what the next map's need.
    """

    height: int
    width: int
    left: int
    right: int
    part: Rectangle
    found: tuple[Extent, ...] = ()


def _strips(segments: Segments, plan: Plan) -> list[list[_Level]]:
    """Cut each map into columns, one strip's after another's: the pixels first, then the maps that are compared."""
    sizes = [(plan.height, plan.width)]
    for segment in segments:
        sizes.append(map_size(segment, *sizes[-1]))
    edges = [0, *(part.right for part in plan.parts)]
    strips = []
    for edge in pairwise(edges):
        levels: list[_Level] = []
        needed: Rectangle | None = None
        for number in reversed(range(len(sizes))):
            height, width = sizes[number]
            left, right = (width * column // edges[-1] for column in edge)
            first, last = (min(left, needed.left), max(right, needed.right)) if needed else (left, right)
            part = Rectangle(0, first, height, last)
            found = tuple(extents(segments[number - 1], *sizes[number - 1], part)) if number else ()
            levels.append(_Level(height, width, left, right, part, found))
            needed = found[0].inputs if found else None
        strips.append(levels[::-1])
    return strips


class _Averages:
    """What a metric averages over the places of its layers, so far."""

    def __init__(self, comparison: Comparison, sizes: Sequence[tuple[int, int]]) -> None:
        self.comparison = comparison
        self.layers = (PIXELS, *comparison.features.in_order)
        self.places = dict(zip(self.layers, (height * width for height, width in sizes), strict=True))
        self.sums: dict[str, Tensor] = {}

    def add(self, layer: str, a: Tensor, b: Tensor) -> None:
        """Take in some places of both maps of a layer, rows x columns x channels."""
        if layer == PIXELS and not self.comparison.of_pixels:
            return
        rows = max(1, _COMPARED // (a[0].numel() * a.element_size() + 1))
        for x, y in zip(torch.split(a, rows), torch.split(b, rows), strict=True):
            share = x.shape[0] * x.shape[1] / self.places[layer]
            if share:
                found = wide(self.comparison.averages(layer, x[None, None], y[None, None])) * share
                self.sums[layer] = self.sums[layer] + found if layer in self.sums else found

    def distance(self) -> float:
        """Return the pictures' distance, all places taken in."""
        return float(sum(self.comparison.value(layer, averages) for layer, averages in self.sums.items()))


class _Strip:
    """One strip of both pictures on its way through the layers, row by row, each picture as far as the other."""

    def __init__(self, segments: Segments, levels: Sequence[_Level], work: int, averages: _Averages) -> None:
        self.levels, self.averages = levels, averages
        self.tops = [0] * len(levels)
        self.streams = [
            [Stream(segment, level.found, steps(segment, level.found, work)) for _ in range(2)]
            for segment, level in zip(segments, levels[1:], strict=True)
        ]

    def run(self, features: Features, sources: Sequence[Source], band: int, bar: Iterator[int]) -> None:
        """Read both pictures from top to bottom."""
        part, weight = self.levels[0].part, next(features.net.parameters())
        for top in range(0, part.bottom, band):
            height = min(band, part.bottom - top)
            pixels = [source.read(top, part.left, height, part.right - part.left) for source in sources]
            unit = [torch.tensor(x, device=weight.device).permute(2, 0, 1)[None].to(weight.dtype) / 255 for x in pixels]
            self._compare(0, [x[0].permute(1, 2, 0) for x in unit])
            self._push(0, [features.input(x)[0].permute(1, 2, 0).contiguous() for x in unit])
            for _ in range(height):
                next(bar, None)
        for number, both in enumerate(self.streams, start=1):
            for rows in zip(*(stream.finish() for stream in both), strict=True):
                self._arrive(number, list(rows))

    def _arrive(self, number: int, rows: list[Tensor]) -> None:
        self._compare(number, rows)
        self._push(number, rows)

    def _compare(self, number: int, rows: Sequence[Tensor]) -> None:
        level = self.levels[number]
        own = [x[:, level.left - level.part.left : level.right - level.part.left] for x in rows]
        self.averages.add(self.averages.layers[number], own[0], own[1])

    def _push(self, number: int, rows: list[Tensor]) -> None:
        """Give both pictures' next rows of a level to the layers behind it."""
        if number == len(self.streams):
            return
        part, needed = self.levels[number].part, self.levels[number + 1].found[0].inputs
        height = min(len(rows[0]), needed.bottom - self.tops[number])
        self.tops[number] += len(rows[0])
        if height > 0:
            boxes = [[x[:height, needed.left - part.left : needed.right - part.left].contiguous()] for x in rows]
            rows.clear()
            streams = self.streams[number]
            for found in zip(*(stream.push(box) for stream, box in zip(streams, boxes, strict=True)), strict=True):
                self._arrive(number + 1, list(found))
