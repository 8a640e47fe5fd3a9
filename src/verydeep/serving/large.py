"""The score map of a large picture as a job: on disk all the time, in memory a band of rows."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.images.decode import read_header
from verydeep.scoremaps.bands import Rectangle
from verydeep.scoremaps.densify import Dense
from verydeep.scoremaps.peaks import Peak, find_peaks, write_peaks
from verydeep.scoremaps.plan import MemoryTooSmallError
from verydeep.scoremaps.score_map import Job, Level, ScoreMap, Wanted
from verydeep.scoremaps.store import Values
from verydeep.serving.jobs import Tell
from verydeep.serving.refusal import RefusedError

MOST_PIXELS = 1 << 30
MOST_MAP = 1 << 30
"""Bytes on disk of a picture's maps together."""
MOST_PEAKS = 2000
TILE = 254
MAP_SHARE = 0.8  # of the time, about; the rest makes the tiles
LIBVIPS = 24 << 20
"""Bytes that libvips takes beside what the plan counts, where pictures are read row by row."""
PEAKS = ("peaks.csv", "peaks.geojson")


class _OnDisk:
    """An array in a file, of which no part stays in memory."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._path, self.shape = path, shape
        np.lib.format.open_memmap(path, "w+", np.float32, shape)

    def __getitem__(self, part: Any) -> NDArray[np.float32]:
        return np.array(np.lib.format.open_memmap(self._path, "r")[part])

    def __setitem__(self, part: Any, values: NDArray[np.float32]) -> None:
        np.lib.format.open_memmap(self._path, "r+")[part] = values


class _Files:
    """Keeps maps as `.npy` files, one a scale."""

    def __init__(self, paths: Sequence[Path], shapes: Sequence[tuple[int, int, int]]) -> None:
        self.arrays: list[Any] = [_OnDisk(path, shape) for path, shape in zip(paths, shapes, strict=True)]
        self.done: list[list[Rectangle]] = [[] for _ in shapes]

    def write(self, level: int, top: int, left: int, values: Values) -> None:
        rows, columns = values.shape[1:]
        self.arrays[level][:, top : top + rows, left : left + columns] = values

    def flush(self) -> None:
        pass

    def note(self, **facts: Any) -> None:
        pass


class LargePicture:
    """A picture in its job's folder, checked and planned: its maps, its peaks, and tiles to look at it closely.

    `upload` is written to the folder. UserError for what is no picture or cannot be read in parts, RefusedError for
    what takes more than `share` bytes of memory, or more than is allowed on disk.
    """

    def __init__(
        self,
        folder: Path,
        upload: bytes,
        dense: Dense,
        device: str,
        wanted: Wanted,
        threshold: float,
        share: int,
    ) -> None:
        header = read_header(upload, "picture", max_pixels=MOST_PIXELS)
        self._folder, self._threshold = folder, threshold
        self._path = folder / "picture"
        self._path.write_bytes(upload)
        _check_reading(self._path, share)
        try:
            self._job = Job(self._path, dense, wanted, device)
            self.plans = self._job.plans_beside(share - LIBVIPS)
        except MemoryTooSmallError as error:
            raise RefusedError(
                413,
                f"a picture of {header.width} x {header.height} pixels takes {(error.least + LIBVIPS) >> 20} MiB at "
                f"least, and --memory allows {share >> 20} MiB",
            ) from None
        except UserError as error:
            raise UserError(self._without_path(error)) from None
        size = sum(4 * len(self._job.kept) * plan.rows * plan.columns for plan in self.plans)
        if size > MOST_MAP:
            raise RefusedError(
                413, f"the map takes {size / 2**30:.1f} GiB; ask for some classes (class=...), up to 1 GiB"
            )

    def run(self, tell: Tell) -> dict[str, Any]:
        """Compute the maps, find the peaks, cut the tiles."""
        work = sum(plan.macs for plan in self.plans)
        before = [sum(plan.macs for plan in self.plans[:k]) for k in range(len(self.plans))]

        def watch(level: int, share: float) -> None:
            tell(MAP_SHARE * (before[level] + share * self.plans[level].macs) / work)

        shapes = [(len(self._job.kept), plan.rows, plan.columns) for plan in self.plans]
        files = _Files([self._folder / f"scale_{scale:g}.npy" for scale in self._job.scales], shapes)
        try:
            self.found = self._job.run_into(files, self.plans, watch=watch)
            peaks = find_peaks(self.found, self._threshold, MOST_PEAKS)
            for name in PEAKS:
                write_peaks(peaks, self._folder / name, self.found)
            _cut(self._path, self._folder, tell)
        except UserError as error:
            raise UserError(self._without_path(error)) from None
        return self._about(peaks)

    def _about(self, peaks: Sequence[Peak]) -> dict[str, Any]:
        found = self.found
        return {
            "height": found.height,
            "width": found.width,
            "classes": list(found.classes),
            "values": found.kind,
            "levels": [_where(level) for level in found.levels],
            "threshold": self._threshold,
            "peaks": [
                {"class": p.label, "value": round(p.value, 6), "x": p.x, "y": p.y, "width": p.width, "height": p.height}
                for p in peaks
            ],
            "files": [*PEAKS, *(f"scale_{level.scale:g}.npy" for level in found.levels), "image.dzi"],
        }

    def _without_path(self, error: UserError) -> str:
        return str(error).replace(str(self._path), "picture")


def _where(level: Level) -> dict[str, Any]:
    """Return a map's size, and the part of the picture that its cells stand for: a stride around each center."""
    (y, x), (down, across) = level.center(0, 0), (level.stride * step for step in level.step)
    rows, columns = level.values.shape[1:]
    place = {"top": y - down / 2, "left": x - across / 2, "height": rows * down, "width": columns * across}
    return {"scale": level.scale, "rows": rows, "columns": columns, **place}


