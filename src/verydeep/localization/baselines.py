"""What costs nothing: the same box in every picture."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from verydeep.localization.boxes import Boxes, iou
from verydeep.localization.detections import Detections

WHOLE = (0.0, 0.0, 1.0, 1.0)
STEPS = (0.1, 0.05, 0.02, 0.01)
MOST = 20_000  # images looked at: the share of hits is then known to a third of a point


def best_constant_box(boxes: Sequence[Boxes]) -> NDArray[np.float64]:
    """Return the box, in shares of the picture's sides, that is right for the most images.

    From several starts, edges move as long as more images are hit, by ever smaller steps.

    Parameters
    ----------
    boxes : sequence of ndarray, shape (M, 4)
        True boxes of each image, in shares of its width and height.
    """
    chosen = boxes[:: -(-len(boxes) // MOST)]
    image = np.repeat(np.arange(len(chosen)), [len(b) for b in chosen])
    every = np.concatenate(chosen)

    def value(box: NDArray[np.float64]) -> tuple[float, float]:
        best = np.zeros(len(chosen))
        np.maximum.at(best, image, iou(every, box))
        return float((best >= 0.5).mean()), float(best.mean())

    starts = [np.median(every, axis=0), every.mean(axis=0), np.array(WHOLE)]
    starts += [np.array([0.5 - s / 2, 0.5 - s / 2, 0.5 + s / 2, 0.5 + s / 2]) for s in (0.5, 0.7, 0.85)]
    best: NDArray[np.float64] = max(starts, key=value)
    for step in STEPS:
        while True:
            moved = [np.clip(best + step * move, 0, 1) for move in _MOVES]
            candidate = max(moved, key=value)
            if value(candidate) <= value(best):
                break
            best = candidate
    return best


_MOVES = [sign * np.eye(4)[edge] for edge in range(4) for sign in (-1, 1)]
_MOVES += [np.array(move, float) for move in ((-1, 0, 1, 0), (1, 0, -1, 0), (0, -1, 0, 1), (0, 1, 0, -1))]
_MOVES += [np.array(move, float) for move in ((1, 0, 1, 0), (-1, 0, -1, 0), (0, 1, 0, 1), (0, -1, 0, -1))]


def with_constant_box(detections: Detections, box: Sequence[float]) -> Detections:
    """Return the detections with the same box, in shares of the picture's sides, in place of every one."""
    height, width = detections.sizes[:, 0], detections.sizes[:, 1]
    boxes = np.stack([width, height, width, height], axis=1) * np.asarray(box)
    repeated = np.repeat(boxes[:, None], detections.classes.shape[1], axis=1)
    return replace(detections, boxes=repeated)
