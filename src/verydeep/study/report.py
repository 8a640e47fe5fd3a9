"""The report of a study: one HTML page that holds everything it shows."""

import html
import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template

from verydeep.basics.files import write_text
from verydeep.basics.machine import describe_machine
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.metrics import ErrorRate, top_k_error
from verydeep.evaluation.posteriors import Posteriors
from verydeep.study.box_examples import best_boxes, draw_box_examples
from verydeep.study.box_tables import BoxTable, every_table
from verydeep.study.boxes import check_hits
from verydeep.study.charts import curves, intervals
from verydeep.study.examples import Example, draw_examples
from verydeep.study.findings import Finding, look_for_findings
from verydeep.study.folder import StudyFolder
from verydeep.study.plan import Run
from verydeep.study.preset import Preset
from verydeep.study.published import SOURCE
from verydeep.study.render import as_html
from verydeep.study.tables import Table
from verydeep.training.log import read_log
from verydeep.training.recipe import load_recipe

EXAMPLES = 6
BOX_EXAMPLES = 10
PAGE = Path(__file__).parent / "report.html"


def write_report(
    folder: StudyFolder, preset: Preset, runs: Sequence[Run], testing: Dataset, data: str, device: str = "auto"
) -> Path:
    """Write a study's `report.html`: tables, findings, training curves, examples, boxes, how to reproduce it.

    Parameters
    ----------
    folder : StudyFolder
        The study; what is missing in it is left out.
    preset : Preset
        What was planned.
    runs : sequence of Run
        All of the preset's runs.
    testing : Dataset
        The test images.
    data : str
        The data set, as it was named to the command.
    device : str
        Where score maps are computed: `auto`, `cpu`, `cuda` or `mps`.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    UserError
        The folder holds no posteriors.
    """
    tables = every_table(folder.path)
    trained = [run for run in runs if read_log(folder.run(run.name).path, "epoch")]
    about, right, wrong = _examples(folder, trained, testing, device)
    command = (
        f"verydeep reproduce --preset {preset.name} --data {shlex.quote(data)} --out {shlex.quote(str(folder.path))}"
    )
    parts = {
        "title": html.escape(preset.title),
        "subtitle": html.escape(f"{testing.name}; {testing.provenance or testing.split}."),
        "facts": _facts(folder, tables, trained),
        "scales": html.escape(_scales(preset)),
        "chart": _chart([table for table in tables if isinstance(table, Table)]),
        "tables": as_html(tables),
        "findings": _findings(look_for_findings(folder.path)),
        "curves": "".join(_curves(folder, run) for run in trained),
        "runs": _runs(folder, trained),
        "about_examples": html.escape(about),
        "right": right,
        "wrong": wrong,
        "boxes": _boxes(folder, runs, testing),
        "command": html.escape(command),
        "tables_command": html.escape(f"verydeep tables {shlex.quote(str(folder.path))} --format markdown"),
        "machine": _grid(
            ["machine", ""], [[html.escape(key), html.escape(v)] for key, v in describe_machine().items()]
        ),
        "source": html.escape(f"The paper: {SOURCE}. Written by verydeep."),
    }
    write_text(folder.report, Template(PAGE.read_text(encoding="utf-8")).substitute(parts))
    return folder.report


def _facts(folder: StudyFolder, tables: Sequence[Table | BoxTable], trained: Sequence[Run]) -> str:
    """Return the few figures that stand at the top."""
    facts = [("networks trained", str(len(trained)))]
    seconds = sum(read_log(folder.run(run.name).path, "epoch")[-1]["seconds"] for run in trained)
    facts.append(("training", _time(seconds)))
    facts.append(("testing", _time(sum(folder.testing_seconds().values()))))
    for numbers, words in (("345", "top-1 error of the best network"), ("6", "top-1 error of networks together")):
        shown = [table for table in tables if isinstance(table, Table) and table.number in numbers]
        if measured := [row.measured.top1 for table in shown for row in table.rows if row.measured]:
            best = min(measured, key=lambda rate: rate.rate)
            facts.append((f"{words} (95 %: {100 * best.low:.1f} to {100 * best.high:.1f})", f"{best.rate:.1%}"))
    return "".join(f"<div><dd>{html.escape(value)}</dd><dt>{html.escape(name)}</dt></div>" for name, value in facts)


def _scales(preset: Preset) -> str:
    """Return the study's training scales in the order of the paper's."""
    stages = [stage for name, stage in preset.stages.items() if name in ("small", "large", "jitter", "jitter-fc")]
    scales = dict.fromkeys(load_recipe(stage.recipe, stage.overrides).images.scales for stage in stages)
    return ", ".join(f"S = {low}" if low == high else f"S in [{low};{high}]" for low, high in scales)


def _chart(tables: Sequence[Table]) -> str:
    """Return the dense errors of Tables 3 and 4 and the fusions of Table 6 as points with intervals."""
    rows: dict[str, list[tuple[str, ErrorRate]]] = {}
    for number, kind in (("3", "single"), ("4", "several"), ("6", "fusion")):
        for row in (row for table in tables if table.number == number for row in table.rows):
            if row.measured and row.method == "dense":
                name = row.network if number == "6" else f"{row.network}, S = {row.train}".replace("= [", "in [")
                rows.setdefault(name, []).append((kind, row.measured.top1))
    if not rows:
        return ""
    key = (
        "<p class='key'><i class='hollow'></i>one Q<i class='full'></i>several Q<i class='dark'></i>networks together; "
        "lines: 95 % intervals over the test images</p>"
    )
    chart = f"<div class='scroll'>{intervals(list(rows.items()))}</div>"
    return f"<figure class='chart'><figcaption>Dense evaluation</figcaption>{chart}{key}</figure>"