def _check_reading(path: Path, share: int) -> None:
    """Refuse what libvips would have to decode as a whole, where that is more than `share`, and what it cannot show."""
    vips = need("pyvips", "maps")
    try:
        image = vips.Image.new_from_file(str(path))
    except vips.Error:
        raise UserError("picture: cannot be read in parts; convert it to JPEG, PNG or TIFF") from None
    if image.interpretation == "cmyk":
        raise UserError("picture: is CMYK; convert it to RGB first")
    whole = any(image.get_typeof(name) and image.get(name) for name in ("jpeg-multiscan", "interlaced"))
    turned = image.get_typeof("orientation") and image.get("orientation") > 1
    bytes_held = 8 * image.width * image.height
    if (whole or turned) and bytes_held > share // 2:
        raise RefusedError(
            413, "a progressive, interlaced or turned picture of this size is decoded as a whole; store it plainly"
        )


def _cut(path: Path, folder: Path, tell: Tell) -> None:
    """Write the picture as tiles of Deep Zoom, `image.dzi` and `image_files`."""
    vips = need("pyvips", "maps")
    stopped: list[BaseException] = []

    def watch(image: Any, progress: Any) -> None:
        try:
            tell(MAP_SHARE + (1 - MAP_SHARE) * progress.percent / 100)
        except BaseException as error:
            stopped.append(error)
            image.set_kill(True)

    try:
        image = vips.Image.new_from_file(str(path), access="sequential", fail_on="error")
        image = image.autorot().colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=[255, 255, 255])
        image = image.cast("uchar")
        image.set_progress(True)
        image.signal_connect("eval", watch)
        image.dzsave(str(folder / "image"), suffix=".jpg[Q=85]", tile_size=TILE, overlap=1)
    except vips.Error as error:
        if stopped:
            raise stopped[0] from None
        reason = next(iter(error.detail.splitlines()), "damaged")
        raise UserError(f"picture: cannot be read to its end ({reason})") from None


def draw_map(found: ScoreMap, level: int, label: int) -> bytes:
    """Return a class's map as a PNG, a pixel a cell: the higher the value, the brighter and the less transparent."""
    values = np.nan_to_num(found.levels[level].values[label])
    pixels = colormaps["inferno"](np.clip(values, 0, 1), bytes=True)
    pixels[..., 3] = np.clip(510 * values, 0, 255)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
