"""The examples that `evaluate --help`, `fuse --help` and `predict --help` show are run as they stand."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.cli import evaluate, fuse, predict
from verydeep.datasets import open_dataset, scenes
from verydeep.nets.run_info import RunInfo

COMMANDS = {"evaluate": evaluate, "fuse": fuse, "predict": predict}


def _run_example(name):
    module = COMMANDS[name]
    app = typer.Typer()
    app.command()(getattr(module, name))
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("│", " ").split())
    assert module.EXAMPLE in shown
    program, command, *words = shlex.split(module.EXAMPLE)
    assert (program, command) == ("verydeep", name)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A run's folder runs/A, as `verydeep train` leaves it, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(scenes.COUNTS, "test", 30)
    classes = open_dataset("scenes", "test").classes
    net = vd.create("A", classes, width=1 / 16, image_size=64, fc_width=16, seed=1)
    net.provenance = RunInfo(seed=0, train_scales=(64, 64))
    vd.save(net, tmp_path / "runs" / "A" / "best.safetensors")
    return tmp_path


def test_evaluate(run_folder):
    out = _run_example("evaluate")
    assert "dense@64" in out
    assert len(vd.Posteriors.read(Path("posteriors/A/dense@64.parquet"))) == 30


def test_fuse(run_folder):
    for seed, name in enumerate("DE"):
        probabilities = np.random.default_rng(seed).dirichlet(np.ones(7), 12).astype(np.float32)
        part = vd.Posteriors(tuple(map(str, range(12))), np.arange(12) % 7, probabilities, tuple("abcdefg"))
        part.write(Path(f"posteriors/{name}/dense@64.parquet"))
    assert "McNemar" in _run_example("fuse")
    assert len(vd.Posteriors.read(Path("fused.parquet"))) == 12


def test_predict(run_folder):
    Image.fromarray(open_dataset("scenes", "test").image(0)).save("photo.jpg")
    assert "photo.jpg (dense@64)" in _run_example("predict")
    assert Path("heatmap.png").stat().st_size > 10_000