def _findings(findings: Sequence[Finding]) -> str:
    head = ["what changes", "from", "to", "top-1 error", "p", "the change is", "ILSVRC, paper"]
    rows = [
        [
            html.escape(finding.claim),
            *(html.escape(system) for system in finding.systems),
            f"{100 * finding.first:.1f} → {100 * finding.second:.1f}",
            f"{finding.p_value:.3f}" if finding.p_value >= 0.001 else "&lt; 0.001",
            finding.verdict,
            f"{finding.paper[0]:.1f} → {finding.paper[1]:.1f}" if finding.paper else "",
        ]
        for finding in findings
    ]
    return _grid(head, rows)


def _curves(folder: StudyFolder, run: Run) -> str:
    start = f"from {run.init_from}" if run.init_from else "from random weights"
    return f"<div>{curves(f'{run.name}, {start}', read_log(folder.run(run.name).path, 'epoch'), _error(run))}</div>"


def _error(run: Run) -> str:
    """Return the log's key of a run's validation error."""
    return "localization_error" if run.regression else "top1_error"


def _runs(folder: StudyFolder, trained: Sequence[Run]) -> str:
    """Return what was trained, how long it took and how it ended."""
    testing, rows = folder.testing_seconds(), []
    for run in trained:
        epochs = read_log(folder.run(run.name).path, "epoch")
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
        rows.append([html.escape(cell) for cell in cells])
    head = ["run", "starts from", "recipe", "epochs", "training", "images/s", "testing", "validation error"]
    return _grid(head, rows)


def _examples(folder: StudyFolder, trained: Sequence[Run], testing: Dataset, device: str) -> tuple[str, str, str]:
    """Return what the examples are, those named right and those named wrong, of the network with the least error."""
    tests = [
        (folder.posteriors(run.name) / f"{protocol}.parquet", run, protocol)
        for run in trained
        for protocol in run.protocols
        if protocol.kind == "dense" and not run.regression
    ]
    tests = [test for test in tests if test[0].is_file()]
    if not tests:
        return "No network has been tested yet.", "", ""
    file, run, protocol = min(tests, key=lambda test: top_k_error(Posteriors.read(test[0]), 1))
    posteriors, weights = Posteriors.read(file), folder.run(run.name).weights
    scale = max(protocol.scales)
    right, wrong = (
        draw_examples(weights, posteriors, testing, scale, kind, EXAMPLES, device) for kind in (True, False)
    )
    about = f"Drawn by chance from the test pictures, as {run.name} names them by {protocol}."
    if any(example.score_map for example in [*right, *wrong]):
        about += (
            " Beside each picture that is larger than one window the score map of the class it was taken for, at "
            f"Q = {scale}: the redder, the higher the score of the window around that place, between the picture's "
            "least and its greatest."
        )
    return about, "".join(map(_figure, right)), "".join(map(_figure, wrong))


def _figure(example: Example) -> str:
    words = f"<b>{html.escape(example.guess)}</b> {example.posterior:.0%}"
    if example.guess != example.label:
        words += f", is {html.escape(example.label)}"
    images = f"<img src='{example.picture}' alt='{html.escape(example.label, quote=True)}'>"
    if example.score_map:
        images += f"<img src='{example.score_map}' alt='its score map for {html.escape(example.guess, quote=True)}'>"
    return f"<figure><div class='pair'>{images}</div><p>{words}</p></figure>"


def _boxes(folder: StudyFolder, runs: Sequence[Run], testing: Dataset) -> str:
    """Return the part about boxes: what was checked, hits and misses; empty where there are none."""
    tested = best_boxes(folder.path)
    if tested is None:
        return ""
    words = [
        f"{check.run} by {check.protocol} finds the object in {check.hits:.1%} of {check.images:,} pictures, the best "
        f"constant box in {check.constant:.1%}; expected are {check.least:.0%} at least."
        for check in check_hits(folder, runs)
    ]
    name = tested.path.relative_to(folder.path / "boxes").with_suffix("").as_posix()
    words.append(
        f"Drawn by chance from the test pictures, the boxes of {name} given the class: white is the true box, the "
        "colored one the network's. A hit has an IoU of at least 0.5."
    )
    parts = [f"<h2>Where the objects are</h2><p>{html.escape(' '.join(words))}</p>"]
    for title, hit in (("Hits", True), ("Misses", False)):
        drawn = draw_box_examples(tested.guesses, testing, hit, BOX_EXAMPLES)
        figures = "".join(
            f"<figure><img src='{e.picture}' alt='{html.escape(e.label, quote=True)}'>"
            f"<p>{html.escape(e.label)}, IoU {e.iou:.2f}</p></figure>"
            for e in drawn
        )
        parts.append(f"<h3>{title}</h3><div class='examples boxes'>{figures}</div>")
    return "".join(parts)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already."""
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    top = "".join(f"<th scope='col'>{word}</th>" for word in head)
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"


def _time(seconds: float) -> str:
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
