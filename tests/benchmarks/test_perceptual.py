"""The benchmark of LPIPS does what it says, where the peers are; how fast is not tested."""

import json
import shlex
import subprocess
import sys

import pytest

from benchmarks import commands as bench
from benchmarks import perceptual_peers as peers
from verydeep.basics.errors import UserError


@pytest.mark.large
def test_the_example_of_the_help_runs() -> None:
    try:
        peers.use()
    except UserError as error:
        pytest.skip(str(error))
    assert bench.perceptual.__doc__ is not None
    (example,) = [line for line in bench.perceptual.__doc__.splitlines() if "Example:" in line]
    words = shlex.split(example.split(":", 1)[1])[1:]
    done = subprocess.run([sys.executable, "-m", "verydeep", *words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [(row["task"], row["way"]) for row in result["rows"]] == [
        ("loss", "verydeep"),
        ("loss", "lpips"),
        ("metric", "verydeep"),
        ("metric", "lpips"),
        ("metric", "pyiqa"),
    ]
    assert all(row["seconds"] > 0 and row["peak_memory"] > 0 for row in result["rows"])


def test_without_the_peers_it_says_how_to_get_them(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="pip install --no-deps --target"):
        peers.use()
