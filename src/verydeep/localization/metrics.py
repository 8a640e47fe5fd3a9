"""ILSVRC's flat localization error, and its parts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.evaluation.metrics import ErrorRate, bootstrap_interval
from verydeep.localization.boxes import iou
from verydeep.localization.detections import MOST_DETECTIONS, Detections

HIT = 0.5
"""Least IoU of a right box: the devkit counts as wrong what is below 0.50 (the paper writes "above 0.5")."""


@dataclass(frozen=True)
class LocalizationMetrics:
    """How well classes and boxes were guessed.

    Attributes
    ----------
    images : int
        Images with a label and a true box.
    top1, top5 : ErrorRate
        Share of images of which neither of one or five guesses has the right class and a box with IoU of at least 0.5
        with any true box of that class.
    given_class : ErrorRate
        Share of images whose box for the right class has a lower IoU; classification plays no part in it.
    mean_iou : ErrorRate
        Mean IoU of those boxes, each with the true box it fits best; with its interval like the errors.
    """

    images: int
    top1: ErrorRate
    top5: ErrorRate
    given_class: ErrorRate
    mean_iou: ErrorRate


def overlaps(detections: Detections) -> NDArray[np.float64]:
    """Return the IoU of each counted image's G boxes with the true box that each fits best, shape (N', G)."""
    rows = np.flatnonzero(detections.counted)
    found = [iou(detections.boxes[i][:, None], detections.truths[i][None]).max(axis=1) for i in rows.tolist()]
    return np.array(found).reshape(len(rows), detections.classes.shape[1])


def wrong(detections: Detections, k: int) -> NDArray[np.bool_]:
    """Return for each counted image whether none of its first k guesses is right.

    As `eval_localization_flat.m` of the challenge's devkit: a guess is wrong where its label is, or where its box's
    overlap with every instance of that class is below 0.50; an image's error is the least over its guesses.
    """
    counted = detections.counted
    right_class = detections.classes[counted, :-1] == detections.labels[counted, None]
    right = right_class & (overlaps(detections)[:, :-1] >= HIT)
    return np.asarray(~right[:, :k].any(axis=1))


def localization_metrics(detections: Detections) -> LocalizationMetrics:
    """Return errors and mean IoU with 95 % bootstrap intervals over images; images held out for tuning are left out.

    UserError where no image has a label and a box.
    """
    detections = detections.tested
    count = int(detections.counted.sum())
    if not count:
        raise UserError("boxes: no image has a label and a true box, so there is nothing to compare with")
    own = overlaps(detections)[:, -1]
    rates = [wrong(detections, 1), wrong(detections, MOST_DETECTIONS), own < HIT]
    top1, top5, given = (ErrorRate(float(missed.mean()), *bootstrap_interval(missed)) for missed in rates)
    return LocalizationMetrics(count, top1, top5, given, mean_with_interval(own))


def mean_with_interval(values: NDArray[np.float64], resamples: int = 1000, seed: int = 0) -> ErrorRate:
    """Return the mean of values and its 95 % percentile bootstrap interval."""
    rng, count = generator(seed), len(values)
    means = [values[rng.integers(count, size=count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return ErrorRate(float(values.mean()), float(low), float(high))
