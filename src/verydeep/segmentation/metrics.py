"""Metrics of a class for each pixel, from pictures' confusion matrices (Long, Shelhamer & Darrell 2015, section 5)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.rng import generator
from verydeep.datasets.masks import IGNORED

Matrix = NDArray[np.int64]
"""Pixels of each true class (rows) that were taken for each class (columns), K x K, or N x K x K."""

NAMES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "frequency weighted IoU",
}
RESAMPLES = 2000


def confusion(truth: NDArray[np.uint8], found: NDArray[np.uint8], classes: int) -> Matrix:
    """Return a picture's confusion matrix, K x K, over the pixels that are labeled.

    Examples
    --------
    >>> confusion(np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 1]], np.uint8), 2).tolist()
    [[1, 0], [1, 0]]
    """
    known = truth != IGNORED
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def metrics(matrix: Matrix | NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the four metrics of `NAMES` in [0, 1], of one confusion matrix or, as arrays, of several (..., K, K).

    Means are over the classes that are there: of accuracy those with pixels, of IoU also those that pixels were taken
    for. NaN where no pixel is labeled.
    """
    right, true, union = _counts(matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou, total = right / union, true.sum(-1)
        return {
            "pixel_accuracy": right.sum(-1) / total,
            "mean_accuracy": _mean(right / true, true > 0),
            "mean_iou": _mean(iou, union > 0),
            "frequency_weighted_iou": np.where(true > 0, true * iou, 0).sum(-1) / total,
        }


def class_iou(matrix: Matrix | NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the IoU and the accuracy of each class, NaN where it is nowhere."""
    right, true, union = _counts(matrix)
    with np.errstate(divide="ignore", invalid="ignore"):
        return right / union, right / true


def _counts(matrix: Matrix | NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    right = np.diagonal(matrix, axis1=-2, axis2=-1).astype(np.float64)
    true, found = matrix.sum(-1).astype(np.float64), matrix.sum(-2).astype(np.float64)
    return right, true, true + found - right


def _mean(values: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.asarray(np.where(there, values, 0).sum(-1) / there.sum(-1))


@dataclass(frozen=True)
class Figure:
    """A metric and its 95 % bootstrap interval over pictures, in [0, 1]; as text in per cent."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def intervals(matrices: Matrix, seed: int = 0) -> tuple[dict[str, Figure], list[Figure]]:
    """Return the metrics of N pictures together, and each class's IoU, with percentile intervals over the pictures.

    N pictures are drawn with replacement `RESAMPLES` times; their matrices are summed, and the metrics are of the sums.
    """
    count = len(matrices)
    weights = generator(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    sums = np.tensordot(weights.astype(np.float64), matrices.astype(np.float64), 1)
    whole, drawn = metrics(matrices.sum(0)), metrics(sums)
    named = {name: _figure(whole[name], drawn[name]) for name in NAMES}
    ious = zip(class_iou(matrices.sum(0))[0], class_iou(sums)[0].T, strict=True)
    return named, [_figure(value, values) for value, values in ious]


def _figure(value: NDArray[np.float64], drawn: NDArray[np.float64]) -> Figure:
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Figure(float(value), float(low), float(high))
