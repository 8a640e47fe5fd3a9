"""What a test says of each picture: the class it names, or the box it gives for the picture's class."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from verydeep.evaluation.posteriors import Posteriors
from verydeep.localization.detections import Detections
from verydeep.localization.metrics import HIT, overlaps
from verydeep.results.result import Result

Kind = Literal["classes", "boxes"]


class Tested(Protocol):
    """What a test says of pictures whose truth is known."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which it says right, shape (N,); of boxes those whose IoU with a true one is 0.5 or more."""

    def picture(self, row: int) -> dict[str, Any]:
        """Return a picture's `label`; of boxes also its `size`, height and width, and the true `boxes`, by edges."""

    def said(self, row: int) -> dict[str, Any]:
        """Return what the test says of a picture: `class` and `posterior`, or `box` and `iou`; and if it is `right`."""


@dataclass(frozen=True, eq=False)
class _Named:
    """Classes."""

    posteriors: Posteriors
    rows: NDArray[np.int64]
    ids: tuple[str, ...]
    best: NDArray[np.int64]
    right: NDArray[np.bool_]

    @staticmethod
    def of(posteriors: Posteriors) -> "_Named":
        rows = np.flatnonzero(posteriors.labels >= 0)
        best = posteriors.probabilities[rows].argmax(axis=1)
        ids = tuple(posteriors.ids[row] for row in rows.tolist())
        return _Named(posteriors, rows, ids, best, best == posteriors.labels[rows])

    def picture(self, row: int) -> dict[str, Any]:
        return {"label": self.posteriors.classes[self.posteriors.labels[self.rows[row]]]}

    def said(self, row: int) -> dict[str, Any]:
        best = int(self.best[row])
        posterior = float(self.posteriors.probabilities[self.rows[row], best])
        return {"class": self.posteriors.classes[best], "posterior": posterior, "right": bool(self.right[row])}


@dataclass(frozen=True, eq=False)
class _Boxed:
    """Boxes, given the class."""

    detections: Detections
    rows: NDArray[np.int64]
    ids: tuple[str, ...]
    iou: NDArray[np.float64]
    right: NDArray[np.bool_]

    @staticmethod
    def of(detections: Detections) -> "_Boxed":
        rows, iou = np.flatnonzero(detections.counted), overlaps(detections)[:, -1]
        return _Boxed(detections, rows, tuple(detections.ids[row] for row in rows.tolist()), iou, iou >= HIT)

    def picture(self, row: int) -> dict[str, Any]:
        at = int(self.rows[row])
        label = self.detections.names[int(self.detections.labels[at])]
        return {
            "label": label,
            "size": self.detections.sizes[at].tolist(),
            "boxes": self.detections.truths[at].tolist(),
        }

    def said(self, row: int) -> dict[str, Any]:
        box = self.detections.boxes[int(self.rows[row]), -1].tolist()
        return {"box": box, "iou": float(self.iou[row]), "right": bool(self.right[row])}


def tested(result: Result) -> Tested:
    """Return what a test of classes or boxes says; files that are as they were are read once."""
    if result.detections is not None:
        return _boxed(result)
    return _read(result.path, result.path.stat().st_mtime_ns)


@lru_cache(8)
def _boxed(result: Result) -> Tested:
    assert result.detections is not None
    return _Boxed.of(result.detections)


@lru_cache(8)
def _read(path: Path, changed: int) -> Tested:
    return _Named.of(Posteriors.read(path))
