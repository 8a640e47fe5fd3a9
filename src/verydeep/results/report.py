"""The report of a study: one HTML page that holds everything it shows."""

import base64
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from verydeep.basics.files import write_text
from verydeep.basics.formatting import markup
from verydeep.basics.machine import describe_machine
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.confusion import draw_confusion
from verydeep.evaluation.metrics import ErrorRate, class_metrics
from verydeep.evaluation.posteriors import Posteriors
from verydeep.localization.baselines import with_constant_box
from verydeep.localization.metrics import localization_metrics
from verydeep.results.comparisons import Comparison, make_comparisons
from verydeep.results.illustrations import Example, curves, draw_box_examples, draw_examples, intervals
from verydeep.results.published import SOURCE
from verydeep.results.result import Result
from verydeep.results.study import Preset, Run, StudyFolder
from verydeep.results.table import Table, html_table, render
from verydeep.training.log import read_log
from verydeep.training.recipe import load_recipe

EXAMPLES = 6
BOX_EXAMPLES = 10
CLASSES = 20
Log = Sequence[Mapping[str, Any]]  # of a run: what each epoch gave
PAGE = Path(__file__).parent / "report.html"


def write_report(
    folder: StudyFolder,
    preset: Preset,
    runs: Sequence[Run],
    testing: Dataset,
    data: str,
    results: Sequence[Result],
    tables: Sequence[Table],
    device: str = "auto",
) -> None:
    """Write a study's `report.html`: tables, comparisons, training curves, examples, boxes, how to reproduce it.

    What is planned and not done yet is left out. Score maps are computed on `device`.
    """
    logs = {run.name: read_log(folder.run(run.name).path, "epoch") for run in runs}
    trained = [run for run in runs if logs[run.name]]
    by_class, about, right, wrong = "", "No network has been tested yet.", "", ""
    if best := _best(folder, trained, results):
        posteriors = Posteriors.read(best[0].path)
        by_class = _by_class(*best, posteriors)
        about, right, wrong = _examples(*best, posteriors, folder, testing, device)
    command = (
        f"verydeep reproduce --preset {preset.name} --data {shlex.quote(data)} --out {shlex.quote(str(folder.path))}"
    )
    parts = {
        "title": markup(preset.title),
        "subtitle": markup(f"{testing.name}; {testing.provenance or testing.split}."),
        "facts": _facts(folder, tables, [logs[run.name] for run in trained]),
        "scales": markup(_scales(preset)),
        "chart": _chart(tables),
        "tables": render(tables, "html"),
        "comparisons": _comparisons(make_comparisons(results)),
        "curves": "".join(_curves(run, logs[run.name]) for run in trained),
        "runs": _runs(trained, logs, folder.testing_seconds()),
        "by_class": by_class,
        "about_examples": markup(about),
        "right": right,
        "wrong": wrong,
        "boxes": _boxes(folder, runs, results, testing),
        "command": markup(command),
        "tables_command": markup(f"verydeep tables {shlex.quote(str(folder.path))} --format markdown"),
        "machine": html_table(["machine", ""], [list(map(markup, item)) for item in describe_machine().items()]),
        "source": markup(f"The paper: {SOURCE}. Written by verydeep."),
    }
    write_text(folder.report, Template(PAGE.read_text(encoding="utf-8")).substitute(parts))


def _facts(folder: StudyFolder, tables: Sequence[Table], logs: Sequence[Log]) -> str:
    facts = [("networks trained", str(len(logs))), ("training", _time(sum(log[-1]["seconds"] for log in logs)))]
    facts.append(("testing", _time(sum(folder.testing_seconds().values()))))
    for numbers, words in (("345", "top-1 error of the best network"), ("6", "top-1 error of networks together")):
        shown = [table for table in tables if table.number in tuple(numbers)]
        if measured := [row["top1"] for table in shown for row in table.rows if row["top1"]]:
            best = min(measured, key=lambda rate: rate.rate)
            facts.append((f"{words} (95 %: {100 * best.low:.1f} to {100 * best.high:.1f})", f"{best.rate:.1%}"))
    return "".join(f"<div><dd>{markup(value)}</dd><dt>{markup(name)}</dt></div>" for name, value in facts)


