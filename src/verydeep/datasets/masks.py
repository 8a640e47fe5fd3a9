"""Pictures with a class for each pixel: a data set whose samples have a mask beside them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verydeep.basics.errors import BadImageError
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.storage import Storage
from verydeep.images.decode import read_header

IGNORED = 255
"""Label of pixels that count neither in training nor in testing."""
VOID = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
"""Names of no class: their pixels do not count."""


@dataclass(frozen=True)
class Values:
    """What the values of masks mean.

    Attributes
    ----------
    labels : mapping of int or (int, int, int) to int
        The label of each value of gray and palette masks, or of each color, `IGNORED` among them. Any other value is an
        error.
    of_colors : bool
        Whether masks are read as colors.
    """

    labels: Mapping[int | tuple[int, int, int], int]
    of_colors: bool = False

    def read(self, data: bytes, where: str) -> NDArray[np.uint8]:
        """Return the label of each pixel, uint8 (H, W); BadImageError for what is no mask with these values."""
        values = read_values(data, where, self.of_colors)
        table = {_number(value): label for value, label in self.labels.items()}
        keys = np.array(sorted(table), np.int64)
        place = np.searchsorted(keys, values).clip(max=len(keys) - 1)
        unknown = keys[place] != values
        if unknown.any():
            row, column = (int(n[0]) for n in np.nonzero(unknown))
            value = int(values[row, column])
            shown = f"color {value >> 16} {value >> 8 & 255} {value & 255}" if self.of_colors else f"value {value}"
            raise BadImageError(
                where,
                f"{shown} at row {row}, column {column} is none of the classes' (classes.txt says which there are)",
            )
        return np.asarray(np.array([table[key] for key in keys.tolist()], np.uint8)[place])


def read_values(data: bytes, where: str, of_colors: bool) -> NDArray[np.int64]:
    """Return a mask's values as they are stored, or its colors as red 65536 + green 256 + blue; int64 (H, W)."""
    header = read_header(data, where)  # its limit on pixels, and that it is a picture at all
    if header.is_common_jpeg:
        raise BadImageError(where, "a mask that is a JPEG file: its values are not exact; PNG is expected")
    try:
        with Image.open(BytesIO(data)) as image:
            if not of_colors and image.mode not in ("P", "L", "1", "I;16", "I"):
                raise BadImageError(
                    where, f"a mask in colors ({image.mode}): classes.txt must say NAME,RED,GREEN,BLUE of each class"
                )
            pixels = np.asarray(image.convert("RGB") if of_colors else image)
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImageError(where, f"damaged mask ({' '.join(str(error).split())})") from None
    pixels = pixels.astype(np.int64)
    return pixels @ np.array([65536, 256, 1]) if of_colors else pixels


def _number(value: int | tuple[int, int, int]) -> int:
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


class SegmentedDataset(Dataset):
    """One split of pictures with masks; `masks` are the names of the samples' masks in the storage.

    What else it takes is as for `Dataset`. Labels are -1: a picture has a class for each pixel.
    """

    masks: Mapping[str, str]
    values: Values

    @staticmethod
    def of(
        about: tuple[str, str, tuple[str, ...]],
        samples: Sequence[Sample],
        storage: Storage,
        provenance: str,
        masks: Mapping[str, str],
        values: Values,
    ) -> "SegmentedDataset":
        """Make one of name, split and classes, samples, and the mask of each sample by its id."""
        dataset = SegmentedDataset(*about, samples, storage, provenance)
        dataset.masks, dataset.values = masks, values
        return dataset

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the label of each pixel of image `index`, uint8 (H, W), `IGNORED` where there is none.

        BadImageError where the mask is damaged, of another size, or holds values of no class; also where EXIF turns the
        picture, because nothing says whether the mask was drawn before.
        """
        name = self.masks[self.samples[index].id]
        where = self.storage.where(name)
        labels = self.values.read(self.storage.read(name), where)
        header = read_header(self.read(index), self.where(index))
        if header.orientation != 1:
            raise BadImageError(
                self.where(index), f"EXIF turns the picture, but not its mask {name}: store the picture upright"
            )
        if labels.shape != (header.height, header.width):
            size = f"{labels.shape[1]} x {labels.shape[0]} pixels, the picture {header.width} x {header.height}"
            raise BadImageError(where, f"the mask has {size}")
        return labels

    def fingerprint(self, boxes: bool = False) -> str:
        """Return a hash of classes, images and what the masks hold."""
        digest = blake2b(super().fingerprint(boxes).encode(), digest_size=32)
        for sample in self.samples:
            digest.update(blake2b(self.storage.read(self.masks[sample.id])).digest())
        return digest.hexdigest()

    def subset(self, indices: Iterable[int]) -> "SegmentedDataset":
        """Return a data set of the images `indices`, in that order."""
        samples = [self.samples[index] for index in indices]
        about = self.name, self.split, self.classes
        return SegmentedDataset.of(about, samples, self.storage, self.provenance, self.masks, self.values)
