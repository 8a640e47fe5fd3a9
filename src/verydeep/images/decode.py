"""Encoded files to upright RGB pixels, or one line that says what is wrong with the file."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin, TiffImagePlugin
from PIL.ExifTags import Base
from PIL.Image import DecompressionBombError, Exif, Image, alpha_composite, fromarray, new
from PIL.ImageFile import ImageFile

from verydeep.basics.errors import BadImageError
from verydeep.basics.memory import Budget
from verydeep.images import jpeg
from verydeep.images.formats import HEAD, expected, format_of

BYTES_A_PIXEL = 12
"""That decoding takes at most: 3 as an array, 4 in each of two modes of Pillow's, and the file."""
MAX_PIXELS = 178_956_970
"""Default limit against decompression bombs: Pillow's own, and 2 GiB while the picture is decoded."""
_DECODING = Budget(1 << 30)  # of the whole process: many threads decode usual pictures at once, and large ones in turn


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before its pixels."""

    name: str  # path of the file, for errors
    height: int  # of the upright image, in pixels
    width: int
    orientation: int  # of EXIF, 1 (upright as stored) to 8
    is_common_jpeg: bool  # whether `verydeep.images.jpeg` can decode it


def read_header(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read an image file's header.

    BadImageError if the file is empty, no image, its header damaged, or it has more than `max_pixels` pixels.
    """
    stored = jpeg.read_size(data)
    is_common_jpeg = stored is not None
    if stored:
        exif = jpeg.read_exif(data)
        read_exif: Callable[[], Exif] = partial(_parse, exif) if exif else Exif
    else:
        image = _open(data, name)
        stored = image.height, image.width
        read_exif = image.getexif
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # whose `size` some versions of Pillow turn upright
            stored = image.tag_v2[Base.ImageLength], image.tag_v2[Base.ImageWidth]
        elif isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
            read_exif = partial(_parse, _png_exif(data))  # Pillow would decode the picture to find what may follow it
    if stored[0] * stored[1] > max_pixels:  # before anything that might decode
        raise BadImageError(name, f"{stored[1]} x {stored[0]} pixels, more than the limit of {max_pixels:,}")
    turn = _orientation(read_exif)
    height, width = stored[::-1] if turn >= 5 else stored
    return Header(name, height, width, turn, is_common_jpeg)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image file into upright RGB, uint8 (height, width, 3), C-contiguous.

    The formats of `verydeep.images.formats`; of several pictures in a file the first. The EXIF orientation is
    applied. Transparency is composited on white; of 16-bit samples the high byte is kept, and where 0 is white they
    are inverted; CMYK is converted by (255 - C)(255 - K) / 255, without a color profile. Images of more than
    `max_pixels` are refused by their header. BadImageError, naming `name`, also for what is empty, no image or damaged.
    """
    header = read_header(data, name, max_pixels=max_pixels)
    return decode_part(data, header, header.height)[0]


def decode_part(data: bytes, header: Header, rows: int, reduction: int = 1) -> tuple[NDArray[np.uint8], int]:
    """Decode at least the upper `rows` of an image, and reduce it by `reduction` if that is easily done.

    Returns upright RGB, (at least rows / reduction, width / reduction, 3), where `rows` counts unreduced rows and sizes
    are rounded up, and the reduction it has: 1 or `reduction`.
    """
    if header.is_common_jpeg:
        height, width = header.height, header.width
        if header.orientation >= 5:
            height, width = width, height
        if header.orientation > 1:
            rows = height  # the upper rows may be stored anywhere
            if height % reduction or width % reduction:
                reduction = 1  # the last reduced row or column is a partial one; turned, it would come first
        try:
            with _DECODING.hold(6 * min(rows, height) * width // reduction**2):  # as stored and upright
                return upright(jpeg.decode_top(data, height, width, rows, reduction), header.orientation), reduction
        except ValueError as error:
            if jpeg.is_damage(error):
                raise BadImageError(header.name, f"damaged JPEG file ({_one_line(error)})") from None
    # Pillow also reads the JPEG files that simplejpeg refuses for harmless oddities.
    with _DECODING.hold(BYTES_A_PIXEL * header.height * header.width):
        return _by_pillow(data, header), 1


def _by_pillow(data: bytes, header: Header) -> NDArray[np.uint8]:
    image = _open(data, header.name)
    try:
        image.load()
        # Some versions of Pillow turn TIFF upright as they load it, and no longer say that it was turned.
        turn = _orientation(image.getexif) if image.format == "TIFF" else header.orientation
        return upright(np.array(_to_rgb(image)), turn)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of many types
        raise BadImageError(header.name, f"damaged {image.format} file ({_one_line(error)})") from None


def from_pillow(image: Image, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return a PIL image as `decode` would return its file: upright RGB, transparency on white."""
    if image.width * image.height > max_pixels:
        raise BadImageError(name, f"{image.width} x {image.height} pixels, more than the limit of {max_pixels:,}")
    try:
        return upright(np.array(_to_rgb(image)), _orientation(image.getexif))
    except (OSError, ValueError, SyntaxError) as error:  # read from its file only now
        raise BadImageError(name, f"cannot be read ({_one_line(error)})") from None


def size(data: bytes, name: str) -> tuple[int, int]:
    """Return (height, width) of the upright image, from the header alone; errors as of `read_header`."""
    header = read_header(data, name)
    return header.height, header.width


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn stored pixels (H, W, 3) upright, as their EXIF orientation (1 to 8) says."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _open(data: bytes, name: str) -> ImageFile:
    if not data:
        raise BadImageError(name, "empty file")
    kind = format_of(data[:HEAD])
    if kind is None:
        raise BadImageError(name, f"not an image ({expected()} expected)")
    if not kind.is_read:
        raise BadImageError(name, f"{kind.name} is not read here: {kind.remedy}, or convert it to JPEG")
    try:
        image = kind.open(data)
    except DecompressionBombError as error:  # a library's own limit, for files that it decodes as it opens them
        raise BadImageError(name, f"more pixels than the limit of {MAX_PIXELS:,} ({_one_line(error)})") from None
    except Exception as error:  # damaged files make Pillow raise errors of many types
        raise BadImageError(name, f"damaged header ({_one_line(error)})") from None
    if min(image.size) < 1:
        raise BadImageError(name, "damaged header (no pixels)")
    return image


def _orientation(read_exif: Callable[[], Exif]) -> int:
    try:
        turn = read_exif().get(Base.Orientation, 1)
    except Exception:  # damaged metadata does not make the picture bad
        return 1
    return turn if turn in range(1, 9) else 1


def _png_exif(data: bytes) -> bytes:
    """Return the EXIF chunk of a PNG file, which may stand behind the pixels; empty if there is none."""
    place = 8
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if kind == b"eXIf":
            return b"Exif\0\0" + data[place + 8 : place + 8 + length]
        place += 12 + length
    return b""


def _parse(block: bytes) -> Exif:
    exif = Exif()
    exif.load(block)
    return exif


def _to_rgb(image: Image) -> Image:
    """Convert any of Pillow's modes to RGB, transparency on white."""
    # Pillow opens 16-bit PGM, and before version 11 gray 16-bit PNG files, in 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        pixels = (np.asarray(image) >> (4 if tags.get(Base.BitsPerSample) == (12,) else 8)).astype(np.uint8)
        # Of 8-bit TIFF files whose 0 is white Pillow inverts the samples, of others it does not.
        return fromarray(255 - pixels if tags.get(Base.PhotometricInterpretation) == 0 else pixels).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit samples (mode {image.mode}) have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return alpha_composite(new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
