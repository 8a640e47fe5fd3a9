"""Metrics of posteriors: top-k errors with intervals, recall and precision by class, calibration, McNemar's test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.average_precision import average_precisions, mean_average_precision
from verydeep.inference.ranks import ranks

Values = NDArray[np.float64]

NO_LABELS = "posteriors: no image has a label, so there is no error to compute; test on a labeled split"
BINS = 10
"""Of a calibration curve."""


def wrong(posteriors: Posteriors, k: int) -> NDArray[np.bool_]:
    """Return for each labeled image (label -1 is none) whether its class is not among the k most probable.

    Ties go to the class that stands first, as `verydeep.inference.ranks` says. With k of at least the number of classes
    nothing can be wrong. UserError where no image has a label.
    """
    labeled = _labeled(posteriors)
    return np.asarray(ranks(posteriors.probabilities[labeled], posteriors.labels[labeled]) >= k)


def _labeled(posteriors: Posteriors) -> NDArray[np.bool_]:
    """Return which images have a label; UserError where none has."""
    if posteriors.targets is not None:
        raise UserError("posteriors: images have several labels, so there is no top-k error; their metric is mAP")
    labeled = posteriors.labels >= 0
    if not labeled.any():
        raise UserError(NO_LABELS)
    return labeled


def class_precisions(posteriors: Posteriors) -> list[float]:
    """Return the average precision of each class of images with several labels, the area under its curve; NaN for none.

    UserError where images have one label.
    """
    if posteriors.targets is None:
        raise UserError("posteriors: images have one label each, so average precision is none of their metrics")
    return average_precisions(posteriors.targets, posteriors.probabilities.astype(np.float64), eleven_point=False)


def top_k_error(posteriors: Posteriors, k: int) -> float:
    """Return the share in [0, 1] of labeled images whose class is not among the k most probable.

    Ties and few classes are treated as in `wrong`.
    """
    return float(wrong(posteriors, k).mean())


def mean_precision(posteriors: Posteriors) -> float:
    """Return the mean of `class_precisions` over the classes that images have: mAP."""
    return mean_average_precision(class_precisions(posteriors))


def precision_words(posteriors: Posteriors, most: int) -> tuple[str, list[tuple[str, ...]]]:
    """Return what a table of average precisions of at most so many classes is, and its head and rows."""
    found = np.array(class_precisions(posteriors))
    images = np.zeros(len(found), int) if posteriors.targets is None else (posteriors.targets > 0).sum(axis=0)
    there = np.flatnonzero(images)
    if len(there) > most:
        there = there[np.argsort(found[there], kind="stable")]
    rows: list[tuple[str, ...]] = [("class", "images", "average precision %")]
    rows += [(posteriors.classes[k], str(images[k]), f"{100 * found[k]:.1f}") for k in there[:most].tolist()]
    none = np.count_nonzero(images == 0)
    which = f"the {most} of {len(there)} classes least found" if len(there) > most else "by class"
    return which + (f"; {none} classes that no image has do not count" if none else ""), rows


def bootstrap_interval(
    wrong: NDArray[np.bool_], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of an error rate over images, its ends in [0, 1].

    Drawing n of n images with replacement and counting the wrong ones is a binomial draw with the measured rate, so
    that is what is drawn: the same distribution, at no cost. Where nothing (or everything) is wrong the bootstrap sees
    no spread and the interval has no width.

    Examples
    --------
    >>> low, high = bootstrap_interval(np.arange(100) < 25)
    >>> round(low, 2), round(high, 2)
    (0.17, 0.34)
    """
    rates = generator(seed).binomial(len(wrong), wrong.mean(), size=resamples) / len(wrong)
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class ErrorRate:
    """An error rate in [0, 1] and its 95 % bootstrap interval; as text in per cent."""

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.rate:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Mean:
    """A metric in [0, 1], and its standard deviation over splits where there are several; as text in per cent.

    Examples
    --------
    >>> str(Mean(0.9234, 0.0051)), str(Mean(0.5))
    ('92.3 ± 0.5', '50.0')
    """

    value: float
    std: float | None = None

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}" + (f" ± {100 * self.std:.1f}" if self.std is not None else "")


def error_rate(posteriors: Posteriors, k: int) -> ErrorRate:
    """Return the top-k error with its 95 % bootstrap interval; ties and few classes as in `wrong`."""
    missed = wrong(posteriors, k)
    return ErrorRate(float(missed.mean()), *bootstrap_interval(missed))


def errors(posteriors: Posteriors) -> dict[str, ErrorRate]:
    """Return the `top1` and `top5` error, with intervals; no `top5` where there are five classes or fewer.

    UserError where no image has a label.
    """
    return {f"top{k}": error_rate(posteriors, k) for k in (1, 5) if k < max(2, len(posteriors.classes))}


@dataclass(frozen=True)
class McNemar:
    """Images that only one of two systems gets wrong, and the probability of so uneven a split by chance."""

    only_first_wrong: int
    only_second_wrong: int
    p_value: float