def _scales(preset: Preset) -> str:
    stages = [stage for name, stage in preset.stages.items() if name in ("small", "large", "jitter", "jitter-fc")]
    scales = dict.fromkeys(load_recipe(stage.recipe, stage.overrides).images.scales for stage in stages)
    return ", ".join(f"S = {low}" if low == high else f"S in [{low};{high}]" for low, high in scales)


def _chart(tables: Sequence[Table]) -> str:
    """Return the dense errors of Tables 3 and 4 and the fusions of Table 6 as points with intervals."""
    rows: dict[str, list[tuple[str, ErrorRate]]] = {}
    for number, kind in (("3", "single"), ("4", "several"), ("6", "fusion")):
        for row in (row for table in tables if table.number == number for row in table.rows):
            if row["top1"] and row["method"] == "dense":
                name = row["network"]
                name += "" if number == "6" else f", S = {row['train_scales']}".replace("= [", "in [")
                rows.setdefault(name, []).append((kind, row["top1"]))
    if not rows:
        return ""
    key = (
        "<p class='key'><i class='hollow'></i>one Q<i class='full'></i>several Q<i class='dark'></i>networks together; "
        "lines: 95 % intervals over the test images</p>"
    )
    chart = f"<div class='scroll'>{intervals(list(rows.items()))}</div>"
    return f"<figure class='chart'><figcaption>Dense evaluation</figcaption>{chart}{key}</figure>"


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    head = ["what changes", "from", "to", "top-1 error", "p", "the change is", "ILSVRC, paper"]
    rows = [
        [
            markup(made.claim),
            *(markup(system) for system in made.systems),
            f"{100 * made.first:.1f} → {100 * made.second:.1f}",
            f"{made.p_value:.3f}" if made.p_value >= 0.001 else "&lt; 0.001",
            made.verdict,
            f"{made.paper[0]:.1f} → {made.paper[1]:.1f}" if made.paper else "",
        ]
        for made in comparisons
    ]
    return html_table(head, rows)


def _curves(run: Run, epochs: Log) -> str:
    start = run.init_from or "random weights"
    return f"<div>{curves(f'{run.name}, from {start}', epochs, _error(run))}</div>"


def _error(run: Run) -> str:
    return "localization_error" if run.regression else "top1_error"


def _runs(trained: Sequence[Run], logs: Mapping[str, Log], testing: Mapping[str, float]) -> str:
    rows = []
    for run in trained:
        epochs = logs[run.name]
        cells = [
            run.name,
            run.init_from or "random weights",
            run.recipe.name,
            str(len(epochs)),
            _time(epochs[-1]["seconds"]),
            f"{epochs[-1]['images_per_second']:,.0f}",
            _time(testing.get(run.name, 0.0)),
            f"{min(line[_error(run)] for line in epochs):.1%}",
        ]
        rows.append([markup(cell) for cell in cells])
    head = ["run", "starts from", "recipe", "epochs", "training", "images/s", "testing", "validation error"]
    return html_table(head, rows)


def _best(folder: StudyFolder, trained: Sequence[Run], results: Sequence[Result]) -> tuple[Result, Run] | None:
    """Return the dense test with the least error, and its run."""
    measured = {result.path: result for result in results if result.kind == "classes"}
    tests = [
        (measured[path], run)
        for run in trained
        for protocol in run.protocols
        if protocol.kind == "dense" and (path := folder.test(run, protocol)) in measured
    ]
    return min(tests, key=lambda test: test[0].top1.rate, default=None)


def _by_class(best: Result, run: Run, posteriors: Posteriors) -> str:
    found = class_metrics(posteriors)
    title, (head, *rows) = found.words(posteriors.classes, CLASSES)
    file = io.BytesIO()
    draw_confusion(file, found.confusion, posteriors.classes)
    picture = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    body = html_table(head, [list(map(markup, row)) for row in rows])
    caption = markup(f"{run.name} by {best.protocol}, {title}")
    return (
        f"<figure class='table found'><figcaption>{caption}</figcaption>{body}</figure>"
        f"<figure class='confusion'><img src='{picture}' alt='Which classes are taken for which'></figure>"
    )


