"""The paper's ways of training and testing a linear classifier on other data sets, as data (appendix B)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator

VALIDATION_SHARE = 0.2
"""Of each class's training images, the share that C is chosen on."""
PAPERS_WINDOW = 224


@dataclass(frozen=True)
class TransferProtocol:
    """How a data set is divided and measured.

    Attributes
    ----------
    name : str
        As the command line knows it.
    measure : {"mean class recall", "mAP"}
        What is reported.
    scales : tuple of int
        The paper's Q, for networks with windows of 224 pixels.
    aggregate : {"mean", "stack"}
        What the paper does with the scales.
    train : int
        Training images a class in each random split; 0 where there are none of these.
    test : int or None
        Test images a class at most; None for all the others.
    splits : int
        Random splits.
    eleven_point : bool
        Whether mAP is VOC-2007's.
    """

    name: str
    measure: Literal["mean class recall", "mAP"]
    scales: tuple[int, ...]
    aggregate: Literal["mean", "stack"]
    train: int = 0
    test: int | None = None
    splits: int = 1
    eleven_point: bool = False

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.measure == "mAP"

    def scales_for(self, window: int) -> tuple[int, ...]:
        """Return the scales that are to a network's window what the paper's are to 224 pixels.

        Examples
        --------
        >>> PROTOCOLS["caltech101"].scales_for(224), PROTOCOLS["caltech101"].scales_for(64)
        ((256, 384, 512), (73, 110, 146))
        """
        return tuple(round(scale * window / PAPERS_WINDOW) for scale in self.scales)


THREE, FIVE = (256, 384, 512), (256, 384, 512, 640, 768)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        TransferProtocol("caltech101", "mean class recall", THREE, "stack", train=30, test=50, splits=3),
        TransferProtocol("caltech256", "mean class recall", THREE, "stack", train=60, splits=3),
        TransferProtocol("voc2007", "mAP", FIVE, "mean", eleven_point=True),
        TransferProtocol("voc2012", "mAP", FIVE, "mean"),
        TransferProtocol("voc2012-action", "mAP", THREE, "mean"),
        TransferProtocol("folder", "mean class recall", THREE, "mean"),
    )
}


def find_protocol(name: str) -> TransferProtocol:
    """Return the protocol called `name`; UserError listing them where there is none."""
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of a data set's images: trained on, C chosen on, tested on."""

    name: str
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def random_splits(
    labels: Sequence[int], classes: Sequence[str], protocol: TransferProtocol, seed: int = 0
) -> list[Split]:
    """Draw the random splits of a Caltech protocol; each choice follows from (seed, split, class).

    Parameters
    ----------
    labels : sequence of int, length N
    classes : sequence of str
        Their names.
    protocol : TransferProtocol
        With a number of training images.
    seed : int
        Another seed draws other splits.

    Raises
    ------
    UserError
        A class has too few images, at least one being needed for the test.
    """
    members = _members(labels, classes)
    for name, own in members.items():
        if len(own) < protocol.train + 1:
            raise UserError(
                f"class {name}: has {len(own)} images, the protocol {protocol.name} needs {protocol.train} to train on "
                "and one or more to test on; is this the whole data set? (for other data: --protocol folder)"
            )
    splits = []
    for number in range(protocol.splits):
        drawn: tuple[list[int], list[int], list[int]] = ([], [], [])
        for k, own in enumerate(members.values()):
            order = generator(seed, number, k).permutation(own).tolist()
            held = round(VALIDATION_SHARE * protocol.train)
            end = None if protocol.test is None else protocol.train + protocol.test
            for part, chosen in zip(
                drawn, (order[held : protocol.train], order[:held], order[protocol.train : end]), strict=True
            ):
                part.extend(chosen)
        splits.append(Split(f"split {number + 1}", *(np.sort(np.array(part, np.int64)) for part in drawn)))
    return splits


def folds(labels: Sequence[int], classes: Sequence[str], count: int, seed: int = 0) -> list[Split]:
    """Divide a data set into stratified folds; each is the test once, and a fifth of the rest the validation.

    Raises
    ------
    UserError
        Fewer than two folds, or a class with fewer images than needed.
    """
    if count < 2:
        raise UserError(f"folds {count}: at least two are needed")
    fold = np.zeros(len(labels), np.int64)
    held = np.zeros((count, len(labels)), bool)
    for k, (name, own) in enumerate(_members(labels, classes).items()):
        if len(own) < max(count, 3):
            raise UserError(
                f"class {name}: has {len(own)} images, {count} folds need {max(count, 3)} or more; use fewer folds"
            )
        order = generator(seed, k).permutation(own)
        fold[order] = (np.arange(len(order)) + k) % count  # begun elsewhere for each class: folds of equal size
        for number in range(count):
            rest = order[fold[order] != number]
            held[number, rest[: max(1, round(VALIDATION_SHARE * len(rest)))]] = True
    return [
        Split(
            f"fold {number + 1}",
            np.flatnonzero((fold != number) & ~held[number]),
            np.flatnonzero(held[number]),
            np.flatnonzero(fold == number),
        )
        for number in range(count)
    ]


def _members(labels: Sequence[int], classes: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    every = np.asarray(labels)
    return {name: np.flatnonzero(every == k) for k, name in enumerate(classes)}
