"""Several processes, started as a person starts them: by torchrun."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from verydeep.basics.errors import UserError
from verydeep.basics.files import file_hash
from verydeep.training.log import read_log
from verydeep.training.parallel import Processes
from verydeep.training.train import train

from .conftest import tiny_recipe

Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def torchrun(tmp_path: Path) -> Torchrun:
    """Run `verydeep WORDS` in two processes; what each says stands in a file of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        logs = tmp_path / "logs"
        launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--local-addr=127.0.0.1"]
        launch += ["--rdzv-endpoint=127.0.0.1:0", "--redirects=3", f"--log-dir={logs}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, *launch, "-m", "verydeep", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return run


def said(folder: Path, rank: int, stream: str) -> str:
    """Return what a process of the latest start said; torch's own remarks left out."""
    files = (folder / "logs").glob(f"*/attempt_0/{rank}/{stream}.log")
    text = max(files, key=lambda path: path.stat().st_mtime_ns).read_text()
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def test_every_process_ends_well_and_only_the_first_speaks(colors: Path, tmp_path: Path, torchrun: Torchrun) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(tiny_recipe("schedule.epochs=2").to_toml())
    words = ("train", "--net=A", f"--data={colors}", f"--recipe={recipe}", f"--out={out}", "--workers=1")
    first = torchrun(*words)
    assert first.returncode == 0, first.stderr
    assert "2 epochs" in said(tmp_path, 0, "stdout")
    assert "epoch   2/2" in said(tmp_path, 0, "stderr")
    assert said(tmp_path, 1, "stdout") == said(tmp_path, 1, "stderr") == ""
    epochs = read_log(out, "epoch")
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(0 <= line["train_error"] <= 1 for line in epochs)

    before = {path.name: file_hash(path) for path in out.iterdir() if path.is_file()}
    second = torchrun(*words)
    assert second.returncode == 0, second.stderr
    assert "2 epochs" in said(tmp_path, 0, "stdout")
    assert said(tmp_path, 0, "stderr") == ""  # nothing is trained
    assert said(tmp_path, 1, "stdout") == said(tmp_path, 1, "stderr") == ""
    assert before == {path.name: file_hash(path) for path in out.iterdir() if path.is_file()}
    # Of this processes' share of one, the same run: what two did counts as finished.
    assert train("A", colors, recipe, out, quiet=True).epochs == 2


def test_a_wrong_request_is_told_once_and_leaves_nothing(colors: Path, tmp_path: Path, torchrun: Torchrun) -> None:
    words = ("train", "--net=A", f"--data={colors}", "--recipe=scenes", f"--out={tmp_path / 'run'}")
    found = torchrun(*words, "--set=schedule.epoch=3")
    assert found.returncode != 0
    assert "exitcode  : 2 " in found.stderr, found.stderr  # torchrun may end the other one itself
    assert said(tmp_path, 0, "stderr").count("nearest known one is schedule.epochs") == 1
    assert said(tmp_path, 1, "stderr") == ""
    assert not (tmp_path / "run").exists()


def test_one_process_alone_has_nobody_to_ask() -> None:
    alone = Processes()
    assert alone.mean(3.0, 4.0) == [3.0, 4.0]
    assert alone.share("word") == "word"
    with pytest.raises(UserError, match="as it is"), alone.agreed():
        raise UserError("as it is")
