"""MaxBoxAcc (Choe et al. 2020): how well maps of scores, whoever made them, say where an object is."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from verydeep.evaluation.metrics import ErrorRate, bootstrap_interval
from verydeep.localization.boxes import Boxes, iou

THRESHOLDS = np.arange(100) / 100
LEAST_OVERLAPS = (0.3, 0.5, 0.7)

_HIT = 0.5


@dataclass(frozen=True)
class BoxAccuracy:
    """Shares of images whose box is right, at the thresholds of the map that serve each best.

    Attributes
    ----------
    images : int
        How many.
    max_box_acc : ErrorRate
        Box around the largest component, IoU of at least 0.5; with its 95 % bootstrap interval over images.
    threshold : float
        At which that is reached.
    v2_parts : tuple of float
        Any component's box, IoU of at least 0.3, 0.5 and 0.7.
    """

    images: int
    max_box_acc: ErrorRate
    threshold: float
    v2_parts: tuple[float, ...]

    @property
    def v2(self) -> float:
        """MaxBoxAccV2."""
        return float(np.mean(self.v2_parts))


def component_boxes(scores: NDArray[np.float32], threshold: float) -> Boxes:
    """Return the boxes around the parts of a map, from 0 to 1, that hold together at a threshold, the largest first."""
    mask = (scores >= threshold).astype(np.uint8)
    _, _, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = found[1:][np.argsort(-found[1:, cv2.CC_STAT_AREA], kind="stable")]  # without the background
    left, top, width, height = found[:, :4].T
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float64)


def best_overlaps(scores: NDArray[np.float32], truths: Boxes) -> NDArray[np.float64]:
    """Return, for each threshold, the IoU of the largest part's box with the true box it fits best, and of any part's.

    `scores`, H x W, may have any range; `truths`, M x 4, are in its pixels. Thresholds x 2.
    """
    low, high = scores.min(), scores.max()
    scores = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    found = np.zeros((len(THRESHOLDS), 2))
    for row, threshold in zip(found, THRESHOLDS, strict=True):
        boxes = component_boxes(scores, threshold)
        if len(boxes):
            each = iou(boxes[:, None], truths[None]).max(axis=1)
            row[:] = each[0], each.max()
    return found


def box_accuracy(overlaps: Sequence[NDArray[np.float64]]) -> BoxAccuracy:
    """Return the measure of some images, of which `best_overlaps` says all that matters."""
    largest, any_part = np.moveaxis(np.stack(overlaps), 2, 0)
    hits = largest >= _HIT
    best = int(hits.mean(axis=0).argmax())
    accuracy = ErrorRate(float(hits[:, best].mean()), *bootstrap_interval(hits[:, best]))
    parts = tuple(float((any_part >= least).mean(axis=0).max()) for least in LEAST_OVERLAPS)
    return BoxAccuracy(len(overlaps), accuracy, float(THRESHOLDS[best]), parts)
