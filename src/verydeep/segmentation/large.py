"""Images of any size, a class for each pixel: the whole image's map, whether or not it fits into memory."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import NotFiniteError, UserError
from verydeep.basics.lock import sole_writer
from verydeep.basics.progress import track
from verydeep.images.rescale_rows import Source, rescaled
from verydeep.nets.families import load
from verydeep.nets.fcn import FCN
from verydeep.scoremaps.bands import Rectangle, Tap, bands, extents, map_size, steps
from verydeep.scoremaps.densify import Dense, chain_layers
from verydeep.scoremaps.georeference import read_georeference
from verydeep.scoremaps.layers import Axis, Layer
from verydeep.scoremaps.plan import WORK, MemoryTooSmallError, Plan, make_plan, within
from verydeep.scoremaps.regions import subtract
from verydeep.scoremaps.score_map import FORMAT_VERSION, fingerprint
from verydeep.scoremaps.sources import Picture, open_image
from verydeep.scoremaps.store import Folder
from verydeep.segmentation.blocks import Needs, block, needs, totals
from verydeep.segmentation.raster import write_classes
from verydeep.segmentation.segmenter import usual_factor

UNKNOWN = 255
"""Of pixels that were not computed."""
LEVEL = "classes"


@dataclass(frozen=True)
class Strip:
    """Columns of pixels that are computed together, from top to bottom, and how."""

    left: int
    right: int
    plan: Plan


class Job:
    """A map of classes to be computed of one image by one network, in bands of rows.

    It is that of the whole image: every row of every layer is computed once, padded where the image ends and nowhere
    else. `factor` is on the image's sides; the map is of the image as it is run.
    UserError where the image cannot be read.
    """

    def __init__(self, image: Picture, net: FCN, factor: float = 1.0) -> None:
        net.check_task("segment")
        self.net, self.factor = net.eval(), factor
        self.device = next(net.parameters()).device
        self.original = open_image(image)
        self.source: Source = rescaled(self.original, factor, net.preprocessing.interpolation)
        self.height, self.width = self.source.height, self.source.width
        rows, columns = (n + 2 * net.padding + net.extra(n) for n in (self.height, self.width))
        self.padded = rows, columns
        self.layers = _layers(net)
        plain = net.plain_layers()
        places = {layer.name: number for number, layer in enumerate(self.layers)}
        self.taps = [places[name] for name in net.taps]
        sides = [net.sides(plain, side) for side in self.padded]
        at = [next(i for i, layer in enumerate(plain) if layer.name == name) for name in net.taps]
        last = map_size(self.layers, *self.padded)
        self.cells = [totals(net, last[axis], [sides[axis][i] for i in at]) for axis in (0, 1)]
        self.name = fingerprint(image)

    def strips(self, memory: int | None) -> list[Strip]:
        """Return how the map is computed within `memory` bytes; UserError where they are too few, with the least."""
        left = within(memory, self.device)
        dense = Dense(self.net.configuration.name, self.layers, 1, 1, self.net.classes, self.net.preprocessing)
        count = 1
        while True:
            edges = [self.width * i // count for i in range(count + 1)]
            parts = [self._last_map((a, b)) for a, b in pairwise(edges)]
            beside = self._beside(-(-self.width // count))
            try:
                rest = None if left is None else left - beside
                plan = make_plan(dense, *self.padded, parts, rest, row_bytes=self.source.row_bytes)
            except MemoryTooSmallError as error:
                assert memory is not None
                assert left is not None
                least = -(-(memory - left + error.least + self._beside(1)) // 2**20)
                raise UserError(
                    f"memory: {memory // 2**20} MiB are too little for even one row of this image at a time; the least "
                    f"that works here is about {least}MiB"
                ) from None
            if plan.strips == 1 or count >= self.width:
                return [Strip(a, b, plan) for a, b in pairwise(edges)]
            count = min(count + max(1, count // 2), self.width)

    def _last_map(self, columns: tuple[int, int]) -> Rectangle:
        across = needs(self.net, columns, self.cells[1]).fused[0]
        return Rectangle(0, across[0], self.cells[0][0], across[1])

    def _beside(self, width: int) -> int:
        """Return the bytes of a block's scores, and of maps that wait for it, for so many columns."""
        rows = self._block_rows(width)
        fine = 4 * rows * width
        waiting = 4 * (self.net.window + rows + 64) * (width + self.net.window) // 64
        return 4 * len(self.net.classes) * (fine + 2 * waiting)

    def _block_rows(self, width: int) -> int:
        return max(8, min(256, WORK // (4 * len(self.net.classes) * width)))

    def about(self) -> dict[str, Any]:
        """Return what the map is, as JSON gives it back."""
        about = {
            "format_version": FORMAT_VERSION,
            "image": self.name,
            "height": self.original.height,
            "width": self.original.width,
            "network_sha256": weights_digest(self.net),
            "classes": list(self.net.classes),
            "values": "class",
            "factor": self.factor,
            "preprocessing": self.net.preprocessing.to_dict(),
        }
        found: dict[str, Any] = json.loads(json.dumps(about))
        return found

    def run(self, strips: list[Strip], out: Path, quiet: bool = True) -> Any:
        """Compute the map into a zarr folder, or what a stopped run has left of it; return its array, H x W, uint8."""
        with sole_writer(out):
            store = Folder(out, self.about(), {LEVEL: {"factor": self.factor}}, [(1, self.height, self.width)], "uint8")
            whole = [Rectangle(0, strip.left, self.height, strip.right) for strip in strips]
            todo = [
                (s, part) for s, area in zip(strips, whole, strict=True) for part in subtract([area], store.done[0])
            ]
            total = sum(part.bottom - part.top for _, part in todo)
            bar = iter(track(range(total), total, "segmenting", "rows", quiet=quiet))
            try:
                with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                    for strip, part in todo:
                        for top, labels in self._part(part, strip.plan):
                            store.write(0, top, part.left, labels[None])
                            for _ in labels:
                                next(bar, None)
            finally:
                store.flush()
            store.note(complete=True)
            return store.arrays[0]

    def _part(self, part: Rectangle, plan: Plan) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the first row of blocks of pixels, and their classes, from top to bottom."""
        net, across = self.net, needs(self.net, (part.left, part.right), self.cells[1])
        down = needs(net, (part.top, part.bottom), self.cells[0])
        areas = {
            place: Rectangle(down.skips[n][0], across.skips[n][0], down.skips[n][1], across.skips[n][1])
            for n, place in enumerate(self.taps)
        }
        scored = [_Rows(part.top) for _ in range(len(self.taps) + 1)]

        def keep(n: int) -> Any:
            score = net.get_submodule(f"score_{net.taps[n]}")
            return lambda row, rows: scored[n + 1].add(row, score(rows.permute(2, 0, 1)[None]))

        taps = {place: Tap(areas[place], keep(n)) for n, place in enumerate(self.taps)}
        last = Rectangle(down.fused[0][0], across.fused[0][0], down.fused[0][1], across.fused[0][1])
        found = extents(self.layers, *self.padded, last, areas)
        columns = part.left, part.right
        row, top, size = last.top, part.top, self._block_rows(part.right - part.left)
        for scores in bands(
            self.layers, found, steps(self.layers, found, plan.work), self._rows(found[0].inputs, plan.band), taps
        ):
            scored[0].add(row, scores.permute(2, 0, 1)[None])
            row += len(scores)
            while top < part.bottom:
                bottom = min(top + size, part.bottom)
                wanted = needs(net, (top, bottom), self.cells[0])
                if not self._ready(wanted, scored):
                    break
                yield top, self._labels(scored, wanted, across, ((top, bottom), columns))
                top = bottom

    @staticmethod
    def _ready(wanted: Needs, scored: "list[_Rows]") -> bool:
        ends = [wanted.fused[0][1], *(high for _, high in wanted.skips)]
        return all(rows.end >= end for rows, end in zip(scored, ends, strict=True))

    def _labels(
        self,
        scored: "list[_Rows]",
        down: Needs,
        across: Needs,
        pixels: tuple[tuple[int, int], tuple[int, int]],
    ) -> NDArray[np.uint8]:
        scores = self._scores(scored, down, across, pixels)
        if not bool(torch.isfinite(scores).all()):
            raise NotFiniteError("the network gives scores that are not finite: its training diverged")
        return np.asarray(scores[0].argmax(0).cpu().numpy(), np.uint8)

    def _scores(
        self, scored: "list[_Rows]", down: Needs, across: Needs, pixels: tuple[tuple[int, int], tuple[int, int]]
    ) -> Tensor:
        """Return the scores of a block of pixels, and forget the rows that no later one needs."""
        ranges = [down.fused[0], *down.skips]
        maps = [kept.take(*range_) for kept, range_ in zip(scored, ranges, strict=True)]
        return block(self.net, maps, down, across, pixels)

    def _rows(self, area: Rectangle, band: int) -> Iterator[Tensor]:
        """Yield preprocessed rows of a part of the padded image, rows x columns x 3, zeros around the picture."""
        pad = self.net.padding
        left, right = (min(max(column - pad, 0), self.width) for column in (area.left, area.right))
        for first in range(area.top, area.bottom, band):
            rows = min(band, area.bottom - first)
            whole = torch.zeros(rows, area.right - area.left, 3, device=self.device)
            top, bottom = (min(max(row - pad, 0), self.height) for row in (first, first + rows))
            if top < bottom and left < right:
                pixels = np.ascontiguousarray(self.source.read(top, left, bottom - top, right - left))
                x = self.net.preprocessing(torch.from_numpy(pixels)[None].to(self.device))[0].permute(1, 2, 0)
                down, across = pad - first, pad - area.left
                whole[top + down : bottom + down, left + across : right + across] = x
            yield whole


class _Rows:
    """Rows of scores, 1 x K x rows x columns, of which the first ones are forgotten as soon as no block needs them."""

    def __init__(self, first: int) -> None:
        self.first = self.end = -1
        self.parts: list[Tensor] = []

    def add(self, row: int, scores: Tensor) -> None:
        if self.first < 0:
            self.first = self.end = row
        self.parts.append(scores)
        self.end += scores.shape[2]

    def take(self, low: int, high: int) -> Tensor:
        """Return rows from `low` to before `high`, and forget those before them."""
        whole = torch.cat(self.parts, dim=2) if len(self.parts) > 1 else self.parts[0]
        whole = whole[:, :, low - self.first :]
        self.first, self.parts = low, [whole.clone()]
        return whole[:, :, : high - low]


def weights_digest(net: FCN) -> str:
    """Return a SHA-256 of a network's configuration and weights."""
    digest = sha256(json.dumps(net.config.to_dict()).encode())
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _layers(net: FCN) -> tuple[Layer, ...]:
    """Return the network's layers as ones that slide, the first fully connected one padded where it is."""
    layers, padding = chain_layers(net), net.map_padding
    if padding is None:
        return layers
    name, (before, after) = padding

    def padded(axis: Axis) -> Axis:
        return replace(axis, before=before, after=after)

    return tuple(
        replace(layer, rows=padded(layer.rows), columns=padded(layer.columns)) if layer.name == name else layer
        for layer in layers
    )


def segment_in_bands(
    image: Path,
    weights: Path,
    out: Path,
    *,
    factor: float | None = None,
    memory: int | None = None,
    device: str = "auto",
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the map of an image of any size to a `.tif` file or a `.zarr` folder; return what to say of it.

    A TIFF file is made of a zarr folder beside it, which is there while the work goes on, so that it can be continued.
    UserError for another ending, or a request that `Job` refuses.
    """
    if out.suffix.lower() not in (".tif", ".tiff", ".zarr"):
        raise UserError(f"{out}: the name must end in .tif, .tiff or .zarr")
    net = load(weights, "segment")
    place(net, pick_device(device))
    job = Job(image, cast(FCN, net), usual_factor(net) if factor is None else factor)
    strips = job.strips(memory)
    raster = out.suffix.lower() != ".zarr"
    folder = out.with_name(f".{out.name}.unfinished.zarr") if raster else out
    labels = job.run(strips, folder, quiet)
    if raster:
        write_classes(Plane(labels), out, net.classes, read_georeference(image), job.factor)
        shutil.rmtree(folder)
    size = [job.width, job.height]
    return {"image": str(image), "map": size, "strips": len(strips), "working_bytes": strips[0].plan.working_bytes}


@dataclass(frozen=True)
class Plane:
    """The one plane of a store's array, not read before it is sliced."""

    array: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.array.shape[1:]
        return rows, columns

    def __getitem__(self, rows: slice) -> Any:
        return self.array[0, rows]
