"""`verydeep tables`, from files to print."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from verydeep.basics.errors import UserError
from verydeep.cli.tables import EXAMPLE, tables
from verydeep.evaluation.posteriors import Posteriors

app = typer.Typer()
app.command()(tables)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder `demo` with one network's posteriors, 5 of 20 images wrong."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(20) % 8
    detections = np.where(np.arange(20) < 5, labels + 1, labels) % 8
    about = {
        "configuration": "A",
        "train_scales": [36, 36],
        "weights_hash": "x",
        "protocol": "dense@36",
        "data": "scenes",
        "split": "test",
        "options": {"softmax": "image", "pool": "mean"},
    }
    probabilities = (0.05 + 0.6 * np.eye(8)[detections]).astype(np.float32)
    whole = Posteriors(tuple(map(str, range(20))), labels, probabilities, tuple("abcdefgh"), about)
    whole.write(tmp_path / "demo" / "posteriors" / "A" / "dense@36.parquet")
    return tmp_path / "demo"


def _run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_format_prints_the_figure(study) -> None:
    for form in ("text", "markdown", "csv", "json", "html"):
        assert "25.0" in _run(study, "--format", form)
    assert json.loads(_run(study, "--json")) == json.loads(_run(study, "--format", "json"))


def test_the_example_of_the_help_runs(study) -> None:
    assert EXAMPLE in " ".join(_run("--help").replace("│", " ").split())
    assert "| A | 36 | 36 |" in _run(*EXAMPLE.split()[2:])


def test_an_empty_folder_is_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="no posteriors"):
        _run(tmp_path)
