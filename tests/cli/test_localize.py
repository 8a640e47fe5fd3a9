"""`verydeep localize`, `evaluate --task localize`, `fuse` of boxes and `data show --boxes`, from words to pictures."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli import localize as module
from verydeep.cli import train as training
from verydeep.cli import tune as tuning
from verydeep.cli.data import app as data_app
from verydeep.cli.evaluate import evaluate
from verydeep.cli.fuse import fuse
from verydeep.cli.tables import tables
from verydeep.datasets import open_dataset, scenes
from verydeep.localization.detections import Detections
from verydeep.nets.run_info import RunInfo


def _app(command):
    app = typer.Typer()
    app.command()(command)
    return app


APPS = {
    "localize": _app(module.localize),
    "tune": _app(tuning.tune),
    "evaluate": _app(evaluate),
    "fuse": _app(fuse),
    "tables": _app(tables),
    "data": data_app,
    "train": _app(training.train),
}


def run(name, *words, status=0):
    result = CliRunner().invoke(APPS[name], list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two runs, a classifier and a localizer of random weights; a photograph; few scenes."""
    monkeypatch.chdir(tmp_path)
    for split, count in {"train": 40, "val": 20, "test": 30}.items():
        monkeypatch.setitem(scenes.COUNTS, split, count)
    for name, regression in (("A", None), ("A-boxes", "pcr")):
        net = vd.create("A", scenes.CLASSES, width=1 / 16, image_size=64, fc_width=16, seed=1, regression=regression)
        net.provenance = RunInfo(seed=0, train_scales=(80, 80), best_constant_box=(0.2, 0.2, 0.8, 0.8))
        vd.save(net, tmp_path / "runs" / name / "best.safetensors")
    Image.fromarray(open_dataset("scenes", "test").image(0)).save("photo.jpg")
    return tmp_path


def _boxes(here, protocol="dense@96", out="boxes", *words):
    run(
        "evaluate",
        *("runs/A-boxes", "--task", "localize", "--classifier", "runs/A", "--data", "scenes"),
        *("--protocol", protocol, "--out", out, *words),
    )
    return here / out / f"{protocol}.parquet"


def test_the_examples_run_as_they_stand(here):
    shown = " ".join(run("localize", "--help").replace("│", " ").split())
    assert module.EXAMPLE in shown
    text = run("localize", *shlex.split(module.EXAMPLE)[2:])
    assert text.startswith("photo.jpg (crops@80;")
    with Image.open("boxes/photo.png") as drawn:
        assert drawn.format == "PNG"
    _boxes(here)
    assert tuning.EXAMPLE in " ".join(run("tune", "--help").replace("│", " ").split())
    assert "held-out images" in run("tune", *shlex.split(tuning.EXAMPLE)[2:])
    assert json.loads(Path("threshold.json").read_text())["images"] == 6


def test_json_has_what_the_words_say_and_bad_pictures_stop_nothing(here):
    Path("bad.jpg").write_bytes(b"no picture")
    words = ["photo.jpg", "bad.jpg", "--classifier", "runs/A", "--localizer", "runs/A-boxes", "--top", "3"]
    good, bad = json.loads(run("localize", *words, "--json", "--out", "drawn", status=2))
    assert bad["image"] == "bad.jpg"
    assert "error" in bad
    assert len(good["top"]) == 3
    expected = vd.localize("runs/A/best.safetensors", "runs/A-boxes/best.safetensors", "photo.jpg", top=3)
    for found, one in zip(good["top"], expected.top, strict=True):
        assert found["class"] == one.name
        np.testing.assert_allclose(found["box"], one.box, atol=1e-3)
        xmin, ymin, xmax, ymax = found["box"]
        assert 0 <= xmin <= xmax <= good["width"]
        assert 0 <= ymin <= ymax <= good["height"]
    assert Path(good["drawn"]).is_file()
    text = run("localize", *words, status=2)
    assert all(found["class"] in text for found in good["top"])


def test_boxes_of_a_data_set_are_files_and_figures(here):
    words = ["runs/A-boxes", "--task", "localize", "--classifier", "runs/A", "--data", "scenes", "--out", "boxes"]
    found = json.loads(run("evaluate", *words, "--protocol", "center@80", "--protocol", "dense@80,96", "--json"))
    assert [row["protocol"] for row in found["results"]] == ["center@80", "dense@80,96"]
    for row in found["results"]:
        detections = Detections.read(Path(row["file"]))
        assert (len(detections), row["annotated_images"]) == (30, 30)
        assert row["top5_error"] >= row["error_given_class"] - 1e-9
        low, high = row["mean_iou_interval"]
        assert low <= row["mean_iou"] <= high
    text = run("evaluate", *words, "--protocol", "center@80")
    assert "whole image" in text
    assert "best constant box" in text


