"""Encoded files to upright RGB pixels, or one line that says what is wrong with the file."""

from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ExifTags import Base
from PIL.Image import Image, alpha_composite, fromarray, new
from PIL.ImageFile import ImageFile

from verydeep.basics.errors import BadImageError

MAX_PIXELS = 500_000_000
"""Default limit against decompression bombs: 1.5 GB of RGB."""

_JPEG = b"\xff\xd8\xff"
# Pillow's readers are called one by one: `Image.open` would try forty formats and apply its own size limit.
_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (_JPEG, JpegImagePlugin.JpegImageFile),
    (b"\x89PNG", PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"II", TiffImagePlugin.TiffImageFile),
    (b"MM", TiffImagePlugin.TiffImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image file into upright RGB.

    JPEG (gray, YCbCr, CMYK, YCCK), PNG, WebP, TIFF, BMP and GIF (the first picture of several). The EXIF
    orientation is applied. Transparency is composited on white; of 16-bit samples the high byte is kept; CMYK
    is converted by (255 - C)(255 - K) / 255, without a color profile.

    Parameters
    ----------
    data : bytes
        The file's content.
    name : str
        Path of the file, for the error.
    max_pixels : int
        Larger images are refused by their header, before anything is decoded.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Grey levels 0 to 255, C-contiguous.

    Raises
    ------
    BadImageError
        If the file is empty, no image, damaged, cut short or too large.
    """
    height, width = size(data, name)
    if height * width > max_pixels:
        raise BadImageError(name, f"{width} x {height} pixels, more than the limit of {max_pixels:,}")
    if _is_plain_jpeg(data):
        try:
            return upright(simplejpeg.decode_jpeg(data), _jpeg_orientation(data))
        except ValueError as error:
            if _is_damage(error):
                raise BadImageError(name, f"damaged JPEG file ({_one_line(error)})") from None
    # Pillow also reads the JPEG files that simplejpeg refuses for harmless oddities.
    image = _open(data, name)
    try:
        image.load()
        return upright(np.array(_to_rgb(image)), _orientation(image))
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of many types
        raise BadImageError(name, f"damaged {image.format} file ({_one_line(error)})") from None


def size(data: bytes, name: str) -> tuple[int, int]:
    """Return (height, width) of the upright image, from the header alone.

    Raises
    ------
    BadImageError
        If the file has no header that can be read.
    """
    if _is_plain_jpeg(data):
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        turn = _jpeg_orientation(data)
    else:
        image = _open(data, name)
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # whose `size` some versions of Pillow turn upright
            width, height = (image.tag_v2[tag] for tag in (Base.ImageWidth, Base.ImageLength))
        turn = _orientation(image)
    return (width, height) if turn >= 5 else (height, width)


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn stored pixels (H, W, 3) upright, as their EXIF orientation (1 to 8) says."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _is_plain_jpeg(data: bytes) -> bool:
    """Tell whether simplejpeg can decode this: gray or YCbCr in a common subsampling."""
    if not data.startswith(_JPEG):
        return False
    try:
        return simplejpeg.decode_jpeg_header(data)[2] in ("Gray", "YCbCr", "RGB")
    except ValueError:
        return False


def _is_damage(error: ValueError) -> bool:
    """Tell a damaged picture from what libjpeg only remarks on, such as surplus bytes before a marker."""
    message = str(error)
    return message.startswith(("Premature end", "Corrupt JPEG")) and "extraneous bytes" not in message


def _jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a JPEG file."""
    if b"Exif\0\0" not in data:  # most files: no need to open it with Pillow
        return 1
    return _orientation(JpegImagePlugin.JpegImageFile(BytesIO(data)))


def _orientation(image: Image) -> int:
    try:
        turn = image.getexif().get(Base.Orientation, 1)
    except Exception:  # damaged metadata does not make the picture bad
        return 1
    return turn if turn in range(1, 9) else 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _open(data: bytes, name: str) -> ImageFile:
    if not data:
        raise BadImageError(name, "empty file")
    for magic, reader in _READERS:
        if data.startswith(magic):
            try:
                image = reader(BytesIO(data))
            except Exception as error:  # damaged files make Pillow raise errors of many types
                raise BadImageError(name, f"damaged header ({_one_line(error)})") from None
            if min(image.size) < 1:
                raise BadImageError(name, "damaged header (no pixels)")
            return image
    raise BadImageError(name, "not an image (JPEG, PNG, WebP, TIFF, BMP or GIF expected)")


def _to_rgb(image: Image) -> Image:
    """Convert any of Pillow's modes to RGB, transparency on white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit samples (mode {image.mode}) have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return alpha_composite(new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
