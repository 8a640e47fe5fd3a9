"""All images of a data set at once, with what is in them: what a transfer protocol divides."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.progress import track
from verydeep.basics.threads import in_threads
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import Reading
from verydeep.datasets.storage import Storage
from verydeep.datasets.voc import read_voc
from verydeep.transfer.pictures import Boxes, Picture
from verydeep.transfer.protocols import Split, TransferProtocol, find_protocol

SPLITS = ("train", "val", "test")


class Joined(Dataset):
    """Several data sets of the same classes, one behind the other."""

    def __init__(self, parts: Sequence[Dataset], chosen: Sequence[tuple[int, int]] | None = None) -> None:
        first = parts[0]
        self.parts = parts
        self.chosen = chosen or [(p, i) for p, part in enumerate(parts) for i in range(len(part))]
        samples = [parts[p].samples[i] for p, i in self.chosen]
        bad = tuple(error for part in parts for error in part.bad)
        provenance = "; ".join(dict.fromkeys(part.provenance for part in parts))
        storage = getattr(first, "storage", Storage(Path(first.name), {}))  # `scenes` has no files
        super().__init__(first.name, "all", first.classes, samples, storage, provenance, bad)

    def where(self, index: int) -> str:
        """Return the path of image `index`, as messages name it."""
        part, inner = self.chosen[index]
        return self.parts[part].where(inner)

    def read(self, index: int) -> bytes:
        """Return image `index` as its file holds it."""
        part, inner = self.chosen[index]
        return self.parts[part].read(inner)

    def image(self, index: int) -> Picture:
        """Return image `index`."""
        part, inner = self.chosen[index]
        return self.parts[part].image(inner)

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image `index`."""
        part, inner = self.chosen[index]
        return self.parts[part].size(inner)

    def subset(self, indices: Iterable[int]) -> "Joined":
        """Return the images `indices`, in that order."""
        return Joined(self.parts, [self.chosen[index] for index in indices])


@dataclass(frozen=True, eq=False)
class Collection:
    """Images and what is in them.

    Attributes
    ----------
    dataset : Dataset
        All images, every split.
    ids : tuple of str
        A unique name for each.
    targets : ndarray of int8, shape (N, K)
        1 where an image has the class, -1 where not, 0 where it does not count for it.
    own : dict of str to ndarray of int64
        The images of `train`, `val` and `test`, as the set has them or as they are held out.
    boxes : Boxes or None
        For actions, the part of each picture that shows the person.
    """

    dataset: Dataset
    ids: tuple[str, ...]
    targets: NDArray[np.int8]
    own: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    boxes: Boxes | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the targets' columns."""
        return self.dataset.classes

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The class of each image, where it has one only."""
        return np.asarray(self.targets.argmax(axis=1), np.int64)

    @cached_property
    def hashes(self) -> list[bytes]:
        """Hash of each picture's content."""
        return content_hashes(self.dataset)


def content_hashes(dataset: Dataset) -> list[bytes]:
    """Return the hash of each picture's content, reading files in threads."""
    return list(track(in_threads(dataset.content_hash, range(len(dataset))), len(dataset), "reading"))


def read_all(
    data: str,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> tuple[Joined, dict[str, NDArray[np.int64]]]:
    """Return all labeled images of a data set, and which of them are its train, val and test images.

    Where its val and test images are the same, as ImageNet's, they are there once, as test.
    """
    parts: dict[str, Dataset] = {}
    for split in SPLITS:
        parts[split] = reading.open(data, split)
    if [s.id for s in parts["val"].samples] == [s.id for s in parts["test"].samples]:
        del parts["val"]
    ends = np.cumsum([0, *(len(part) for part in parts.values())])
    return Joined(list(parts.values())), {
        name: np.arange(first, last) for name, first, last in zip(parts, ends[:-1], ends[1:], strict=True)
    }


def collect(
    data: str,
    protocol: TransferProtocol | str,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> Collection:
    """Read a data set for a protocol.

    Parameters
    ----------
    data : str
        A folder, a tar, or `scenes`; for the VOC protocols VOC's own folder or tar.
    protocol : TransferProtocol or str
        Decides how it is read.
    reading : Reading
        How it is read.

    Raises
    ------
    UserError
        As `open_dataset` and `read_voc`.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    if protocol.name.startswith("voc"):
        year, _, action = protocol.name.removeprefix("voc").partition("-")
        voc = read_voc(data, int(year), bool(action))
        boxes = Boxes(voc.dataset, voc.boxes) if voc.boxes else None
        return Collection(voc.dataset, voc.ids, voc.targets, voc.splits, boxes)
    dataset, own = read_all(data, reading)
    labels = np.array([sample.label for sample in dataset.samples])
    targets = np.where(labels[:, None] == np.arange(len(dataset.classes)), 1, -1).astype(np.int8)
    return Collection(dataset, tuple(sample.id for sample in dataset.samples), targets, own)


@dataclass(frozen=True)
class Duplicates:
    """Pictures of the same content that a split has both to train on and to test on.

    Attributes
    ----------
    count : int
        Test images that are among the training or validation images.
    examples : tuple of (str, str)
        A few of them, with the image that they equal.
    """

    count: int
    examples: tuple[tuple[str, str], ...]


def duplicates(collection: Collection, split: Split, most: int = 5) -> Duplicates:
    """Find test images whose file equals that of a training or validation image, byte for byte."""
    hashes = collection.hashes
    seen = {hashes[i]: i for i in [*split.train.tolist(), *split.validation.tolist()]}
    # For actions one picture may show several people, who are not each other's duplicates within one list.
    pairs = [(collection.ids[i], collection.ids[seen[hashes[i]]]) for i in split.test.tolist() if hashes[i] in seen]
    return Duplicates(len(pairs), tuple(pairs[:most]))
