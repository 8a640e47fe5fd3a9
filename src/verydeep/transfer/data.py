"""Pictures and what is in them, as data sets: what descriptors are given, and what a transfer protocol divides."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.basics.errors import BadImageError
from verydeep.datasets.content import content_hashes
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.datasets.opening import Reading
from verydeep.datasets.splits import SPLITS
from verydeep.datasets.storage import FolderFile, Storage
from verydeep.datasets.voc import read_voc
from verydeep.images.files import is_one_picture, open_picture
from verydeep.inference.views import Picture
from verydeep.transfer.protocols import Indices, Split, Targets, TransferProtocol

EXAMPLES = 5
"""Duplicates that are named."""


@dataclass(frozen=True, eq=False)
class Data:
    """Images and what is in them."""

    dataset: Dataset  # every split
    ids: tuple[str, ...]  # unique
    targets: Targets  # (N, K): 1 where an image has the class, -1 where not, 0 where it does not count for it
    own: dict[str, Indices]  # of `train`, `val` and `test`, as the set has them or as they are held out
    boxes: Dataset | None = None  # for actions, the part of each picture that shows the person

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the targets' columns."""
        return self.dataset.classes

    @cached_property
    def labels(self) -> Indices:
        """The class of each image, the first where it has several."""
        return np.asarray(self.targets.argmax(axis=1), np.int64)

    @cached_property
    def hashes(self) -> list[bytes]:
        """Hash of each picture's content."""
        return content_hashes(self.dataset)

    def duplicates(self, split: Split) -> dict[str, Any]:
        """Return how many test images equal a training or validation image, byte for byte, with a few examples."""
        known = {self.hashes[i]: i for i in split.known.tolist()}
        # For actions one picture may show several people, who are not each other's duplicates within one list.
        test = [i for i in split.test.tolist() if self.hashes[i] in known]
        pairs = [[self.ids[i], self.ids[known[self.hashes[i]]]] for i in test[:EXAMPLES]]
        return {"split": split.name, "test_images": len(test), "examples": pairs}


def read_all(source: str, reading: Reading) -> tuple[Dataset, dict[str, Indices]]:
    """Return all labeled images of a data set, and which of them are its train, val and test images.

    Where its val and test images are the same, as ImageNet's, they are there once, as test.
    """
    splits = {name: reading.open(source, name) for name in SPLITS}
    if [s.id for s in splits["val"].samples] == [s.id for s in splits["test"].samples]:
        del splits["val"]
    ends = np.cumsum([0, *map(len, splits.values())])
    own = {name: np.arange(*ends[n : n + 2]) for n, name in enumerate(splits)}
    return joined(list(splits.values())), own


def read_data(source: str, protocol: TransferProtocol, reading: Reading) -> Data:
    """Read a data set as a protocol asks for it: VOC's own folder or tar, or what `reading` opens."""
    if protocol.name.startswith("voc"):
        year, _, action = protocol.name.removeprefix("voc").partition("-")
        voc = read_voc(source, int(year), bool(action))
        boxes = in_boxes(voc.dataset, voc.boxes) if voc.boxes else None
        return Data(voc.dataset, voc.ids, voc.targets, voc.splits, boxes)
    dataset, own = read_all(source, reading)
    labels = np.array([sample.label for sample in dataset.samples])
    ids = tuple(sample.id for sample in dataset.samples)
    return Data(dataset, ids, one_class(labels, dataset.classes), own)


def one_class(labels: Indices, classes: Sequence[str]) -> Targets:
    """Return the targets of images that have one class each."""
    return np.where(labels[:, None] == np.arange(len(classes)), 1, -1).astype(np.int8)


def as_dataset(X: Any) -> Dataset:
    """Return what `Descriptor` is given as a data set.

    That is a Dataset, a picture as for `open_picture`, or a sequence of them; UserError for anything else, naming the
    first element that is none of these.
    """
    if isinstance(X, Dataset):
        return X
    elements = [X] if is_one_picture(X) else list(X)
    if elements and all(isinstance(element, str | PathLike) for element in elements):
        return paths([Path(element) for element in elements])
    return _Arrays([open_picture(element, f"image {i}") for i, element in enumerate(elements)])


