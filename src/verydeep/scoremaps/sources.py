"""Images of any size, read in parts: files through libvips, zarr, numpy memory maps and arrays."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, alpha_composite, fromarray, new

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.extras import need
from verydeep.images.decode import BYTES_A_PIXEL
from verydeep.images.files import read_picture
from verydeep.images.rescale_rows import Source

Pixels = NDArray[np.uint8]
_IN_PARTS = ("jpegload", "pngload", "tiffload", "ppmload", "openslide", "vipsload", "radload", "fitsload")
"""Loaders of libvips that decode no more than what is asked for, or from top to bottom."""
MOST_DECODED = 1 << 29
"""Bytes for pictures that cannot be read in parts, and say so only when they are opened."""
Picture = str | Path | NDArray[Any] | Image | Any
"""A file's path, or an array of height x width x 3, of height x width, or of 3 x height x width; numpy's or zarr's."""


class TruncatedImageError(BadImageError):
    """An image that can be read only down to some row; `reason` is what the reader says."""

    def __init__(self, name: str, reason: str, rows: int = 0) -> None:
        super().__init__(name, reason)
        self.rows = rows


class _InksError(UserError):
    """A picture in cyan, magenta, yellow and black, which is read as everywhere in this project: as a whole."""


def open_image(image: Picture) -> Source:
    """Open an image without reading its pixels.

    8-bit samples are taken as they are; of 16-bit ones the high byte is kept, as everywhere in this project. Gray
    becomes RGB, transparency is composited on white, and the EXIF orientation is applied. UserError: no such file, no
    image, or samples without a known range.

    Parameters
    ----------
    image : str, Path, array or PIL image
        JPEG, PNG, WebP, TIFF, BigTIFF and what else libvips reads (OpenSlide's slide formats where it has them), the
        largest level of a pyramid; a `.zarr` folder, `.npy` file or array of whole numbers in 8 or 16 bits.
    """
    if isinstance(image, Image):
        return _Array(np.asarray(image.convert("RGB")), "the image")
    if not isinstance(image, str | Path):
        return _Array(image, "the image")
    path = Path(image)
    if not path.exists():
        raise UserError(f"{path}: no such image")
    if path.is_dir():
        return _Array(_zarr_array(path), str(path))
    if path.suffix == ".npy":
        try:
            return _Array(np.load(path, mmap_mode="r", allow_pickle=False), str(path))
        except (ValueError, OSError) as error:
            raise BadImageError(str(path), f"no readable array ({error})") from None
    try:
        return _File(path)
    except _InksError:
        return _Array(read_picture(path, MOST_DECODED // BYTES_A_PIXEL), str(path))


def _zarr_array(path: Path) -> Any:
    zarr = need("zarr", "maps")
    try:
        node = zarr.open(path, mode="r")
        if not hasattr(node, "shape"):  # a group: an OME-Zarr pyramid, or one that holds a single array
            scales = node.attrs.get("multiscales") or node.attrs.get("ome", {}).get("multiscales")
            names = [scales[0]["datasets"][0]["path"]] if scales else sorted(name for name, _ in node.arrays())
            if len(names) != 1:
                raise UserError(f"{path}: holds the arrays {', '.join(names) or '(none)'}; give one, {path}/NAME")
            node = node[names[0]]
    except UserError:
        raise
    except Exception as error:  # zarr raises errors of many types for what is no zarr
        raise BadImageError(str(path), f"not a readable zarr array ({type(error).__name__}: {error})") from None
    return node


class _Array:
    """An array of any kind that can be sliced; chunks of zarr are read once."""

    def __init__(self, array: Any, name: str) -> None:
        self.name = name
        shape, kind = tuple(array.shape), np.dtype(array.dtype)
        while len(shape) > 3 and shape[0] == 1:
            array, shape = _First(array), shape[1:]
        self._planes = len(shape) == 3 and shape[0] == 3 and shape[2] != 3
        if not (len(shape) == 2 or self._planes or (len(shape) == 3 and shape[2] == 3)):
            raise UserError(
                f"{name}: an array of shape {shape}; expected height x width x 3, height x width, or 3 x height x width"
            )
        if kind not in (np.dtype(np.uint8), np.dtype(np.uint16)):
            raise _no_range(name, str(kind))
        self.bits = 8 * kind.itemsize
        self.height, self.width = shape[1:] if self._planes else shape[:2]
        chunks = getattr(array, "chunks", None)
        self._granule = chunks[1 if self._planes else 0] if chunks and len(chunks) == len(shape) else 1
        self._array = array
        self._block: Pixels = np.empty((0, 0, 3), np.uint8)
        self._where = (0, 0, 0, 0)
        self.row_bytes = 3 * self._granule * kind.itemsize if self._granule > 1 else 0

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Return the pixels of a part, uint8, height x width x 3."""
        if self._granule == 1:
            return self._slice(top, left, top + height, left + width)
        parts = []
        row = top
        while row < top + height:
            first = row - row % self._granule
            where = (first, left, min(first + self._granule, self.height), left + width)
            if where != self._where:
                self._block, self._where = self._slice(*where), where
            stop = min(where[2], top + height)
            parts.append(self._block[row - first : stop - first])
            row = stop
        return np.concatenate(parts)

    def _slice(self, top: int, left: int, bottom: int, right: int) -> Pixels:
        rows, columns = slice(top, bottom), slice(left, right)
        pixels = np.asarray(self._array[(slice(None), rows, columns)] if self._planes else self._array[(rows, columns)])
        return _rgb(pixels.transpose(1, 2, 0) if self._planes else pixels)


@dataclass(frozen=True)
class _First:
    """The first element of an array along its first axis, without reading it."""

    array: Any

    @property
    def chunks(self) -> Any:
        """Without the first axis."""
        chunks = getattr(self.array, "chunks", None)
        return chunks[1:] if chunks else None

    def __getitem__(self, window: tuple[slice, ...]) -> Any:
        first = (0, *window)
        return self.array[first]


class _File:
    """A file that libvips reads: tiled ones in any order, others from top to bottom, and again from the top."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._vips = need("pyvips", "maps")
        logging.getLogger("pyvips").addHandler(logging.NullHandler())  # what it warns of becomes an error here
        self._turned = self._tiled = False
        image = self._open("random")
        self._tiled = bool(image.get_typeof("tile-width") or image.get("vips-loader").startswith("openslide"))
        turned = image.get_typeof("orientation") and image.get("orientation") > 1
        self._access = "random" if self._tiled or turned else "sequential"
        self._turned = bool(turned)
        self._page_rows = int(image.get("tile-height")) if image.get_typeof("tile-height") else 16
        image = self._open(self._access)
        self.height, self.width = image.height, image.width
        self.bits = _bits(image, self.name)
        self._image, self._next = image, 0
        self._region: Any = None
        self._cut: TruncatedImageError | None = None
        self.row_bytes = 2 * image.bands * self._page_rows * self.bits // 8
        if not image.get("vips-loader").startswith(_IN_PARTS):
            self.row_bytes = BYTES_A_PIXEL * self.height  # no row can be had before the whole picture is decoded

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Return the pixels of a part, uint8, height x width x 3.

        TruncatedImageError: the file ends too early or is damaged; it says how many rows can be read.
        """
        if self._cut is None or top + height <= self._cut.rows:
            try:
                return self._read(top, left, height, width)
            except self._vips.Error as error:
                self._cut = TruncatedImageError(self.name, _why(error), self._readable(top, left, height, width))
        raise self._cut

    def _read(self, top: int, left: int, height: int, width: int) -> Pixels:
        if self._region is None or (self._access == "sequential" and top < self._next):
            self._image = self._open(self._access)
            self._region = self._vips.Region.new(self._image)
        self._next = top + height
        kind = np.uint16 if self.bits == 16 else np.uint8
        data = np.frombuffer(self._region.fetch(left, top, width, height), kind)
        return _rgb(data.reshape(height, width, self._image.bands))

    def _readable(self, top: int, left: int, height: int, width: int) -> int:
        """Return how many rows can be read, known that those above `top` can."""
        fits = 0
        while height:  # halve the rows that are in doubt
            half = (height + 1) // 2
            self._region = None
            try:
                self._read(top + fits, left, half, width)
                fits += half
            except self._vips.Error:
                if half == 1:
                    break
                height = half
                continue
            height -= half
        self._region = None
        return top + fits

    def _open(self, access: str) -> Any:
        vips = self._vips
        # Of tiles that cannot be read libvips says no more than a warning, and makes them black.
        level = "warning" if self._tiled else "error"
        try:
            image = vips.Image.new_from_file(self.name, access=access, fail_on=level, revalidate=True)
        except vips.Error as error:
            raise BadImageError(self.name, f"not a readable image ({_why(error)})") from None
        return image.autorot() if self._turned else image


def _why(error: Any) -> str:
    """Return the cause that libvips gives, which is the first of its lines, without names of its own functions."""
    cause = next(iter(error.detail.splitlines()), error.message).rpartition(": ")[2]
    return "of no known format" if "is not a known file format" in cause else cause


def _bits(image: Any, name: str) -> int:
    """Return the bits of a libvips image's samples; refuse those that nothing here makes RGB of."""
    if image.format not in ("uchar", "ushort"):
        raise _no_range(name, f"{image.format}")
    if image.interpretation == "cmyk" and image.bands == 4:
        raise _InksError(name)
    if image.bands > 4:
        raise UserError(
            f"{name}: {image.bands} channels ({image.interpretation}), expected gray, RGB, or one of them with "
            "transparency; convert it first"
        )
    return 16 if image.format == "ushort" else 8


def _rgb(samples: NDArray[Any]) -> Pixels:
    """Return RGB of gray, gray with alpha, RGB or RGBA samples in 8 or 16 bits."""
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.ndim == 2:
        samples = samples[:, :, None]
    channels = samples.shape[2]
    if channels in (1, 2):
        samples = np.concatenate([samples[:, :, :1].repeat(3, axis=2), samples[:, :, 1:]], axis=2)
    if channels in (2, 4):
        picture = fromarray(np.ascontiguousarray(samples))
        samples = np.asarray(alpha_composite(new("RGBA", picture.size, "white"), picture).convert("RGB"))
    return np.ascontiguousarray(samples, np.uint8)


def _no_range(name: str, kind: str) -> UserError:
    return UserError(
        f"{name}: {kind} samples have no known range; convert them to 8 bits, or to 16 bits, of which the high byte "
        "is kept"
    )
