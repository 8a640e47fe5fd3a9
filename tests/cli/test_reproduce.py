"""`verydeep reproduce`, from words to a plan and a report."""

import json
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from verydeep.basics.errors import UserError
from verydeep.cli import reproduce as module
from verydeep.datasets import scenes

app = typer.Typer()
app.command()(module.reproduce)

RECIPE = """
[network]
width = 0.03
image_size = 32
fc_width = 8
[images]
scales = [36, 36]
[optimizer]
batch_size = 8
[schedule]
kind = "cosine"
epochs = 1
"""
PRESET = """
title = "A study of seconds"
data = { name = "scenes", classes = 10, training_images = 20, test_images = 12, height = 128, width = 128 }
[stages.small]
recipe = "small.toml"
single = 36
multi = [32, 36]
[[networks]]
name = "A"
stages = ["small"]
"""


@pytest.fixture(autouse=True)
def _few_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in {"train": 20, "val": 10, "test": 12}.items():
        monkeypatch.setitem(scenes.COUNTS, split, count)
    Path("small.toml").write_text(RECIPE)
    Path("tiny.toml").write_text(PRESET)


def _run(*words):
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_example_of_the_help_runs():
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    assert module.EXAMPLE in shown
    program, command, *words = shlex.split(module.EXAMPLE)
    assert (program, command) == ("verydeep", "reproduce")
    out = _run(*words)
    for name in ("A-s36", "B-s36-48", "D-s42", "D-s36-48"):
        (line,) = [line for line in out.splitlines() if line.startswith(name + " ")]
        assert "dense@" in line
    assert "Estimate:" in out
    assert not Path("demo").exists()


def test_the_papers_plan_lists_18_runs_without_data():
    plan = json.loads(_run("--preset", "paper", "--dry-run", "--json"))
    assert len(plan["runs"]) == 18
    assert sum(run["task"] == "localize" for run in plan["runs"]) == 4
    runs = {run["name"]: run for run in plan["runs"]}
    # 3 x 15.47 G multiply-adds, 1.28 M images, 74 epochs: the paper's 370 K iterations of 256 images.
    assert runs["D-s256"]["training_macs"] == pytest.approx(370_000 * 256 * 3 * 15.47e9, rel=2e-3)
    assert plan["estimated_seconds"] == pytest.approx(sum(run["estimated_seconds"] for run in plan["runs"]))


BOXES = """
[[localizers]]
network = "A"
stage = "small"
recipe = "small.toml"
regression = "scr"
tune = "fc"
protocols = ["center@36"]
least_hits = {}
"""


@pytest.mark.parametrize(("least", "passed"), [(0.0, True), (1.0, False)])
def test_a_localizer_that_finds_too_little_fails_the_study(least, passed):
    Path("boxes.toml").write_text(PRESET + BOXES.format(least))
    words = ["--preset", "boxes.toml", "--data", "scenes", "--out", "study", "--device", "cpu"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == (0 if passed else 1)
    assert ("pass" if passed else "MISSED") in result.stdout
    assert "the best constant box in" in result.stdout
    assert result.stdout.index("Table 8") < result.stdout.index("A-s36-scr-fc by center@36 finds the object")
    (check,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["checks"]
    assert check["passed"] == passed
    assert check["images"] == 12


def test_boxes_drawn_before_exif_turned_the_pictures_are_put_right():
    box = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    size = "<size><width>64</width><height>48</height></size>"
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("cat", "dog"):
        for i in range(8):
            file = Path(f"pets/{name}/{i}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48), (9 * i, 80, 99)).save(file, exif=exif)
            file.with_suffix(".xml").write_text(
                f"<annotation>{size}<object><name>{name}</name>{box}</object></annotation>"
            )
    Path("boxes.toml").write_text(PRESET + BOXES.format(0.0))
    words = ["--preset", "boxes.toml", "--data", "pets", "--out", "study", "--device", "cpu", "--json"]
    assert [run["task"] for run in json.loads(_run(*words, "--dry-run"))["runs"]] == ["classify"]
    outcome = json.loads(_run(*words, "--boxes-as-stored"))
    assert [run["task"] for run in outcome["runs"]] == ["classify", "localize"]
    assert outcome["checks"][0]["images"] == 4
    assert " --boxes-as-stored" in Path("study/runs/A-s36-scr-fc/card.md").read_text()
    with pytest.raises(UserError, match="preset published looks at no boxes; leave them out"):
        _run("--preset", "published", "--data", "pets", "--boxes-as-stored")


def test_a_study_ends_with_its_tables_and_the_report():
    out = _run("--preset", "tiny.toml", "--data", "scenes", "--out", "study", "--device", "cpu")
    assert out.index("A-s36") < out.index("Table 3") < out.index("Table 4") < out.index("report: ")
    report = Path(out.rsplit("report: ", 1)[1].strip())
    assert report.is_absolute()
    assert "<table" in report.read_text()
    again = json.loads(_run("--preset", "tiny.toml", "--data", "scenes", "--out", "study", "--device", "cpu", "--json"))
    assert again["estimated_seconds"] == 0
    assert [table["table"] for table in again["tables"]][:2] == ["3", "4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset tiny.toml --data scenes", "needs --data .* and --out"),
        ("--preset tiny.toml --out study", "needs --data .* and --out"),
        ("--preset dmo --dry-run", "did you mean demo"),
        ("--preset tiny.toml --data nowhere --out study", "nowhere"),
        ("--preset tiny.toml --data scenes --out small.toml", "is no folder"),
        ("--preset tiny.toml --data scenes --out .", "holds no study"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(words, message):
    with pytest.raises(UserError, match=message) as raised:
        _run(*shlex.split(words))
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in Path().iterdir()) == ["small.toml", "tiny.toml"]
