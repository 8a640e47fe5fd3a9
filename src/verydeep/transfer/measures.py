"""Figures of merit: mean class recall (Caltech), average precision (VOC), calibration error."""

import numpy as np
from numpy.typing import NDArray

BINS = 10

Values = NDArray[np.float64]


def class_recall(labels: NDArray[np.int64], guesses: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return the share of each class's images that are named right, shape (classes,); NaN for a class without any."""
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[labels == guesses], minlength=classes)
    return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


def mean_class_recall(labels: NDArray[np.int64], guesses: NDArray[np.int64], classes: int) -> float:
    """Return the mean over the classes that have images of the share named right: the measure of Caltech-101."""
    return float(np.nanmean(class_recall(labels, guesses, classes)))


def average_precision(targets: NDArray[np.int8], scores: NDArray[np.float64], eleven_point: bool) -> float:
    """Return the average precision of one class, as the PASCAL VOC challenge defines it.

    Parameters
    ----------
    targets : ndarray of int8, shape (N,)
        1 where the class is there, -1 where not, 0 ("difficult") where the image does not count.
    scores : ndarray, shape (N,)
        The higher, the surer. Equal ones rank in the order given.
    eleven_point : bool
        VOC-2007's measure, the mean over recall 0, 0.1, ..., 1 of the best precision at that recall or beyond;
        else that of VOC-2010 and later, the area under the same curve.

    Returns
    -------
    float
        In [0, 1]; NaN where no image has the class.

    Examples
    --------
    >>> ranked = np.array([1, -1, 1, -1], np.int8)
    >>> scores = np.array([4.0, 3.0, 2.0, 1.0])
    >>> round(average_precision(ranked, scores, False), 4), round(average_precision(ranked, scores, True), 4)
    (0.8333, 0.8485)
    """
    counted = targets != 0
    ranked = targets[counted][np.argsort(-scores[counted], kind="stable")] > 0
    if not ranked.any():
        return float("nan")
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    if not eleven_point:
        return float(best_beyond[ranked].mean())  # recall rises by the same step at each hit
    # In whole hits: 0.1 as a float would miss the hit that stands exactly on it.
    needed = -(-np.arange(11) * hits[-1] // 10)
    return float(np.mean([best_beyond[np.searchsorted(hits, count)] for count in needed]))


def guessed(labels: NDArray[np.int64], posteriors: NDArray[np.float64]) -> tuple[Values, NDArray[np.bool_]]:
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
