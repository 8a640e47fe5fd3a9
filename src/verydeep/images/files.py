"""Picture files of a user: found in folders, read upright, written."""

import os
from collections.abc import Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import open_regular, write_aside
from verydeep.images.decode import MAX_PIXELS, decode, from_pillow
from verydeep.images.formats import HEAD, counted, is_picture

WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the upright RGB pixels of an image file, (H, W, 3); BadImageError where it is none or not there."""
    try:
        with open_regular(path) as file:
            return decode(file.read(), str(path), max_pixels=max_pixels)
    except OSError as error:
        raise BadImageError(str(path), (error.strerror or "cannot be read").lower()) from None


def open_picture(image: Any, name: str = "picture", max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the upright RGB pixels, (H, W, 3), of what a user calls a picture.

    That is a path, a file's content in bytes, a PIL image, or an array of uint8, (H, W, 3), upright RGB. BadImageError
    where it cannot be read, UserError, by its `name`, for anything else.
    """
    if isinstance(image, str | PathLike):
        return read_picture(Path(image), max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), name, max_pixels=max_pixels)
    if isinstance(image, Image):
        return from_pillow(image, name, max_pixels)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return np.ascontiguousarray(image)
    what = f"an array of {image.dtype}, shape {image.shape}" if isinstance(image, np.ndarray) else repr(image)
    raise UserError(f"{name} is {what:.80}; expected a path, bytes, a PIL image or uint8 of shape (H, W, 3), RGB")


def is_one_picture(images: Any) -> bool:
    """Tell a picture from a sequence of them, which an array of one or four dimensions is, too."""
    if isinstance(images, np.ndarray):
        return images.ndim in (2, 3)
    single = isinstance(images, str | PathLike | bytes | bytearray | memoryview | Image)
    return single or not hasattr(images, "__iter__")


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Return the paths with every folder replaced by the pictures in it and below, sorted by name.

    Hidden files are left out. UserError for a folder without pictures.
    """
    return pictures_and_others(paths)[0]


def pictures_and_others(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return what `find_pictures` does, and the files in folders that are no pictures, sorted by name."""
    files, others = [], list[Path]()
    for path in paths:
        inside = [path]
        if path.is_dir():
            every = [file for file in path.rglob("*") if _is_shown(file, path)]
            inside = sorted(file for file in every if is_picture(file.name, partial(_head, file)))
            others += sorted(set(every).difference(inside))
        if not inside:
            holds = f" (it holds {counted(file.name for file in every)})" if every else ""
            raise UserError(f"{path}: a folder without pictures{holds}; give pictures or folders of them")
        files += inside
    return files, others


def _is_shown(file: Path, folder: Path) -> bool:
    return not file.is_dir() and not any(
        part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts
    )


def _head(file: Path) -> bytes:
    try:
        with open_regular(file) as opened:
            return opened.read(HEAD)
    except OSError:  # a folder, a pipe
        return b""


def check_writable(path: Path) -> None:
    """Raise UserError, before the work, where no picture could be written: by the name's ending or the folder."""
    if path.suffix.lower() not in WRITTEN:
        raise UserError(f"{path}: the name must end in {', '.join(WRITTEN)}")
    folder = next(each for each in path.absolute().parents if each.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{path}: cannot be written; choose another place")


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write RGB pixels, (H, W, 3), as the file that its name says, whole or not at all."""
    with write_aside(path) as aside:
        fromarray(picture).save(aside, WRITTEN[path.suffix.lower()], quality=95)
