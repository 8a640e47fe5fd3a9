"""Errors of posteriors as a printed table and as JSON, for `evaluate` and `fuse`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verydeep.evaluation.posteriors import Posteriors

HEAD = ("images", "top-1 error %", "top-5 error %")


def cells(posteriors: "Posteriors") -> tuple[str, str, str]:
    """Return number of images, top-1 and top-5 error with their intervals, in words."""
    from verydeep.evaluation.metrics import error_rate

    if (posteriors.labels < 0).all():
        return str(len(posteriors)), "no labels", "no labels"
    top5 = str(error_rate(posteriors, 5)) if len(posteriors.classes) > 5 else f"- ({len(posteriors.classes)} classes)"
    return str(int((posteriors.labels >= 0).sum())), str(error_rate(posteriors, 1)), top5


def values(posteriors: "Posteriors") -> dict[str, Any]:
    """Return the same as JSON-able values: rates in [0, 1]; null where there are no labels or too few classes."""
    from verydeep.evaluation.metrics import error_rate

    labeled = int((posteriors.labels >= 0).sum())
    result: dict[str, Any] = {"images": len(posteriors), "labeled_images": labeled}
    for k in (1, 5):
        rate = error_rate(posteriors, k) if labeled and len(posteriors.classes) > k else None
        result[f"top{k}_error"] = rate and rate.rate
        result[f"top{k}_interval"] = rate and [rate.low, rate.high]
    return result


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words, the first of them the heading, in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


NOTE = "error in per cent, in brackets its 95 % bootstrap interval over images"