def test_a_tuned_threshold_goes_into_tests_fusion_and_tables(here):
    file = _boxes(here)
    run("tune", file, "--share", "0.3", "--out", "t.json")
    again = _boxes(here, "dense@96", "boxes", "--tuned", "t.json")
    rule = Detections.read(again).metadata["merging"]
    assert rule == {**rule, "held_out": 0.3, "threshold": json.loads(Path("t.json").read_text())["threshold"]}
    text = run("tables", "boxes")
    assert "Table 9" in text
    assert "(scenes, test, 21 images)" in text
    fused = run("fuse", again, again, "--tuned", "t.json", "--out", "union.parquet", "--json")
    assert json.loads(fused)["results"][-1]["protocol"] == "merged together"
    both = Detections.read(Path("union.parquet"))
    assert len(both.windows[0]) == 2 * len(Detections.read(again).windows[0])


def test_data_show_lists_every_bad_box_at_once(here, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(np.full((24, 32, 3), 99, np.uint8)).save(tmp_path / "pets" / name / f"{i}.png")
    box = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for name, xmin in (("cat/0", 5), ("cat/1", 12), ("dog/3", "nan"), ("dog/4", -7)):
        text = f"<annotation><object><name>{name[:3]}</name>{box.format(xmin)}</object></annotation>"
        (tmp_path / "pets" / f"{name}.xml").write_text(text)
    text = run("data", "show", "pets", "--boxes")
    for said in ("cat/1.xml: box 12 1 9 9 has xmax 9 below xmin 12", "dog/3.xml: box nan", "dog/4.png: its box with"):
        assert text.count(f"bad box: pets/{said}") == 1
    found = json.loads(run("data", "show", "pets", "--boxes", "--json"))
    bad = [error for split in found["splits"].values() for error in split["bad_boxes"]]
    assert len(bad) == 3
    assert sum(split["images_with_boxes"] for split in found["splits"].values()) == 2  # cat/0 and dog/4 have boxes
    assert "bad box" not in run("data", "show", "pets")


BOXES = ["runs/A-boxes", "--task", "localize", "--classifier", "runs/A", "--data", "scenes", "--out", "new"]
PICTURE = ["photo.jpg", "--classifier", "runs/A", "--localizer", "runs/A-boxes", "--out", "new"]
TRAIN = ["--net", "A", "--data", "scenes", "--recipe", "scenes", "--out", "new"]


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (
            "evaluate",
            [*BOXES, "--protocol", "dense@80", "--softmax", "location"],
            "leave them out with --task localize",
        ),
        ("evaluate", [*BOXES[:3], *BOXES[5:], "--protocol", "dense@80"], "--task localize needs --classifier"),
        ("evaluate", [*BOXES[:1], *BOXES[3:], "--protocol", "dense@80"], "--classifier is about boxes: add --task"),
        ("evaluate", [*BOXES, "--protocol", "dense+crops@80"], "boxes come from center@Q"),
        ("evaluate", ["runs/A", *BOXES[1:], "--protocol", "dense@80"], "runs/A/best.safetensors"),
        ("evaluate", [*BOXES, "--protocol", "dense@80", "--match", "literal"], "counts in pixels: give a --threshold"),
        ("evaluate", [*BOXES, "--protocol", "dense@80", "--threshold", "nan"], "threshold nan"),
        ("localize", [*PICTURE, "--protocol", "dense@32"], "32"),
        ("localize", [*PICTURE, "--top", "0"], "top 0"),
        ("localize", [*PICTURE, "--tuned", "photo.jpg"], "photo.jpg: no file of verydeep tune"),
        ("localize", [*PICTURE[:3], "--localizer", "runs/A", "--out", "new"], "runs/A"),
        ("tune", ["photo.jpg"], "photo.jpg: not a file of boxes"),
        ("train", [*TRAIN, "--regression", "scr"], "--regression scr is for boxes: add --task localize"),
        ("train", [*TRAIN, "--task", "localize", "--tune", "fc"], "give the classifier to take them from, --init-from"),
        ("train", [*TRAIN, "--task", "localize", "--init-from", "runs/A-boxes"], "runs/A-boxes"),
        ("fuse", ["photo.jpg", "photo.jpg", "--threshold", "1"], "--threshold is for files of boxes"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(here, name, words, said):
    with pytest.raises(UserError) as raised:
        run(name, *words)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("new").exists()
