"""How well scores rank the images of a class before the others: average precision, class by class."""

import numpy as np
from numpy.typing import NDArray


def average_precision(targets: NDArray[np.int8], scores: NDArray[np.float64], eleven_point: bool) -> float:
    """Return the average precision of one class, as the PASCAL VOC challenge defines it.

    Parameters
    ----------
    targets : ndarray of int8, shape (N,)
        1 where the class is there, -1 where not, 0 ("difficult") where the image does not count.
    scores : ndarray, shape (N,)
        The higher, the surer. Equal ones rank in the order given.
    eleven_point : bool
        VOC-2007's metric, the mean over recall 0, 0.1, ..., 1 of the best precision at that recall or beyond;
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


def average_precisions(targets: NDArray[np.int8], scores: NDArray[np.float64], eleven_point: bool) -> list[float]:
    """Return the average precision of every class, of targets and scores (N, K); NaN for one that no image has."""
    return [average_precision(targets[:, k], scores[:, k], eleven_point) for k in range(targets.shape[1])]


def mean_average_precision(precisions: list[float]) -> float:
    """Return the mean over the classes that images have; NaN where there are none."""
    known = [precision for precision in precisions if not np.isnan(precision)]
    return float(np.mean(known)) if known else float("nan")
