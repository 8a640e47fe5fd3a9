"""Errors of posteriors, of several labels an image mAP, as a printed table and as JSON, for `evaluate` and `fuse`."""

from math import isnan
from typing import TYPE_CHECKING, Any

from verydeep.basics.formatting import align as table

if TYPE_CHECKING:
    from verydeep.evaluation.posteriors import Posteriors

__all__ = ["NOTE", "best", "cells", "class_table", "class_values", "head", "note", "table", "values"]

CLASSES_SHOWN = 20

NOTE = "error in per cent, in brackets its 95 % bootstrap interval over images"
HEAD = ("images", "top-1 error %", "top-5 error %")
SEVERAL_NOTE = (
    "mAP: mean over the classes of average precision, the area under precision over recall as of VOC 2010; an image "
    "has several labels, so there are no top-1 and top-5 errors"
)
SEVERAL_HEAD = ("images", "mAP %")


def head(posteriors: "Posteriors") -> tuple[str, ...]:
    """Return the names of what `cells` gives."""
    return HEAD if posteriors.targets is None else SEVERAL_HEAD


def note(posteriors: "Posteriors") -> str:
    """Return what the figures are, in words."""
    return NOTE if posteriors.targets is None else SEVERAL_NOTE


def best(results: "dict[str, Posteriors]") -> str | None:
    """Return the name of the posteriors with the least error or the greatest mAP; None where there are no labels."""
    from verydeep.evaluation.metrics import mean_precision, top_k_error

    measured = {name: -mean_precision(found) for name, found in results.items() if found.targets is not None}
    measured |= {name: top_k_error(found, 1) for name, found in results.items() if (found.labels >= 0).any()}
    return min(measured, key=lambda name: measured[name], default=None)


def cells(posteriors: "Posteriors") -> tuple[str, ...]:
    """Return number of images, top-1 and top-5 error with their intervals, or mAP, in words."""
    from verydeep.evaluation.metrics import errors, mean_precision

    if posteriors.targets is not None:
        return str(len(posteriors)), f"{100 * mean_precision(posteriors):.1f}"
    labeled = int((posteriors.labels >= 0).sum())
    if not labeled:
        return str(len(posteriors)), "no labels", "no labels"
    found = errors(posteriors)
    return str(labeled), str(found["top1"]), str(found.get("top5", f"- ({len(posteriors.classes)} classes)"))


def values(posteriors: "Posteriors") -> dict[str, Any]:
    """Return the same as JSON-able values: rates in [0, 1]; null where there are no labels or too few classes."""
    from verydeep.evaluation.metrics import errors, mean_precision

    if posteriors.targets is not None:
        return {"images": len(posteriors), "mean_average_precision": _or_none([mean_precision(posteriors)])[0]}
    labeled = int((posteriors.labels >= 0).sum())
    found = errors(posteriors) if labeled else {}
    result: dict[str, Any] = {"images": len(posteriors), "labeled_images": labeled}
    for name in ("top1", "top5"):
        rate = found.get(name)
        result[f"{name}_error"] = rate and rate.rate
        result[f"{name}_interval"] = rate and [rate.low, rate.high]
    return result


def class_table(posteriors: "Posteriors", name: str) -> str:
    """Return recall and precision by class, or average precision, in words, of many classes those least found."""
    from verydeep.evaluation.metrics import class_metrics, precision_words

    if posteriors.targets is not None:
        title, rows = precision_words(posteriors, CLASSES_SHOWN)
    else:
        title, rows = class_metrics(posteriors).words(posteriors.classes, CLASSES_SHOWN)
    return f"{name}, {title}\n{table(rows)}"


def class_values(posteriors: "Posteriors") -> dict[str, Any]:
    """Return recall and precision of all classes as JSON-able values in [0, 1]; null where that is 0 of 0.

    Of images with several labels it is average precision; null for a class that none has.
    """
    from verydeep.evaluation.metrics import class_metrics, class_precisions

    if posteriors.targets is not None:
        images = (posteriors.targets > 0).sum(axis=0).tolist()
        several = zip(posteriors.classes, images, _or_none(class_precisions(posteriors)), strict=True)
        return {"by_class": [dict(zip(("class", "images", "average_precision"), row, strict=True)) for row in several]}
    if not (posteriors.labels >= 0).any():
        return {"macro_recall": None, "macro_precision": None, "by_class": None}
    found = class_metrics(posteriors)
    rates = (_or_none(found.recall.tolist()), _or_none(found.precision.tolist()))
    columns = zip(posteriors.classes, found.images.tolist(), *rates, strict=True)
    rows = [dict(zip(("class", "images", "recall", "precision"), row, strict=True)) for row in columns]
    return {"macro_recall": found.macro[0], "macro_precision": found.macro[1], "by_class": rows}


def _or_none(rates: list[float]) -> list[float | None]:
    return [None if isnan(rate) else rate for rate in rates]