def mcnemar(first_wrong: NDArray[np.bool_], second_wrong: NDArray[np.bool_]) -> McNemar:
    """Test whether two systems, tried on the same images in the same order, err equally often (McNemar 1947).

    Always the exact two-sided binomial test on the discordant images, so it holds for few of them too.

    Examples
    --------
    >>> mcnemar(np.array([1, 1, 1, 1, 1, 0], bool), np.array([0, 0, 0, 0, 0, 0], bool))
    McNemar(only_first_wrong=5, only_second_wrong=0, p_value=0.0625)
    """
    first = int((first_wrong & ~second_wrong).sum())
    second = int((second_wrong & ~first_wrong).sum())
    tail = float(bdtr(min(first, second), first + second, 0.5)) if first + second else 1.0
    return McNemar(first, second, min(1.0, 2 * tail))


def mcnemar_of(first: Posteriors, second: Posteriors, k: int) -> McNemar:
    """Test two systems' top-k errors on the same images, which are matched by id; ties as in `wrong`."""
    return mcnemar(wrong(first, k), wrong(second.rows(first.ids), k))


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how many images of each class (rows) were taken for each (columns), shape (classes, classes)."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """How well each class is found, from the confusion matrix of the most probable class, shape (K, K)."""

    confusion: NDArray[np.int64]

    @property
    def images(self) -> NDArray[np.int64]:
        """How many images each class has."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def recall(self) -> Values:
        """Share of each class's images that are named right; NaN for a class without any."""
        return _shares(self.confusion, self.images)

    @property
    def precision(self) -> Values:
        """Share of the images named each class that are of it; NaN for a class that no image was taken for."""
        return _shares(self.confusion, self.confusion.sum(axis=0))

    @property
    def macro(self) -> tuple[float, float]:
        """Mean recall and mean precision over the classes that have images; the precision of one never named is 0."""
        there = self.images > 0
        return float(self.recall[there].mean()), float(np.nan_to_num(self.precision[there]).mean())

    def words(self, classes: Sequence[str], most: int) -> tuple[str, list[tuple[str, ...]]]:
        """Return what a table of at most so many classes is, and its head and rows; of more, those least found."""
        others = self.confusion - np.diag(np.diag(self.confusion))
        there = np.flatnonzero(self.images | self.confusion.sum(axis=0))
        if len(there) > most:
            there = there[np.argsort(np.nan_to_num(self.recall[there], nan=2), kind="stable")]
        rows: list[tuple[str, ...]] = [("class", "images", "recall %", "precision %", "most often taken for")]
        for k in there[:most].tolist():
            rates = ["-" if np.isnan(rate) else f"{100 * rate:.1f}" for rate in (self.recall[k], self.precision[k])]
            mistaken = f"{classes[others[k].argmax()]} ({others[k].max()})" if others[k].any() else ""
            rows.append((classes[k], str(self.images[k]), *rates, mistaken))
        which = f"the {most} of {len(there)} classes least found" if len(there) > most else "by class"
        recall, precision = (100 * rate for rate in self.macro)
        return f"{which}; mean recall {recall:.1f} %, mean precision {precision:.1f} %", rows


def _shares(confusion: NDArray[np.int64], of: NDArray[np.int64]) -> Values:
    return np.where(of > 0, np.diag(confusion) / np.maximum(of, 1), np.nan)


def class_metrics(posteriors: Posteriors) -> ClassMetrics:
    """Return recall and precision by class; UserError where no image has a label. Of ties the first class counts."""
    labeled = _labeled(posteriors)
    predicted = posteriors.probabilities[labeled].argmax(axis=1)
    return ClassMetrics(confusion_matrix(posteriors.labels[labeled], predicted, len(posteriors.classes)))


def class_recall(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Values:
    """Return the share of each class's images that are named right, shape (classes,); NaN for a class without any."""
    return ClassMetrics(confusion_matrix(labels, predicted, classes)).recall


def mean_class_recall(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> float:
    """Return the mean over the classes that have images of the share named right: Caltech-101's metric."""
    return float(np.nanmean(class_recall(labels, predicted, classes)))


def confidences(labels: NDArray[np.int64], posteriors: Values) -> tuple[Values, NDArray[np.bool_]]:
    """Return the posterior of each image's most probable class, and whether it is the right one, both shape (N,)."""
    return posteriors.max(axis=1), posteriors.argmax(axis=1) == labels


def calibration_curve(posteriors: Values, right: NDArray[np.bool_]) -> list[tuple[int, float, float]]:
    """Return (how many, mean posterior, share that is right) in ten equal bins of the posterior; empty ones left out.

    Parameters
    ----------
    posteriors : ndarray, shape (M,)
        Of one statement each, such as the class that an image has.
    right : ndarray of bool, shape (M,)
        Whether the statement is true.
    """
    bins = np.minimum((posteriors * BINS).astype(int), BINS - 1)
    inside = [bins == b for b in np.unique(bins).tolist()]
    return [(int(own.sum()), float(posteriors[own].mean()), float(right[own].mean())) for own in inside]


def expected_calibration_error(posteriors: Values, right: NDArray[np.bool_]) -> float:
    """Return the mean distance between posterior and share right over the bins, weighted by their size, in [0, 1]."""
    return sum(count * abs(mean - share) for count, mean, share in calibration_curve(posteriors, right)) / len(right)
