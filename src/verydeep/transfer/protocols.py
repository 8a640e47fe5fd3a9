"""The paper's ways of training and testing a linear classifier on other data sets: splits, metrics (appendix B)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.evaluation.metrics import (
    Values,
    class_recall,
    confidences,
    expected_calibration_error,
    mean_class_recall,
)
from verydeep.inference.average_precision import average_precisions, mean_average_precision

Targets = NDArray[np.int8]
Indices = NDArray[np.int64]

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
    metric : {"mean class recall", "mAP"}
        What is reported, and C chosen by.
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
    metric: Literal["mean class recall", "mAP"]
    scales: tuple[int, ...]
    aggregate: Literal["mean", "stack"]
    train: int = 0
    test: int | None = None
    splits: int = 1
    eleven_point: bool = False

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.metric == "mAP"

    def scales_for(self, window: int) -> tuple[int, ...]:
        """Return the scales that are to a network's window what the paper's are to 224 pixels.

        Examples
        --------
        >>> PROTOCOLS["caltech101"].scales_for(224), PROTOCOLS["caltech101"].scales_for(64)
        ((256, 384, 512), (73, 110, 146))
        """
        return tuple(round(scale * window / PAPERS_WINDOW) for scale in self.scales)

    def score(self, scores: Values, targets: Targets) -> float:
        """Return the metric in [0, 1] of scores and targets, both N x K."""
        if not self.multi_label:
            return mean_class_recall(targets.argmax(axis=1), scores.argmax(axis=1), targets.shape[1])
        return mean_average_precision(average_precisions(targets, scores, self.eleven_point))

    def metrics(self, scores: Values, posteriors: Values, targets: Targets) -> dict[str, Any]:
        """Return all metrics, JSON-able; `merit` is the one that is reported."""
        found: dict[str, Any] = {"merit": self.score(scores, targets)}
        if self.multi_label:
            each = {
                "ap_11_point": average_precisions(targets, scores, True),
                "ap_all_points": average_precisions(targets, scores, False),
            }
            found |= {f"m{name}": mean_average_precision(values) for name, values in each.items()}
            counted = targets != 0
            error = expected_calibration_error(posteriors[counted], targets[counted] > 0)
            return {**found, "calibration_error": error, **each}
        labels, predicted = targets.argmax(axis=1), scores.argmax(axis=1)
        found["accuracy"] = float((labels == predicted).mean())
        found["calibration_error"] = expected_calibration_error(*confidences(labels, posteriors))
        found["class_recall"] = class_recall(labels, predicted, targets.shape[1]).tolist()
        return found


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
    train: Indices
    validation: Indices
    test: Indices

    @property
    def known(self) -> Indices:
        """What the classifier is fit on in the end: training and validation part."""
        return np.concatenate([self.train, self.validation])


def random_splits(labels: Indices, classes: Sequence[str], protocol: TransferProtocol, seed: int = 0) -> list[Split]:
    """Draw the random splits of a Caltech protocol; each choice follows from (seed, split, class).

    UserError where a class has too few images, at least one being needed for the test.
    """
    members = [np.flatnonzero(labels == k) for k in range(len(classes))]
    for name, own in zip(classes, members, strict=True):
        if len(own) < protocol.train + 1:
            raise UserError(
                f"class {name}: has {len(own)} images, the protocol {protocol.name} needs {protocol.train} to train on "
                "and one or more to test on; is this the whole data set? (for other data: --protocol folder)"
            )
    held = round(VALIDATION_SHARE * protocol.train)
    end = None if protocol.test is None else protocol.train + protocol.test
    ranges = slice(held, protocol.train), slice(held), slice(protocol.train, end)
    splits = []
    for number in range(protocol.splits):
        orders = [generator(seed, number, k).permutation(own) for k, own in enumerate(members)]
        parts = [np.sort(np.concatenate([order[part] for order in orders])) for part in ranges]
        splits.append(Split(f"split {number + 1}", *parts))
    return splits


def folds(labels: Indices, classes: Sequence[str], count: int, seed: int = 0) -> list[Split]:
    """Divide a data set into stratified folds; each is the test once, and a fifth of the rest the validation.

    UserError for fewer than two folds, or a class with fewer images than needed.
    """
    if count < 2:
        raise UserError(f"folds {count}: at least two are needed")
    fold = np.zeros(len(labels), np.int64)
    held = np.zeros((count, len(labels)), bool)
    for k, name in enumerate(classes):
        own = np.flatnonzero(labels == k)
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
        Split(f"fold {n + 1}", *(np.flatnonzero(part) for part in ((fold != n) & ~held[n], held[n], fold == n)))
        for n in range(count)
    ]


def hold_out(own: Mapping[str, Indices], seed: int = 0) -> Split:
    """Return the split that a data set has itself, from its `train`, `val` and, where it has one, `test` images."""
    if "test" in own and "val" in own:
        return Split("hold-out", own["train"], own["val"], own["test"])
    # VOC-2012's test labels are withheld, ImageNet's val is its test: C is chosen on a part of train.
    order = generator(seed).permutation(own["train"])
    held = round(VALIDATION_SHARE * len(order))
    name = "test" if "test" in own else "val (test labels are withheld)"
    return Split(name, np.sort(order[held:]), np.sort(order[:held]), own["test"] if "test" in own else own["val"])
