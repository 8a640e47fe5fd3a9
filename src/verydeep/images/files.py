"""Picture files of a user: found in folders, read upright."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import open_regular
from verydeep.images.decode import MAX_PIXELS, decode

IMAGE_SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "gif", "ppm", "pgm", "jp2", "avif"}
)


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the upright RGB pixels of an image file, (H, W, 3); BadImageError where it is none or not there."""
    try:
        with open_regular(path) as file:
            return decode(file.read(), str(path), max_pixels=max_pixels)
    except OSError as error:
        raise BadImageError(str(path), (error.strerror or "cannot be read").lower()) from None


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Return the paths with every folder replaced by the pictures in it and below, sorted by name.

    Raises
    ------
    UserError
        For a folder without pictures.
    """
    files = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix[1:].lower() in IMAGE_SUFFIXES)
        if not inside:
            raise UserError(f"{path}: a folder without pictures; give pictures or folders of them")
        files += inside
    return files
