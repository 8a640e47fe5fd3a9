"""Errors of posteriors as a printed table and as JSON, for `evaluate` and `fuse`."""

from math import isnan
from typing import TYPE_CHECKING, Any

from verydeep.basics.formatting import align as table

if TYPE_CHECKING:
    from verydeep.evaluation.metrics import Values
    from verydeep.evaluation.posteriors import Posteriors

__all__ = ["HEAD", "NOTE", "cells", "class_table", "class_values", "table", "values"]

CLASSES_SHOWN = 20

NOTE = "error in per cent, in brackets its 95 % bootstrap interval over images"
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


def class_table(posteriors: "Posteriors", name: str) -> str:
    """Return recall and precision by class in words, of many classes those least found."""
    from verydeep.evaluation.metrics import class_metrics

    title, rows = class_metrics(posteriors).words(posteriors.classes, CLASSES_SHOWN)
    return f"{name}, {title}\n{table(rows)}"


def class_values(posteriors: "Posteriors") -> dict[str, Any]:
    """Return recall and precision of all classes as JSON-able values in [0, 1]; null where that is 0 of 0."""
    from verydeep.evaluation.metrics import class_metrics

    if not (posteriors.labels >= 0).any():
        return {"macro_recall": None, "macro_precision": None, "by_class": None}
    found = class_metrics(posteriors)
    rates = (_or_none(found.recall), _or_none(found.precision))
    columns = zip(posteriors.classes, found.images.tolist(), *rates, strict=True)
    rows = [dict(zip(("class", "images", "recall", "precision"), row, strict=True)) for row in columns]
    return {"macro_recall": found.macro[0], "macro_precision": found.macro[1], "by_class": rows}


def _or_none(rates: "Values") -> list[float | None]:
    return [None if isnan(rate) else rate for rate in rates.tolist()]