def paths(files: Sequence[Path]) -> Dataset:
    """Return image files as a data set without labels, in the order given, a file given twice being there twice."""
    samples = [Sample(str(file), -1) for file in files]
    return Dataset("files", "test", (), samples, Storage(Path(), {str(file): FolderFile(str(file)) for file in files}))


def joined(splits: Sequence[Dataset]) -> Dataset:
    """Return the splits of one source, one behind the other, as the split `all`."""
    first = splits[0]
    bad = tuple(error for split in splits for error in split.bad)
    provenance = "; ".join(dict.fromkeys(split.provenance for split in splits))
    storage = getattr(first, "storage", Storage(Path(first.name), {}))  # `scenes` has no files
    about = Dataset(first.name, "all", first.classes, [], storage, provenance, bad)
    return _Derived(about, [_Part(split, i) for split in splits for i in range(len(split))])


def in_boxes(dataset: Dataset, boxes: Sequence[Box]) -> Dataset:
    """Return what lies in one box of each picture, in pixels of the upright original, cut at its edges."""
    return _Derived(dataset, [_Part(dataset, i, box) for i, box in enumerate(boxes)])


@dataclass(frozen=True, slots=True)
class _Part:
    """An image of a data set, or what lies in a box of it."""

    dataset: Dataset
    index: int
    box: Box | None = None

    def edges(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and columns of an image of this size."""
        if self.box is None:
            return slice(0, height), slice(0, width)
        top, left = max(0, int(self.box.ymin)), max(0, int(self.box.xmin))
        bottom, right = min(height, round(self.box.ymax)), min(width, round(self.box.xmax))
        if top >= bottom or left >= right:
            where = self.dataset.where(self.index)
            raise BadImageError(where, f"{self.box} holds no pixel of its {width} x {height}")
        return slice(top, bottom), slice(left, right)


class _Derived(Dataset):
    """Images of other data sets, or parts of them; what is said of all of them is as `about` has it."""

    def __init__(self, about: Dataset, parts: Sequence[_Part]) -> None:
        samples = [part.dataset.samples[part.index] for part in parts]
        super().__init__(about.name, about.split, about.classes, samples, about.storage, about.provenance, about.bad)
        self.parts = parts

    def where(self, index: int) -> str:
        return self.parts[index].dataset.where(self.parts[index].index)

    def read(self, index: int) -> bytes:
        return self.parts[index].dataset.read(self.parts[index].index)

    def image(self, index: int) -> Picture:
        part = self.parts[index]
        picture = part.dataset.image(part.index)
        return np.ascontiguousarray(picture[part.edges(*picture.shape[:2])])

    def size(self, index: int) -> tuple[int, int]:
        part = self.parts[index]
        rows, columns = part.edges(*part.dataset.size(part.index))
        return rows.stop - rows.start, columns.stop - columns.start

    def content_hash(self, index: int) -> bytes:
        part = self.parts[index]
        whole = part.dataset.content_hash(part.index)
        return whole if part.box is None else blake2b(whole + str(part.box).encode(), digest_size=16).digest()

    def subset(self, indices: Iterable[int]) -> "_Derived":
        return _Derived(self, [self.parts[index] for index in indices])


class _Arrays(Dataset):
    """Pictures held in memory, upright RGB."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        samples = [Sample(str(i), -1) for i in range(len(pictures))]
        super().__init__("arrays", "test", (), samples, Storage(Path("arrays"), {}))
        self.pictures = pictures

    def where(self, index: int) -> str:
        return f"image {self.samples[index].id}"

    def image(self, index: int) -> Picture:
        return self.pictures[index]

    def size(self, index: int) -> tuple[int, int]:
        height, width, _ = self.pictures[index].shape
        return height, width

    def content_hash(self, index: int) -> bytes:
        picture = self.pictures[index]
        return blake2b(f"{picture.shape}".encode() + picture.tobytes(), digest_size=16).digest()

    def subset(self, indices: Iterable[int]) -> "_Arrays":
        return _Arrays([self.pictures[index] for index in indices])
