"""`verydeep features` and `verydeep transfer`, from words to files; the examples of their help run as they stand."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli import features, transfer
from verydeep.nets.run_info import RunInfo

COMMANDS = {"features": features, "transfer": transfer}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with a run's folder runs/A, and photos of two colors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net = vd.create("A", list("ab"), width=1 / 16, image_size=64, fc_width=16, initialization="he", seed=1)
    net.provenance = RunInfo(train_scales=(64, 96))
    vd.save(net, tmp_path / "runs" / "A" / "best.safetensors")
    rng = np.random.default_rng(3)
    for c, name in ((0, "red"), (2, "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            picture = rng.integers(0, 130, (66, 70 + i % 3, 3), dtype=np.uint8)
            picture[..., c] += 120
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{i}.jpg")
    return tmp_path


def run(name, *words, status=0):
    app = typer.Typer()
    app.command()(getattr(COMMANDS[name], name))
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_runs_as_it_stands(here, name):
    program, command, *words = shlex.split(COMMANDS[name].EXAMPLE)
    assert (program, command) == ("verydeep", name)
    shown = " ".join(run(name, "--help").output.replace("│", " ").split())
    assert COMMANDS[name].EXAMPLE in shown
    out = Path(words[words.index("--out") + 1])
    assert str(out) in run(name, *words).stdout
    assert out.exists()


def test_features_of_pictures_and_of_a_data_set(here):
    words = ("--weights", "runs/A", "--scales", "64")
    of_files = json.loads(run("features", "photos/red", *words, "--out", "red.parquet", "--json").stdout)
    assert of_files == {"file": "red.parquet", "rows": 12, "width": 16, "computed": 12}
    table = pq.read_table("red.parquet")
    assert set(table["label"].to_pylist()) == {-1}
    assert table["id"][0].as_py() == "photos/red/0.jpg"
    of_data = json.loads(run("features", "photos", *words, "--out", "all.parquet", "--json").stdout)
    assert of_data == {"file": "all.parquet", "rows": 24, "width": 16, "computed": 12}  # the red ones are known
    table = pq.read_table("all.parquet")
    assert set(table["split"].to_pylist()) == {"train", "val", "test"}
    assert "nothing had to be computed" in run("features", "photos", *words, "--out", "all.parquet").stdout


def test_damaged_pictures(here):
    (here / "photos" / "red" / "bad.jpg").write_bytes(b"no picture")
    words = ("--weights", "runs/A", "--scales", "64", "--out", "f.npy")
    with pytest.raises(UserError, match=r"bad\.jpg: not an image"):
        run("features", "photos/red", *words)
    assert not (here / "f.npy").exists()
    result = run("features", "photos/red", *words, "--on-bad-image", "skip", "--cache", "kept")
    assert "left out: photos/red/bad.jpg" in result.stderr
    assert np.load("f.npy").shape == (12, 16)


def test_transfer_in_words_and_as_json(here):
    words = ("--weights", "runs/A", "--data", "photos", "--scales", "64,96", "--out", "out")
    text = run("transfer", *words).stdout
    assert "A, fc7.relu@64,96, averaged" in text
    assert "classifier.safetensors (A, fc7.relu, descriptor@64,96)" in text
    assert "photos, 2 classes; 1 split of 16 images to train on, 4 to choose C on, 4 to test on" in text
    found = json.loads(run("transfer", *words, "--json").stdout)
    assert found["systems"][0]["merit"] > 0.7
    assert found["identity"]["scales"] == [64, 96]


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("features", ("photos", "--weights", "runs/B", "--out", "f.parquet"), "runs/B: no such weights file or run"),
        ("features", ("photos", "--weights", "runs/A", "--out", "f.txt"), "ends in .parquet or .npy"),
        ("features", ("gone", "--weights", "runs/A", "--out", "f.npy"), "gone"),
        ("features", ("photos", "--weights", "runs/A", "--out", "f.npy", "--scales", "a"), "expected whole numbers"),
        ("transfer", ("--data", "photos", "--out", "o"), "--weights: a network is needed"),
        ("transfer", ("--weights", "runs/A", "--data", "gone", "--out", "o"), "gone: no such folder"),
        ("transfer", ("--weights", "runs/A", "--data", "photos", "--out", "o", "--folds", "40"), "folds need 40"),
    ],
)
def test_wrong_words_are_refused(here, name, words, said):
    before = set(here.iterdir())
    with pytest.raises(UserError, match=said):
        run(name, *words)
    assert set(here.iterdir()) == before
