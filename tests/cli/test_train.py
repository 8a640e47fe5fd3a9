"""`verydeep train`, from words to a run's folder."""

import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli import train as module
from verydeep.datasets import scenes
from verydeep.training.recipe import load_recipe

app = typer.Typer()
app.command()(module.train)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and few scenes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(scenes.COUNTS, "train", 40)
    monkeypatch.setitem(scenes.COUNTS, "val", 20)
    return tmp_path


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_example_runs_as_it_stands(here: Path) -> None:
    program, command, *words = shlex.split(module.EXAMPLE)
    assert (program, command) == ("verydeep", "train")
    text = run(*words)
    assert "[optimizer]" in text  # the effective recipe
    assert f"{load_recipe('scenes').schedule.epochs} epochs" in text
    assert vd.load("runs/A/best.safetensors").classes == scenes.CLASSES


def test_json_and_a_changed_value(here: Path) -> None:
    words = ["--net", "A", "--data", "scenes", "--recipe", "scenes", "--out", "a", "--json"]
    found = json.loads(run(*words, "--set", "schedule.epochs=1", "--set", "precision=bf16"))
    assert found["epochs"] == 1
    assert 0 <= found["top5_error"] <= found["top1_error"] <= 1
    assert vd.load(found["weights"]).provenance.epochs == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--recipe", "scene"], "did you mean scenes"),
        (["--set", "schedule.epoch=1"], "nearest known one is schedule.epochs"),
        (["--net", "Z"], "no configuration 'Z'"),
        (["--data", "nowhere"], "nowhere"),
        (["--init-from", "nowhere"], "nowhere: no such weights file or run"),
        (["--device", "tpu"], "device 'tpu' is not available"),
    ],
)
def test_wrong_words_leave_nothing_behind(here: Path, change: list[str], said: str) -> None:
    words = ["--net", "A", "--data", "scenes", "--recipe", "scenes", "--out", "a"]
    with pytest.raises(UserError, match=said):
        run(*words, *change)
    assert not list(here.iterdir())
