"""The benchmark of a training step does what it says; how fast is not tested."""

import json
import shlex
import subprocess
import sys

import pytest
import torch

import verydeep as vd
from benchmarks import commands as bench
from benchmarks.training import FLOAT32, VARIANTS, Task, plain_vgg


def test_the_example_of_the_help_runs_and_all_variants_do_the_same_step() -> None:
    assert bench.training.__doc__ is not None
    (example,) = [line for line in bench.training.__doc__.splitlines() if "Example:" in line]
    program, *words = shlex.split(example.split(":", 1)[1])
    assert program == "verydeep"
    done = subprocess.run(
        [sys.executable, "-m", "verydeep", *words, "--repeats", "1", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    result = json.loads(done.stdout)
    measured = [row["variant"] for row in result["rows"]]
    assert sorted([*measured, *result["missing"]]) == sorted(VARIANTS)
    assert set(measured) <= set(words[-1].split(","))
    assert {"torch", "plain", "plain channels_last"} <= set(measured)
    assert result["loss_difference"] < 1e-3  # float32 sums in other orders
    assert all(row["seconds"] > 0 and row["peak_memory"] > 0 for row in result["rows"])
    mine, plain = result["rows"][0], [row for row in result["rows"] if row["variant"] in FLOAT32]
    assert result["time_ratio"] == pytest.approx(mine["seconds"] / min(row["seconds"] for row in plain))
    assert result["memory_ratio"] == pytest.approx(mine["peak_memory"] / min(row["peak_memory"] for row in plain))


def test_the_peer_is_vgg16() -> None:
    with torch.device("meta"):
        plain = plain_vgg(Task())
    assert sum(p.numel() for p in plain.parameters()) == 138_357_544
    net = vd.create("D", width=1 / 16, fc_width=256, dropout=0.0, initialization="he").eval()
    plain = plain_vgg(Task(width=1 / 16))
    for theirs, value in zip(plain.parameters(), net.parameters(), strict=True):
        theirs.data = value.data.reshape(theirs.shape)
    x = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(plain(x), net(x), rtol=1e-4, atol=1e-4)
