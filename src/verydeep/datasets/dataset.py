"""A data set: labeled images in a fixed order, one split of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import BadBoxError, BadImageError
from verydeep.datasets.storage import Storage
from verydeep.images.decode import decode, size


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its edges, in pixels of the upright original image.

    Pixel column c covers [c, c + 1), so a box around the whole of a 64x48 image is (0, 0, 64, 48).
    """

    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One labeled image.

    Parameters
    ----------
    id : str
        Name of the image, unique in the whole source (a path with "/", the same for a folder and its tar).
    label : int
        Index into the data set's `classes`; -1 where it has none, or may have several.
    boxes : tuple of Box
        Where objects of that class are, as far as the source says.
    labels : tuple of int, optional
        Of a data set whose images may have several classes: those it has, in ascending order, perhaps none.
    """

    id: str
    label: int
    boxes: tuple[Box, ...] = ()
    labels: tuple[int, ...] | None = None


class Dataset:
    """One split of a source of labeled images.

    Parameters
    ----------
    name : str
        Name of the whole data set, for example "tiny-imagenet-200".
    split : str
        "train", "val" or "test".
    classes : tuple of str
        Class names; their order gives the labels.
    samples : sequence of Sample
        The images, in a fixed order.
    storage : Storage
        Holds the files that the samples' ids name.
    provenance : str
        In words: where this split comes from.
    bad : tuple of BadImageError
        Damaged files of this split that were left out.
    bad_boxes : tuple of BadBoxError
        Annotations that give no usable box; their images are there, without boxes.
    """

    def __init__(
        self,
        name: str,
        split: str,
        classes: tuple[str, ...],
        samples: Sequence[Sample],
        storage: Storage,
        provenance: str = "",
        bad: tuple[BadImageError, ...] = (),
        bad_boxes: tuple[BadBoxError, ...] = (),
    ) -> None:
        self.name = name
        self.split = split
        self.classes = classes
        self.samples = samples
        self.storage = storage
        self.provenance = provenance
        self.bad = bad
        self.bad_boxes = bad_boxes

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def multi_label(self) -> bool:
        """Whether images may have several classes, or none."""
        return bool(self.samples) and self.samples[0].labels is not None

    def targets(self) -> NDArray[np.int8]:
        """Return which classes the images have, N x K: 1 where one is there, -1 where not."""
        found = np.full((len(self), len(self.classes)), -1, np.int8)
        for row, sample in zip(found, self.samples, strict=True):
            row[list(sample.labels if sample.labels is not None else (sample.label,))] = 1
        return found

    def __repr__(self) -> str:
        return f"<{self.name} {self.split}: {len(self)} images, {len(self.classes)} classes>"

    def fingerprint(self, boxes: bool = False) -> str:
        """Return a hash of classes, image ids and labels: what a run on this split depends on, wherever it lies.

        With `boxes` also of these, on which training for boxes depends.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for sample in self.samples:
            label = sample.label if sample.labels is None else sample.labels
            digest.update(f"\n{sample.id}\t{label}\t{sample.boxes if boxes else ''}".rstrip("\t").encode())
        return digest.hexdigest()

    def where(self, index: int) -> str:
        """Return the path of image `index`, as messages name it."""
        return self.storage.where(self.samples[index].id)

    def read(self, index: int) -> bytes:
        """Return image `index` as its file holds it, undecoded; safe from several threads.

        Raises
        ------
        BadImageError
            If the file cannot be read.
        """
        return self.storage.read(self.samples[index].id)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 (H, W, 3), upright RGB, C-contiguous, the caller's own.

        Raises
        ------
        BadImageError
            If the file is damaged, empty or no image.
        """
        return decode(self.read(index), self.where(index))

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image `index` in pixels, upright, without decoding its pixels.

        Raises
        ------
        BadImageError
            If the file's header is damaged, or it is empty or no image.
        """
        return size(self.read(index), self.where(index))

    def content_hash(self, index: int) -> bytes:
        """Return 16 bytes that are the same for images of the same content: a hash of the file."""
        return blake2b(self.read(index), digest_size=16).digest()

    def subset(self, indices: Iterable[int]) -> "Dataset":
        """Return a data set of the images `indices`, in that order; classes and labels stay."""
        samples = [self.samples[index] for index in indices]
        about = self.name, self.split, self.classes, samples, self.storage, self.provenance
        return Dataset(*about, self.bad, self.bad_boxes)
