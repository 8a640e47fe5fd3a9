"""What a descriptor is given, whatever its form, as a data set: paths, arrays, PIL images, parts of pictures."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from verydeep.basics.errors import BadImageError, UserError
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.datasets.storage import FolderFile, Storage

Picture = NDArray[np.uint8]


class Arrays(Dataset):
    """Pictures held in memory.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8, shape (H, W, 3)
        Upright RGB.
    """

    def __init__(self, pictures: Sequence[Picture]) -> None:
        samples = [Sample(str(i), -1) for i in range(len(pictures))]
        super().__init__("arrays", "test", (), samples, Storage(Path("arrays"), {}))
        self.pictures = pictures

    def where(self, index: int) -> str:
        """Return the place of image `index`, as messages name it."""
        return f"image {self.samples[index].id}"

    def image(self, index: int) -> Picture:
        """Return image `index`."""
        return self.pictures[index]

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image `index`."""
        height, width, _ = self.pictures[index].shape
        return height, width

    def content_hash(self, index: int) -> bytes:
        """Return 16 bytes that are the same for the same pixels."""
        picture = self.pictures[index]
        return blake2b(f"{picture.shape}".encode() + picture.tobytes(), digest_size=16).digest()

    def subset(self, indices: Iterable[int]) -> "Arrays":
        """Return the images `indices`, in that order."""
        return Arrays([self.pictures[index] for index in indices])


class Boxes(Dataset):
    """What lies in a box of each picture.

    Parameters
    ----------
    whole : Dataset
        The whole pictures.
    boxes : sequence of Box
        One for each, in pixels of the upright original; what lies beyond the picture's edges is cut off.
    """

    def __init__(self, whole: Dataset, boxes: Sequence[Box]) -> None:
        super().__init__(
            whole.name, whole.split, whole.classes, whole.samples, whole.storage, whole.provenance, whole.bad
        )
        self.whole, self.boxes = whole, boxes

    def where(self, index: int) -> str:
        """Return the path of image `index`, as messages name it."""
        return self.whole.where(index)

    def image(self, index: int) -> Picture:
        """Return the part of image `index` within its box."""
        picture = self.whole.image(index)
        top, left, bottom, right = self._edges(index, picture.shape[0], picture.shape[1])
        return np.ascontiguousarray(picture[top:bottom, left:right])

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the box's part of the picture."""
        top, left, bottom, right = self._edges(index, *self.whole.size(index))
        return bottom - top, right - left

    def content_hash(self, index: int) -> bytes:
        """Return 16 bytes that are the same for the same box of the same picture."""
        return blake2b(self.whole.content_hash(index) + str(self.boxes[index]).encode(), digest_size=16).digest()

    def subset(self, indices: Iterable[int]) -> "Boxes":
        """Return the images `indices`, in that order."""
        indices = list(indices)
        return Boxes(self.whole.subset(indices), [self.boxes[index] for index in indices])

    def _edges(self, index: int, height: int, width: int) -> tuple[int, int, int, int]:
        box = self.boxes[index]
        top, left = max(0, int(box.ymin)), max(0, int(box.xmin))
        bottom, right = min(height, round(box.ymax)), min(width, round(box.xmax))
        if top >= bottom or left >= right:
            raise BadImageError(self.where(index), f"{box} holds no pixel of its {width} x {height}")
        return top, left, bottom, right


def as_dataset(X: Any) -> Dataset:
    """Return what `Descriptor` is given as a data set.

    Parameters
    ----------
    X : Dataset, or sequence of path, ndarray or PIL image
        Arrays are uint8, H x W x 3, upright RGB, also as one array N x H x W x 3.

    Raises
    ------
    UserError
        For anything else, naming the first element that is none of these.
    """
    if isinstance(X, Dataset):
        return X
    if isinstance(X, str | PathLike):
        raise UserError(f"{X}: one path; give a list of them, or a data set of verydeep.open_dataset")
    elements = list(X)
    if elements and all(isinstance(element, str | PathLike) for element in elements):
        return paths([Path(element) for element in elements])
    return Arrays([_picture(element, i) for i, element in enumerate(elements)])


def paths(files: Sequence[Path]) -> Dataset:
    """Return image files as a data set without labels, in the order given, a file given twice being there twice."""
    samples = [Sample(str(file), -1) for file in files]
    return Dataset("files", "test", (), samples, Storage(Path(), {str(file): FolderFile(str(file)) for file in files}))


def _picture(element: Any, index: int) -> Picture:
    if isinstance(element, str | PathLike):
        return paths([Path(element)]).image(0)
    if isinstance(element, Image.Image):
        return np.array(ImageOps.exif_transpose(element).convert("RGB"))
    if isinstance(element, np.ndarray) and element.dtype == np.uint8 and element.ndim == 3 and element.shape[2] == 3:
        return np.ascontiguousarray(element)
    what = f"an array of {element.dtype}, shape {element.shape}" if isinstance(element, np.ndarray) else repr(element)
    raise UserError(f"image {index} is {what:.80}; expected a path, a PIL image or uint8 of shape (H, W, 3), RGB")
