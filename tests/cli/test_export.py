"""`verydeep export`, from a run's folder to a file that another engine runs."""

import json
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.cli import export as module
from verydeep.exports import onnx_format
from verydeep.exports.export import MismatchError

app = typer.Typer()
app.command()(module.export)


@pytest.fixture(autouse=True)
def run_folder(tmp_path, monkeypatch):
    """A run's folder runs/A, as `verydeep train` leaves it, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    net = vd.create("A", list("abcdefg"), width=1 / 16, image_size=64, fc_width=16)
    vd.save(net, tmp_path / "runs" / "A" / "best.safetensors")


def _run(*words):
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_example_of_the_help_runs(rng):
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    assert module.EXAMPLE in shown
    program, command, *words = shlex.split(module.EXAMPLE)
    assert (program, command) == ("verydeep", "export")
    out = _run(*words)
    assert out.startswith("a.onnx (")
    assert "ONNX Runtime" in out
    assert "two photographs" in out
    assert [line.split()[:7] for line in out.splitlines() if " of " in line and " x " in line and "by" not in line] == [
        ["64", "x", "64", "1", "1", "of", "1"],
        ["64", "x", "64", "2", "2", "of", "2"],
        ["73", "x", "97", "2", "2", "of", "2"],
        ["110", "x", "146", "2", "2", "of", "2"],
    ]
    # The same posteriors as from `vd.predict`, for a picture that needs no rescaling.
    image = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    flip = np.stack([image, image[:, ::-1]])
    (posteriors, scores) = onnxruntime.InferenceSession("a.onnx").run(None, {"images": flip})
    expected = vd.predict("runs/A/best.safetensors", image, "dense@64").posterior
    assert np.abs(posteriors.mean(axis=0) - expected).max() < 1e-6 * max(1, np.abs(scores).max())  # sums in float32


def test_json_says_all_and_nothing_else_is_printed():
    Path("pictures").mkdir()
    Image.fromarray(np.arange(90 * 80 * 3, dtype=np.uint8).reshape(90, 80, 3)).save("pictures/a.png")
    words = "--format onnx --precision int8 --calibration pictures --tolerance 1 --json"
    values = json.loads(_run("runs/A", *words.split()))
    assert values["files"] == ["runs/A/best-int8.onnx"]
    assert Path(values["files"][0]).is_file()
    assert (values["input"], values["outputs"]) == ("pixels", ["scores", "score_map"])
    largest = max(found["posteriors"] for found in values["comparisons"])
    assert values["largest_difference"]["posteriors"] == largest
    assert 0 < largest <= 1
    sizes = [(found["height"], found["width"]) for found in values["comparisons"]]
    assert sizes == [(64, 64), (64, 64), (73, 97), (110, 146)]


def test_a_mismatch_fails_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(onnx_format, "runner", lambda path: lambda x: (np.zeros((len(x), 7), np.float32),) * 2)
    with pytest.raises((MismatchError, RuntimeError), match="expected"):
        _run("runs/A", "--format", "onnx")
    assert [path.name for path in Path("runs/A").iterdir()] == ["best.safetensors"]
