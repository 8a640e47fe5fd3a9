"""Common JPEG files by libjpeg-turbo: all of the picture, or no more rows and resolution than needed."""

from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MAGIC = b"\xff\xd8\xff"


def read_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) as stored; None if this is no gray, YCbCr or RGB JPEG that simplejpeg can decode."""
    if not data.startswith(MAGIC):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width) if space in ("Gray", "YCbCr", "RGB") else None


def decode_top(data: bytes, height: int, width: int, rows: int, reduction: int = 1) -> NDArray[np.uint8]:
    """Decode the upper `rows` of the `height` rows of a file, reduced by 1, 2, 4 or 8; all rows if it is progressive.

    RGB as stored, (ceil(rows / reduction), ceil(width / reduction), 3). The rows below are neither entropy-decoded nor
    transformed; the reduction happens within the inverse DCT. The rows returned are those that decoding the whole file
    would give, but for the last two: the interpolation of color looks at the rows below. ValueError if libjpeg has
    anything to remark about the file, even if it is cut short only below `rows`.
    """
    shortened = _claim_rows(data, rows) if rows < height else data
    if shortened is data:
        rows = height
    pixels = np.empty((-(-rows // reduction), -(-width // reduction), 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(
            shortened,
            min_height=pixels.shape[0],
            min_width=pixels.shape[1],
            min_factor=reduction,
            buffer=pixels,
        )
    except ValueError as error:
        # Only its first remark reaches us. This one is about the rows we chose to leave out: all else is well.
        if shortened is data or "extraneous bytes before marker" not in str(error):
            raise
    return pixels


def is_damage(error: ValueError) -> bool:
    """Tell a damaged picture from what libjpeg only remarks on, such as surplus bytes before a marker."""
    message = str(error)
    return message.startswith(("Premature end", "Corrupt JPEG")) and "extraneous bytes" not in message


def read_exif(data: bytes) -> bytes:
    """Return the EXIF block, empty if there is none."""
    for kind, start, end in _segments(data):
        if kind == 0xE1 and data.startswith(b"Exif\0\0", start):
            return data[start:end]
    return b""


def _claim_rows(data: bytes, rows: int) -> bytes:
    """Return the file with `rows` written as the height in its frame header, so that decoding stops there.

    `data` itself if its frame is not a sequential one: in a progressive file every row is spread over the file.
    """
    for kind, start, _ in _segments(data):
        if kind in (0xC0, 0xC1):  # sequential frame: precision (1 byte), height (2), width (2), ...
            return data[: start + 1] + rows.to_bytes(2, "big") + data[start + 3 :]
    return data


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of the content of each segment before the scan; nothing that is not in order."""
    place = 2
    while data[place : place + 1] == b"\xff":
        kind = data[place + 1 : place + 2]
        if kind == b"\xff":  # padding
            place += 1
            continue
        if kind in (b"", b"\xda"):
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield kind[0], place + 4, end
        place = end
