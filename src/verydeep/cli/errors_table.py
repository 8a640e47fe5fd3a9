"""Errors of posteriors as a printed table and as JSON, for `evaluate` and `fuse`."""

from typing import TYPE_CHECKING, Any

from verydeep.basics.formatting import align as table

if TYPE_CHECKING:
    from verydeep.evaluation.posteriors import Posteriors

__all__ = ["HEAD", "NOTE", "cells", "table", "values"]

HEAD = ("images", "top-1 error %", "top-5 error %")


def cells(posteriors: "Posteriors") -> tuple[str, str, str]:
    """Return number of images, top-1 and top-5 error with their intervals, in words."""
    from verydeep.evaluation.metrics import errors

    labeled = int((posteriors.labels >= 0).sum())
    if not labeled:
        return str(len(posteriors)), "no labels", "no labels"
    found = errors(posteriors)
    return str(labeled), str(found["top1"]), str(found.get("top5", f"- ({len(posteriors.classes)} classes)"))


def values(posteriors: "Posteriors") -> dict[str, Any]:
    """Return the same as JSON-able values: rates in [0, 1]; null where there are no labels or too few classes."""
    from verydeep.evaluation.metrics import errors

    labeled = int((posteriors.labels >= 0).sum())
    found = errors(posteriors) if labeled else {}
    result: dict[str, Any] = {"images": len(posteriors), "labeled_images": labeled}
    for name in ("top1", "top5"):
        rate = found.get(name)
        result[f"{name}_error"] = rate and rate.rate
        result[f"{name}_interval"] = rate and [rate.low, rate.high]
    return result


NOTE = "error in per cent, in brackets its 95 % bootstrap interval over images"