def _examples(
    best: Result, run: Run, posteriors: Posteriors, folder: StudyFolder, testing: Dataset, device: str
) -> tuple[str, str, str]:
    """Return what the examples are, those named right and those named wrong."""
    weights, scale = folder.run(run.name).weights, max(best.protocol.scales)
    right, wrong = (
        draw_examples(weights, posteriors, testing, scale, kind, EXAMPLES, device) for kind in (True, False)
    )
    about = f"Drawn by chance from the test pictures, as {run.name} names them by {best.protocol}."
    if any(example.score_map for example in [*right, *wrong]):
        about += (
            " Beside each picture that is larger than one window the score map of the class it was taken for, at "
            f"Q = {scale}: the redder, the higher the score of the window around that place, between the picture's "
            "least and its greatest."
        )
    return about, "".join(map(_figure, right)), "".join(map(_figure, wrong))


def _figure(example: Example) -> str:
    words = f"<b>{markup(example.guess)}</b> {example.score:.0%}"
    if example.guess != example.label:
        words += f", is {markup(example.label)}"
    images = f"<img src='{example.picture}' alt='{markup(example.label)}'>"
    if example.score_map:
        images += f"<img src='{example.score_map}' alt='its score map for {markup(example.guess)}'>"
    return f"<figure><div class='pair'>{images}</div><p>{words}</p></figure>"


def _boxes(folder: StudyFolder, runs: Sequence[Run], results: Sequence[Result], testing: Dataset) -> str:
    """Return the part about boxes: what was checked, hits and misses; empty where there are none."""
    tests = [result for result in results if result.kind == "boxes"]
    best = min(tests, key=lambda result: result.metrics["given_class"].rate, default=None)
    if best is None or best.detections is None:
        return ""
    words = [
        f"{check.run} by {check.protocol} finds the object in {check.hits:.1%} of {check.images:,} pictures, the best "
        f"constant box in {check.constant:.1%}; expected are {check.least:.0%} at least."
        for check in check_hits(folder, runs, results)
    ]
    name = best.path.relative_to(folder.path / "boxes").with_suffix("").as_posix()
    words.append(
        f"Drawn by chance from the test pictures, the boxes of {name} given the class: white is the true box, the "
        "colored one the network's. A hit has an IoU of at least 0.5."
    )
    parts = [f"<h2>Where the objects are</h2><p>{markup(' '.join(words))}</p>"]
    for title, hit in (("Hits", True), ("Misses", False)):
        metrics = "".join(
            f"<figure><img src='{e.picture}' alt='{markup(e.label)}'>"
            f"<p>{markup(e.label)}, IoU {e.score:.2f}</p></figure>"
            for e in draw_box_examples(best.detections, testing, hit, BOX_EXAMPLES)
        )
        parts.append(f"<h3>{title}</h3><div class='examples boxes'>{metrics}</div>")
    return "".join(parts)


@dataclass(frozen=True)
class HitCheck:
    """Whether a localizer finds as many objects as its preset expects, in shares of the images."""

    run: str
    protocol: str
    images: int
    hits: float  # whose box, given the class, has an IoU of at least 0.5
    least: float  # what is expected
    constant: float  # hits of the one box for all pictures that is right most often on the training images

    @property
    def passed(self) -> bool:
        """Whether it finds enough."""
        return self.hits >= self.least


def check_hits(folder: StudyFolder, runs: Iterable[Run], results: Iterable[Result]) -> list[HitCheck]:
    """Return the checks of the localizers that have been tested and of which their preset expects something."""
    measured, checks = {result.path: result for result in results}, []
    for run in runs:
        result = measured.get(folder.test(run, run.protocols[0]))
        box = result.run.best_constant_box if result else None
        if run.least_hits is not None and result and result.detections and box:
            constant = with_constant_box(result.detections, box)
            rates = [result.metrics["given_class"].rate, localization_metrics(constant).given_class.rate]
            hits, by_chance = (1 - rate for rate in rates)
            checks.append(HitCheck(run.name, str(result.protocol), result.images, hits, run.least_hits, by_chance))
    return checks


def _time(seconds: float) -> str:
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
