"""The report: charts, examples, one page that needs nothing else."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from verydeep.datasets import open_dataset, scenes
from verydeep.evaluation.metrics import ErrorRate
from verydeep.evaluation.posteriors import Posteriors
from verydeep.nets.run_info import RunInfo
from verydeep.results.illustrations import curves, draw_examples, intervals
from verydeep.results.report import write_report
from verydeep.results.result import read_results
from verydeep.results.study import StudyFolder, load_preset, make_plan
from verydeep.results.tables import make_tables


def _epochs(count):
    return [
        {
            "epoch": i + 1,
            "train_error": 1 / (i + 1),
            "top1_error": 0.9 / (i + 1),
            "seconds": 2.0 * i,
            "images_per_second": 9,
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 74])
def test_curves_are_valid_and_show_every_epoch(count) -> None:
    root = ElementTree.fromstring(curves("D & E <s72>", _epochs(count)))
    lines = {line.get("class"): line.get("points").split() for line in root.iter("polyline")}
    assert {name: len(points) for name, points in lines.items()} == {"training": count, "validation": count}
    heights = [float(point.split(",")[1]) for point in lines["validation"]]
    assert heights == sorted(heights)  # the error falls, and SVG counts downwards
    labels = [text.text for text in root.iter("text")]
    assert "epoch" in labels
    assert str(max(count, 2)) in labels


def test_intervals_stand_in_proportion() -> None:
    rates = [("one", [("single", ErrorRate(0.1, 0.05, 0.15))]), ("two", [("single", ErrorRate(0.2, 0.15, 0.25))])]
    root = ElementTree.fromstring(intervals(rates))
    lines = [line for line in root.iter("line") if line.get("class") == "single"]
    (a, b), (c, d) = [(float(line.get("x1")), float(line.get("x2"))) for line in lines]
    assert b == pytest.approx(c, abs=0.2)
    assert b - a == pytest.approx(d - c, abs=0.2)
    assert intervals([("sure", [("single", ErrorRate(0.0, 0.0, 0.0))])])


@pytest.fixture
def small_study(tmp_path, monkeypatch, rng):
    """A study of two finished runs: random weights, made-up logs and posteriors."""
    monkeypatch.setitem(scenes.COUNTS, "test", 20)
    preset, folder = load_preset("demo"), StudyFolder(tmp_path / "study")
    testing = open_dataset("scenes", "test")
    labels = np.array([sample.label for sample in testing.samples])
    runs = make_plan(preset)[:2]
    for run in runs:
        net = vd.create(run.configuration, testing.classes, width=1 / 32, image_size=32, fc_width=8, seed=1)
        net.preprocessing = replace(net.preprocessing, pool_round_up=False)
        net.provenance = RunInfo(train_scales=run.recipe.images.scales)
        vd.save(net, folder.run(run.name).weights)
        lines = [json.dumps({"kind": "epoch", **line}) for line in _epochs(3)]
        (folder.run(run.name).path / "log.jsonl").write_text("\n".join(lines))
        for protocol in run.protocols:
            about = {
                "configuration": run.configuration,
                "train_scales": list(run.recipe.images.scales),
                "weights_hash": run.name,
                "protocol": str(protocol),
                "data": "scenes",
                "split": "test",
                "options": {"softmax": "image", "pool": "mean"},
            }
            detections = np.where(rng.random(len(labels)) < 0.5, labels, (labels + 1) % 10)
            probabilities = (0.05 + 0.5 * np.eye(10)[detections]).astype(np.float32)
            ids = tuple(sample.id for sample in testing.samples)
            path = folder.posteriors(run.name) / f"{protocol}.parquet"
            Posteriors(ids, labels, probabilities, testing.classes, about).write(path)
    return folder, preset, runs, testing


def test_examples_are_right_or_wrong_as_asked_and_the_same_every_time(small_study) -> None:
    folder, _, runs, testing = small_study
    file = next(folder.posteriors(runs[0].name).glob("*.parquet"))
    posteriors, weights = Posteriors.read(file), folder.run(runs[0].name).weights
    for right in (True, False):
        examples = draw_examples(weights, posteriors, testing, 64, right, 4, "cpu")
        assert examples == draw_examples(weights, posteriors, testing, 64, right, 4, "cpu")
        assert {example.guess == example.label for example in examples} == {right}
        for uri in (examples[0].picture, examples[0].score_map):
            picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
            assert picture.height == 180


def test_a_picture_of_one_window_has_no_map_to_show(small_study, monkeypatch) -> None:
    folder, _, runs, testing = small_study
    posteriors = Posteriors.read(next(folder.posteriors(runs[0].name).glob("*.parquet")))
    drawn, image = [], testing.image
    monkeypatch.setattr(testing, "image", lambda index: drawn.append(image(index)) or drawn[-1])
    every = [
        example
        for right in (True, False)
        for example in draw_examples(folder.run(runs[0].name).weights, posteriors, testing, 48, right, 20, "cpu")
    ]
    longer = [48 * max(picture.shape[:2]) / min(picture.shape[:2]) for picture in drawn]
    assert [example.score_map is None for example in every] == [round(side) < 64 for side in longer]
    assert min(longer) < 64 <= max(longer)


def test_the_page_holds_all_it_shows(small_study) -> None:
    folder, preset, runs, testing = small_study
    results = read_results(folder.path)
    write_report(folder, preset, runs, testing, "my pictures", results, make_tables(results), "cpu")
    page = folder.report.read_text()
    assert "$" not in page.replace("$(", "")
    addresses = re.findall(r"(?:src|href)\s*=\s*['\"]([^'\"]*)", page)
    assert addresses
    assert all(address.startswith("data:image/") for address in addresses)
    assert "url(" not in page
    for words in (
        "Table 3",
        "Table 4",
        "epoch",
        "Named right",
        "by class; mean recall",
        "Which classes are taken for which",
        "Named wrong",
        "--data 'my pictures'".replace("'", "&#x27;"),
    ):
        assert words in page
