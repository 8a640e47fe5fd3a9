"""Figures of merit: mean class recall (Caltech), average precision (VOC), calibration error."""

import numpy as np
from numpy.typing import NDArray

BINS = 10


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


def calibration_curve(labels: NDArray[np.int64], posteriors: NDArray[np.float64]) -> list[tuple[int, float, float]]:
    """Return (images, mean posterior, share right) of the guesses in ten equal bins of their posterior.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
    posteriors : ndarray, shape (N, K)
        The most probable class is the guess.
    """
    best = posteriors.max(axis=1)
    right = posteriors.argmax(axis=1) == labels
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    return [
        (int((bins == b).sum()), float(best[bins == b].mean()), float(right[bins == b].mean()))
        if (bins == b).any()
        else (0, float("nan"), float("nan"))
        for b in range(BINS)
    ]


def expected_calibration_error(labels: NDArray[np.int64], posteriors: NDArray[np.float64]) -> float:
    """Return the mean distance between posterior and share right over the bins, weighted by images, in [0, 1]."""
    bins = calibration_curve(labels, posteriors)
    return sum(count * abs(mean - right) for count, mean, right in bins if count) / len(labels)
