"""From the boxes of all windows to one box a class: merged, then scored (paper: appendix A.2)."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.progress import track
from verydeep.evaluation.fuse import common_metadata
from verydeep.localization.boxes import Boxes, clip
from verydeep.localization.detections import Detections
from verydeep.localization.merging import MergeRule, merge


def best_box(boxes: NDArray[Any], scores: NDArray[Any], rule: MergeRule) -> tuple[Boxes, float]:
    """Merge one class's boxes of n windows, and return the merged box with the highest rating, and the rating.

    "Spatially close predictions are first merged (by averaging their coordinates) and then rated based on the class
    scores obtained from the classification ConvNet": a rating is the sum of the members' scores.
    """
    merged, members = merge(boxes.astype(np.float64), rule)
    ratings = np.bincount(members, weights=scores, minlength=len(merged))
    best = int(ratings.argmax())
    return merged[best], float(ratings[best])


def merge_detections(parts: Sequence[Detections], rule: MergeRule, names: Sequence[str] = ()) -> Detections:
    """Merge the windows' boxes of several scales and networks, all at once, and rate what comes out.

    UserError, with the parts' names, where they differ in images or guessed classes.
    """
    every = together(parts, names)
    boxes, ratings = np.empty_like(every.boxes), np.empty_like(every.ratings)
    for i in track(range(len(every)), len(every), "merging"):
        for k in range(every.classes.shape[1]):
            boxes[i, k], ratings[i, k] = best_box(every.windows[i][:, k], every.scores[i][:, k], rule)
        boxes[i] = clip(boxes[i], *every.sizes[i])
    about = common_metadata([part.metadata for part in parts])
    return replace(every, boxes=boxes, ratings=ratings, metadata={**about, "merging": asdict(rule)})


def together(parts: Sequence[Detections], names: Sequence[str] = ()) -> Detections:
    """Return the windows of all parts in one, not merged; parameters and errors as those of `merge_detections`."""
    first = parts[0]
    names = names or [f"boxes {i + 1}" for i in range(len(parts))]
    for part, name in zip(parts[1:], names[1:], strict=True):
        if part.ids != first.ids or part.names != first.names:
            raise UserError(f"{name} and {names[0]} are of other images or classes; test both on the same data")
        if not np.array_equal(part.classes, first.classes):
            raise UserError(f"{name} and {names[0]} guess other classes; give both evaluations the same --posteriors")
    windows = [np.concatenate(rows) for rows in zip(*(part.windows for part in parts), strict=True)]
    scores = [np.concatenate(rows) for rows in zip(*(part.scores for part in parts), strict=True)]
    return replace(first, windows=windows, scores=scores)
