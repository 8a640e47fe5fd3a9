"""Tests of localizers, for `evaluate`, `fuse` and `localize`: how boxes are merged, and figures as table and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from verydeep.basics.errors import UserError
from verydeep.cli.console import echo

if TYPE_CHECKING:
    from verydeep.datasets.opening import Reading
    from verydeep.inference.runtime import Precision
    from verydeep.localization.detections import Detections
    from verydeep.localization.merging import MergeRule
    from verydeep.localization.tuning import Tuned

HEAD = ("images", "top-5 error %", "top-1 error %", "error % given class", "mean IoU % given class")
NOTE = (
    "wrong: another class, or IoU below 0.5 with every true box; in brackets 95 % bootstrap intervals; below, the same "
    "classes with the whole image, and with the box that is right most often in training, as boxes"
)


def chosen_rule(
    threshold: float | None, match: Literal["recommended", "literal"] | None, tuned: Path | None
) -> "Tuned":
    """Return how boxes are merged: as tuned, as given, or by default."""
    from verydeep.localization.localize import DEFAULT_RULE
    from verydeep.localization.merging import MergeRule
    from verydeep.localization.tuning import Tuned

    if tuned:
        if threshold is not None or match is not None:
            raise UserError("--tuned says threshold and match; leave out --threshold and --match")
        return Tuned.read(tuned)
    if match == "literal" and threshold is None:
        raise UserError("--match literal counts in pixels: give a --threshold, or find one with verydeep tune")
    rule = MergeRule(DEFAULT_RULE.threshold if threshold is None else threshold, match or "recommended")
    return Tuned(rule, (), 0, 0.0, "", "")  # as if tuned on other images: none of these is left out


@dataclass(frozen=True)
class BoxRequest:
    """What `evaluate --task localize` was asked for."""

    localizer: Path
    classifier: Path | None
    data: str
    split: str
    reading: "Reading"
    posteriors: Path | None
    precision: "Precision"
    memory: str
    device: str
    engine: str
    limit: int | None
    out: Path


def echo_boxes(request: BoxRequest, protocols: Sequence[str], tuned: "Tuned", json_: bool) -> None:
    """Test a localizer and print its figures."""
    from verydeep.datasets.boxes import with_boxes
    from verydeep.evaluation.posteriors import Posteriors
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.protocol import Protocol
    from verydeep.inference.runtime import Runtime
    from verydeep.localization.evaluate import BoxEvaluator
    from verydeep.training.run_folder import find_weights

    if request.classifier is None:
        raise UserError("--task localize needs --classifier: the weights or run whose scores rate the boxes")
    wanted = [Protocol.parse(text) for text in protocols]
    files = find_weights(request.classifier), find_weights(request.localizer)
    posteriors = Posteriors.read(request.posteriors) if request.posteriors else None
    dataset = request.reading.open(request.data, request.split, boxes=True)
    evaluator = BoxEvaluator(
        *files,
        with_boxes(dataset, request.reading.on_bad_image == "skip")[0],
        posteriors=posteriors,
        runtime=Runtime(request.device, request.engine, parse_memory(request.memory), request.precision),
        limit=request.limit,
        cache=request.out,
    )
    for protocol in wanted:
        evaluator.check(protocol)  # all of them before the first is run
    rule = tuned.rule_for(dataset.name, dataset.split)
    results = {str(protocol): evaluator.detections(protocol, rule) for protocol in wanted}
    rows = [(name, detections, str(evaluator.path(Protocol.parse(name)))) for name, detections in results.items()]
    echo_metrics(rows, rule, json_)


def echo_metrics(rows: "Sequence[tuple[str, Detections, str]]", rule: "MergeRule", json_: bool) -> None:
    """Print the metrics of detections, each with its name and file."""
    from verydeep.cli.errors_table import table

    if json_:
        results = [{"protocol": name, **values(detections), "file": file} for name, detections, file in rows]
        echo(json.dumps({"merging": vars(rule), "results": results}, indent=2))
        return
    lines = [(name, *cells(detections), file) for name, detections, file in rows]
    lines += [(name, *cells(detections), "") for name, detections in baselines(rows[0][1])]
    echo(table([("protocol", *HEAD, "file"), *lines]))
    echo(NOTE)
    echo(f"boxes merged up to {rule.threshold:g} of the {rule.match} match score")
    if rule.held_out:
        echo(f"without the {rule.held_out:.0%} of the images that the threshold was chosen on")


def baselines(detections: "Detections") -> "list[tuple[str, Detections]]":
    """Return the same classes with boxes that cost nothing."""
    from verydeep.localization.baselines import WHOLE, with_constant_box
    from verydeep.nets.run_info import RunInfo

    found = [("whole image", with_constant_box(detections, WHOLE))]
    constant = RunInfo.of_test(detections.metadata).best_constant_box
    return [*found, *([("best constant box", with_constant_box(detections, constant))] if constant else [])]


def cells(detections: "Detections") -> tuple[str, ...]:
    """Return the figures in words, in the order of `HEAD`."""
    from verydeep.localization.metrics import localization_metrics

    if not detections.counted.any():
        return (str(len(detections)), *["no labels or boxes"] * 4)
    found = localization_metrics(detections)
    return (str(found.images), str(found.top5), str(found.top1), str(found.given_class), str(found.mean_iou))


def values(detections: "Detections") -> dict[str, Any]:
    """Return the figures as JSON-able values in [0, 1], null where there are no labels or boxes."""
    from verydeep.localization.metrics import localization_metrics

    found = localization_metrics(detections) if detections.counted.any() else None
    result: dict[str, Any] = {"images": len(detections), "annotated_images": int(detections.counted.sum())}
    names = {"top5": "top5_error", "top1": "top1_error", "given_class": "error_given_class", "mean_iou": "mean_iou"}
    for attribute, name in names.items():
        rate = getattr(found, attribute) if found else None
        result[name] = rate and rate.rate
        result[f"{name}_interval"] = rate and [rate.low, rate.high]
    return result
