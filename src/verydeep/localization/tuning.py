"""The threshold of merging, chosen on a held-out part of the images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_text
from verydeep.basics.progress import track
from verydeep.localization.boxes import clip, iou
from verydeep.localization.detections import Detections, held_out
from verydeep.localization.merging import Match, MergeRule
from verydeep.localization.metrics import HIT
from verydeep.localization.scoring import best_box, together

# The recommended score of two boxes is 0 for equal ones and above 1 for disjoint ones; the literal one is in pixels.
THRESHOLDS: dict[Match, tuple[float, ...]] = {
    "recommended": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0),
    "literal": (0.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0),
}
SHARE = 0.2
"""Of the images, held out to choose on; results are then of the others."""


@dataclass(frozen=True)
class Tuned:
    """A chosen threshold, and what it was chosen on.

    Attributes
    ----------
    rule : MergeRule
        With the threshold chosen.
    curve : tuple of (float, float)
        Every threshold tried, and the error it gives on the held-out images, in [0, 1].
    images : int
        How many were held out.
    share : float
        Their share.
    data, split : str
        Of which images.
    """

    rule: MergeRule
    curve: tuple[tuple[float, float], ...]
    images: int
    share: float
    data: str
    split: str

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        values = {key: value for key, value in vars(self).items() if key != "rule"}
        rule = {"threshold": self.rule.threshold, "match": self.rule.match}
        write_text(path, json.dumps({**rule, **values}, indent=2))

    @staticmethod
    def read(path: Path) -> "Tuned":
        """Read what `write` has written; UserError where it is no such file."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rule = MergeRule(float(values.pop("threshold")), values.pop("match"))
            return Tuned(rule, tuple((t, e) for t, e in values.pop("curve")), **values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: no file of verydeep tune ({type(error).__name__}: {error})") from None

    def rule_for(self, data: str, split: str) -> MergeRule:
        """Return the rule for the images of a data set's split; on those tuned on it leaves the held-out ones out."""
        return replace(self.rule, held_out=self.share if (data, split) == (self.data, self.split) else 0.0)


def tune(
    parts: Sequence[Detections],
    match: Match = "recommended",
    share: float = SHARE,
    thresholds: Sequence[float] | None = None,
    names: Sequence[str] = (),
) -> Tuned:
    """Choose the threshold with the least error given the class on held-out images; of equal ones the middle one.

    The error given the class, because merging plays no part in naming classes. `share` of the images is held out.
    UserError where none of them has a true box, or the parts, scales and networks that are merged together, do not fit
    together.
    """
    if not 0 < share < 1:
        raise UserError(f"share {share}: expected a share above 0 and below 1")
    tried = tuple(thresholds or THRESHOLDS[match])
    held = [part.rows(held_out(part.ids, share)) for part in parts]
    every = together([_own_class(part) for part in held], names)
    rows = np.flatnonzero(every.counted).tolist()
    if not rows:
        raise UserError("tune: none of the held-out images has a label and a true box; test on annotated images")
    errors = []
    for threshold in track(tried, len(tried), "thresholds", "thresholds"):
        rule, missed = MergeRule(threshold, match), 0
        for i in rows:
            box, _ = best_box(every.windows[i][:, 0], every.scores[i][:, 0], rule)
            missed += bool(iou(clip(box, *every.sizes[i]), every.truths[i]).max() < HIT)
        errors.append(float(missed) / len(rows))
    best = [threshold for threshold, error in zip(tried, errors, strict=True) if error == min(errors)]
    about = every.metadata
    curve = tuple(zip(tried, errors, strict=True))
    return Tuned(MergeRule(best[len(best) // 2], match), curve, len(rows), share, about["data"], about["split"])


def _own_class(detections: Detections) -> Detections:
    """Return the detections with each image's own class alone."""
    return replace(
        detections,
        classes=detections.classes[:, -1:],
        posteriors=detections.posteriors[:, -1:],
        windows=[rows[:, -1:] for rows in detections.windows],
        scores=[rows[:, -1:] for rows in detections.scores],
        boxes=detections.boxes[:, -1:],
        ratings=detections.ratings[:, -1:],
    )
