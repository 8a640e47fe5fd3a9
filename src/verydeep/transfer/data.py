"""All images of a data set at once, with what is in them: what a transfer protocol divides."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import Reading
from verydeep.datasets.splits import SPLITS
from verydeep.datasets.voc import read_voc
from verydeep.transfer.pictures import content_hashes, in_boxes, joined
from verydeep.transfer.protocols import Split, TransferProtocol

EXAMPLES = 5
"""Duplicates that are named."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Data:
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
    boxes : Dataset or None
        For actions, the part of each picture that shows the person.
    """

    dataset: Dataset
    ids: tuple[str, ...]
    targets: NDArray[np.int8]
    own: dict[str, Indices]
    boxes: Dataset | None = None

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
    """Read a data set for a protocol.

    Parameters
    ----------
    source : str
        A folder, a tar, or `scenes`; for the VOC protocols VOC's own folder or tar.
    protocol : TransferProtocol
        Decides how it is read.
    reading : Reading
        How other data than VOC's is read.

    Raises
    ------
    UserError
        As `open_dataset` and `read_voc`.
    """
    if protocol.name.startswith("voc"):
        year, _, action = protocol.name.removeprefix("voc").partition("-")
        voc = read_voc(source, int(year), bool(action))
        boxes = in_boxes(voc.dataset, voc.boxes) if voc.boxes else None
        return Data(voc.dataset, voc.ids, voc.targets, voc.splits, boxes)
    dataset, own = read_all(source, reading)
    labels = np.array([sample.label for sample in dataset.samples])
    targets = np.where(labels[:, None] == np.arange(len(dataset.classes)), 1, -1).astype(np.int8)
    return Data(dataset, tuple(sample.id for sample in dataset.samples), targets, own)
