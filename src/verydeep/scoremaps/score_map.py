"""Score maps of images of any size: the whole image's map, whether or not the image fits into memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Unpack

from verydeep.basics.device import pick_device
from verydeep.basics.errors import UserError
from verydeep.basics.files import file_hash
from verydeep.basics.lock import sole_writer
from verydeep.basics.progress import track
from verydeep.checkpoints.reading import load
from verydeep.images.rescale_rows import Source, rescaled
from verydeep.inference.runtime import pick_engine
from verydeep.scoremaps.bands import Rectangle, bands, extents, map_size, steps
from verydeep.scoremaps.densify import Dense, densify
from verydeep.scoremaps.georeference import Georeference, read_georeference
from verydeep.scoremaps.native import native
from verydeep.scoremaps.plan import MemoryTooSmallError, Plan, make_plan, within
from verydeep.scoremaps.regions import covering, read_mask, region_cells, subtract, wanted_cells
from verydeep.scoremaps.sources import Picture, TruncatedImageError, open_image
from verydeep.scoremaps.store import Folder, Memory, Store, open_map

FORMAT_VERSION = 1
Watch = Callable[[int, float], None]
"""Told the place of a scale, and the share of its rows that were read."""


@dataclass(frozen=True)
class Level:
    """The map at one scale.

    Attributes
    ----------
    scale : float
        Factor on the image's sides.
    values : array of float32, K x h x w
        numpy's or zarr's; NaN where nothing was computed.
    step : (float, float)
        Pixels of the original per pixel of the rescaled image, down and across.
    stride, window : int
        Pixels of the rescaled image between cells, and the side of a cell's window.
    """

    scale: float
    values: Any
    step: tuple[float, float]
    stride: int
    window: int

    def center(self, row: float, column: float) -> tuple[float, float]:
        """Return y and x of the center of a cell's window, in pixels of the original."""
        (down, across), half = self.step, self.window / 2
        return (row * self.stride + half) * down, (column * self.stride + half) * across

    def window_of(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Return top, left, bottom and right of a cell's window, in pixels of the original."""
        (top, left), (down, across) = (row * self.stride, column * self.stride), self.step
        return top * down, left * across, (top + self.window) * down, (left + self.window) * across


@dataclass(frozen=True)
class ScoreMap:
    """The maps of an image, and where their cells lie.

    Attributes
    ----------
    levels : tuple of Level
        One a scale, in the order asked for.
    classes : tuple of str
        Of the maps' first axis.
    kind : {"posterior", "score"}
        After the soft-max over all classes of the network (or a sigmoid a class), or before.
    image : str
        Name of the image.
    height, width : int
        Of the original in pixels.
    georeference : Georeference or None
        Where the original lies on the earth.
    path : Path or None
        The zarr folder, where there is one.
    plans : tuple of Plan
        How each scale was computed in this run.
    """

    levels: tuple[Level, ...]
    classes: tuple[str, ...]
    kind: str
    image: str
    height: int
    width: int
    georeference: Georeference | None = None
    path: Path | None = None
    plans: tuple[Plan, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Wanted:
    """What is asked for of an image's maps.

    Attributes
    ----------
    scales : sequence of float
        Factors on the image's sides.
    classes : sequence of str, optional
        Which to keep, by name; by default all.
    softmax : bool
        Whether cells hold posteriors in [0, 1] over all the network's classes, or the scores before the soft-max.
    region : tuple of int, optional
        x, y, width, height in pixels of the original: cells whose windows lie in it. What they see around it is read,
        so their values are those of the whole image's map.
    mask : str, Path or ndarray, optional
        Of the image's size, or divided by a whole number: cells whose centers lie where it is 0 stay NaN.
    stride : int, optional
        Pixels between cells: the network's own divided by what its last pools skip; see `verydeep.scoremaps.finer`.
    """

    scales: Sequence[float] = (1.0,)
    classes: Sequence[str] | None = None
    softmax: bool = True
    region: tuple[int, int, int, int] | None = None
    mask: str | Path | NDArray[np.generic] | None = None
    stride: int | None = None


class WantedOptions(TypedDict, total=False):
    """The fields of `Wanted` as keywords of functions for users."""

    scales: Sequence[float]
    classes: Sequence[str] | None
    softmax: bool
    region: tuple[int, int, int, int] | None
    mask: str | Path | NDArray[np.generic] | None
    stride: int | None


def score_map(
    image: Picture,
    net: Dense | nn.Module | str | Path,
    out: str | Path | None = None,
    *,
    memory: int | None = None,
    device: str = "auto",
    engine: str = "auto",
    quiet: bool = True,
    **wanted: Unpack[WantedOptions],
) -> ScoreMap:
    """Compute the score map of an image of any size, exactly that of the whole image.

    Parameters
    ----------
    image : str, Path, array or PIL image
        See `verydeep.scoremaps.sources.open_image`.
    net : Dense, nn.Module, str or Path
        What `densify` made, a network that it can make something of, or a weights file.
    out : str or Path, optional
        A zarr folder, written as the work goes on; one of the same map is continued. By default the map is kept in
        memory.
    memory : int, optional
        Bytes that this process may hold, all together; on a GPU, that the work may take there.
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    engine : {"auto", "native", "torch"}
        What runs the 3x3 convolutions. `auto` is torch: bands are laid out anew for the native engine, and that
        costs more than it gains.
    quiet : bool
        Whether to draw no progress bar.
    **wanted
        Fields of `Wanted`: scales, classes, softmax, region, mask, stride.

    Returns
    -------
    ScoreMap

    Raises
    ------
    UserError
        An image smaller than a window, of unknown samples or cut short (the map down to there is kept), a mask of
        another size, or a limit of memory too small for even one row.
    WorkError
        The disk is full; what was written is kept.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> net = create("A", 5, width=1 / 64, image_size=64, fc_width=8).eval()
    >>> found = score_map(np.zeros((300, 200, 3), np.uint8), net)
    >>> found.levels[0].values.shape, found.levels[0].window_of(1, 2)
    ((5, 9, 6), (32.0, 64.0, 96.0, 128.0))
    """
    job = Job(image, net, Wanted(**wanted), device, engine)
    plans = job.plans(memory)
    return job.run(plans, None if out is None else Path(out), quiet)


class Job:
    """A request for score maps, checked: what is to be computed of which image by which network.

    Parameters are those of `score_map`, with what is wanted as one.
    """

    def __init__(
        self,
        image: Picture,
        net: Dense | nn.Module | str | Path,
        wanted: Wanted = Wanted(),
        device: str = "auto",
        engine: str = "auto",
    ) -> None:
        scales, stride, mask = wanted.scales, wanted.stride, wanted.mask
        self.device = pick_device(device)
        dense = _dense(net)
        self.dense = (dense if stride is None else dense.at_stride(stride)).to(self.device)
        self.kept = _indices(self.dense.classes, wanted.classes)
        self.softmax = wanted.softmax
        self.source = open_image(image)
        self.georeference = read_georeference(image)
        if not scales or len(set(scales)) < len(scales):
            raise UserError(f"scales {list(scales)}: expected one or more different factors above 0")
        self.scales = tuple(scales)
        self.sources = [rescaled(self.source, scale, dense.preprocessing.interpolation) for scale in scales]
        self._check_sizes()
        self._run_by(engine)
        self.region = wanted.region
        self.mask = None if mask is None else read_mask(mask, self.source.height, self.source.width)
        self._mask_name = None if mask is None else fingerprint(mask)
        self._image_name = fingerprint(image)

    def _run_by(self, engine: str) -> None:
        # Rows of a band are laid out anew for the native engine and back, which costs it more time than it gains.
        if engine != "auto" and pick_engine(engine, self.device) == "native":
            self.dense = native(self.dense)

    def _check_sizes(self) -> None:
        for scale, source in zip(self.scales, self.sources, strict=True):
            if min(map_size(self.dense.layers, source.height, source.width)) < 1:
                raise UserError(
                    f"{source.name}: {source.width} x {source.height} pixels at scale {scale:g} are smaller than one "
                    f"window of {self.dense.name}: the least side is {self.dense.least_size}"
                )

    def levels(self, arrays: Sequence[Any]) -> tuple[Level, ...]:
        """Return what is known of each scale's map, with its values."""
        found = []
        for scale, source, values in zip(self.scales, self.sources, arrays, strict=True):
            step = (self.source.height / source.height, self.source.width / source.width)
            found.append(Level(scale, values, step, self.dense.stride, self.dense.window))
        return tuple(found)

    def cells(self, level: int) -> tuple[list[Rectangle], NDArray[np.bool_] | None]:
        """Return the parts of a scale's map that are asked for, and which of their cells."""
        here, source = self.levels([None] * len(self.scales))[level], self.sources[level]
        size = map_size(self.dense.layers, source.height, source.width)
        part = Rectangle(0, 0, *size)
        if self.region:
            part = region_cells(self.region, here.step, here.stride, here.window, size)
        if self.mask is None:
            return [part], None
        height, width = self.source.height, self.source.width
        cells = wanted_cells(self.mask, height, width, here.step, here.stride, here.window, size)
        return covering(cells, part, gap=here.window // here.stride), cells

    def plans(self, memory: int | None) -> tuple[Plan, ...]:
        """Return how each scale's map is computed within `memory` bytes.

        UserError: the limit is too small; the message says the least that works.
        """
        left = within(memory, self.device)
        try:
            return self.plans_beside(left)
        except MemoryTooSmallError as error:
            assert memory is not None
            assert left is not None
            least = -(-(memory - left + error.least) // 2**20)
            raise UserError(
                f"memory: {memory // 2**20} MiB are too little for even one row of this image at a time; the least "
                f"that works here is {least}MiB"
            ) from None

    def plans_beside(self, left: int | None) -> tuple[Plan, ...]:
        """Return how each scale's map is computed within `left` bytes beside what is held; MemoryTooSmallError."""
        return tuple(
            make_plan(
                self.dense,
                source.height,
                source.width,
                self.cells(level)[0],
                left,
                row_bytes=source.row_bytes,
                kept=len(self.kept),
            )
            for level, source in enumerate(self.sources)
        )

    def run(self, plans: Sequence[Plan], out: Path | None, quiet: bool = True) -> ScoreMap:
        """Compute what the plans say, or what a stopped run has left of it."""
        with sole_writer(out):
            return self.run_into(self._store(plans, out), plans, out, quiet)

    def run_into(
        self,
        store: Store,
        plans: Sequence[Plan],
        out: Path | None = None,
        quiet: bool = True,
        watch: Watch | None = None,
    ) -> ScoreMap:
        """Compute into `store` what it has not; `watch` is told of progress, and what it raises ends the work."""
        name, classes = self.source.name, tuple(self.dense.classes[k] for k in self.kept)
        kind = "posterior" if self.softmax else "score"
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                for level, plan in enumerate(plans):
                    self._level(level, plan, store, quiet, watch)
        except TruncatedImageError as error:
            store.flush()
            rows, height, width = error.rows, self.source.height, self.source.width
            store.note(unreadable={"x": 0, "y": rows, "width": width, "height": height - rows})
            raise UserError(
                f"{name}: can be read only down to row {rows}; the region {width} x {height - rows} at (0, {rows}) is "
                f"missing ({error.reason}); the map above it is kept"
            ) from None
        finally:
            store.flush()
        store.note(complete=True)
        levels = self.levels(store.arrays)
        size = self.source.height, self.source.width
        return ScoreMap(levels, classes, kind, name, *size, self.georeference, out, tuple(plans))

    def _store(self, plans: Sequence[Plan], out: Path | None) -> Store:
        shapes = [(len(self.kept), plan.rows, plan.columns) for plan in plans]
        if out is None:
            return Memory(shapes)
        return Folder(out, self.about(), self._level_facts(), shapes)

    def _level(self, level: int, plan: Plan, store: Store, quiet: bool, watch: Watch | None) -> None:
        """Compute one scale's map."""
        source, layers = self.sources[level], self.dense.layers
        cells = self.cells(level)[1]
        left = [piece for part in plan.parts for piece in subtract([part], store.done[level])]
        found = [extents(layers, source.height, source.width, part) for part in left]
        total = sum(one[0].inputs.bottom - one[0].inputs.top for one in found)
        rows_done: Iterable[int] = range(total) if watch is None else _watched(watch, level, total)
        bar = iter(track(rows_done, total, f"scale {self.scales[level]:g}", "rows", quiet=quiet))
        for part, one in zip(left, found, strict=True):
            cut: list[TruncatedImageError] = []
            rows = self._rows(source, one[0].inputs, plan.band, bar, cut)
            top = part.top
            for scores in bands(layers, one, steps(layers, one, plan.work), rows):
                values = self._values(scores)
                if cells is not None:
                    outside = ~cells[top : top + values.shape[1], part.left : part.right]
                    values[:, outside] = np.nan
                store.write(level, top, part.left, values)
                top += values.shape[1]
            if cut:
                raise cut[0]
        for _ in bar:
            pass

    def _rows(
        self, source: Source, area: Rectangle, band: int, bar: Iterator[int], cut: list[TruncatedImageError]
    ) -> Iterator[Tensor]:
        """Yield preprocessed rows of a part of the image, from top to bottom, rows x columns x 3.

        Where the image can be read no further they end, and `cut` gets the error.
        """
        row = area.top
        while row < area.bottom:
            height = min(band, area.bottom - row)
            while True:
                try:
                    pixels = source.read(row, area.left, height, area.right - area.left)
                    break
                except TruncatedImageError as error:  # what can be read of the band is still used
                    if height == 1:
                        cut.append(error)
                        return
                    height //= 2
            batch = torch.from_numpy(np.ascontiguousarray(pixels))[None].to(self.device)
            yield self.dense.preprocessing(batch)[0].permute(1, 2, 0).contiguous()
            row += height
            for _ in range(height):
                next(bar, None)

    def _values(self, scores: Tensor) -> NDArray[np.float32]:
        """Return what is kept of some rows of scores: K x rows x columns."""
        if not bool(torch.isfinite(scores).all()):
            raise UserError("the network gives scores that are not finite: its training diverged; use other weights")
        if self.softmax:
            scores = scores.sigmoid() if self.dense.multi_label else scores.softmax(dim=2)
        if len(self.kept) < scores.shape[2]:
            scores = scores[:, :, self.kept]
        return np.ascontiguousarray(scores.permute(2, 0, 1).cpu().numpy(), np.float32)

    def about(self) -> dict[str, Any]:
        """Return what the map is, as JSON gives it back: what decides its values, and what its reader needs."""
        about = {
            "format_version": FORMAT_VERSION,
            "image": self._image_name,
            "height": self.source.height,
            "width": self.source.width,
            "network": self.dense.name,
            "network_sha256": _hash(self.dense),
            "classes": [self.dense.classes[k] for k in self.kept],
            "values": "posterior" if self.softmax else "score",
            "stride": self.dense.stride,
            "window": self.dense.window,
            "scales": list(self.scales),
            "region": list(self.region) if self.region else None,
            "mask": self._mask_name,
            "preprocessing": self.dense.preprocessing.to_dict(),
            "sample_bits": getattr(self.source, "bits", 8),
            "georeference": self.georeference.to_dict() if self.georeference else None,
        }
        if self.dense.multi_label:
            about["multi_label"] = True
        return cast(dict[str, Any], json.loads(json.dumps(about)))

    def _level_facts(self) -> dict[str, dict[str, Any]]:
        """Return for each scale's array where its cells lie, in pixels of the original."""
        facts = {}
        for level in self.levels([None] * len(self.scales)):
            down, across = level.step
            facts[f"scale_{level.scale:g}"] = {
                "scale": level.scale,
                "window": [level.window * down, level.window * across],
                "stride": [level.stride * down, level.stride * across],
                "first_window": [0.0, 0.0],
                "first_center": list(level.center(0, 0)),
                "units": "pixels of the original, y then x; window (i, j) begins at (i, j) x stride",
            }
        return facts


def _watched(watch: Watch, level: int, total: int) -> Iterator[int]:
    for row in range(total):
        watch(level, row / total)
        yield row


def _dense(net: Dense | nn.Module | str | Path) -> Dense:
    if isinstance(net, Dense):
        return net
    return densify(net if isinstance(net, nn.Module) else load(net))


def _indices(names: Sequence[str], classes: Sequence[str] | None) -> list[int]:
    """Return the places of classes by name, or by the first word of a name."""
    if classes is None:
        return list(range(len(names)))
    found = []
    for name in classes:
        hits = [k for k, known in enumerate(names) if name == known or name in known.split(" ", 1)]
        if len(hits) != 1:
            from difflib import get_close_matches

            near = next(iter(get_close_matches(name, names, n=1, cutoff=0)), names[0])
            raise UserError(f"class {name!r}: {len(hits)} of the network's classes have this name; nearest: {near!r}")
        found += hits
    return found


def fingerprint(image: Any) -> str:
    """Return a text that another file or array would not have."""
    if isinstance(image, str | Path):
        path = Path(image)
        if path.is_dir():
            return str(path.resolve())
        stat = path.stat()
        return f"{path.name}, {stat.st_size} bytes" + (f", {file_hash(path)}" if stat.st_size < 2**24 else "")
    array = image if hasattr(image, "shape") else np.asarray(image)
    digest = hashlib.sha256(np.ascontiguousarray(np.asarray(array[0])).tobytes()).hexdigest()[:16]
    return f"array of shape {tuple(array.shape)}, first row {digest}"


def _hash(dense: Dense) -> str:
    digest = hashlib.sha256()
    for layer in dense.layers:
        digest.update(f"{layer.name} {layer.rows} {layer.columns} {len(layer.behind)}".encode())
        for tensor in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
            if tensor is not None:
                digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_map(path: str | Path) -> ScoreMap:
    """Read a map that `score_map` wrote; its values stay in the file until they are looked at.

    Raises
    ------
    UserError
        There is no map.
    """
    group = open_map(Path(path))
    about = group.attrs["verydeep"]
    levels = []
    for scale in about["scales"]:
        values = group[f"scale_{scale:g}"]
        down, across = (stride / about["stride"] for stride in values.attrs["stride"])
        levels.append(Level(scale, values, (down, across), about["stride"], about["window"]))
    place = Georeference.from_dict(about["georeference"]) if about["georeference"] else None
    size = about["height"], about["width"]
    return ScoreMap(tuple(levels), tuple(about["classes"]), about["values"], about["image"], *size, place, Path(path))
