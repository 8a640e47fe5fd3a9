"""The benchmarks of the engine: they compare like with like, and their figures hold together."""

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from typer.testing import CliRunner

from benchmarks import accuracy, inference, inference_chart, native_layers, native_memory, peers, winograd
from benchmarks import commands as bench
from verydeep.basics.errors import UserError, WorkError
from verydeep.cli import bench as bench_command
from verydeep.engines import library
from verydeep.nets.families import create
from verydeep.nets.geometry import macs

needs_library = pytest.mark.skipif(library.find() is None, reason=library.MISSING)


def in_own_process(function, *arguments):
    """For OpenVINO: a process in which it ran with several precisions dies of the next signal that it handles."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(function, *arguments).result()


def run_without_slow():
    slow = ("torch.compile", "openvino int8", "ncnn", "mnn")
    ways = inference._ways
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "_ways", lambda net: ways(net, without=slow))
        return inference.run("A", sizes=[(224, 224), (224, 256)], batches=(1, 2), repeats=3, width=1 / 16)


@pytest.fixture(scope="module")
def result():
    """A run without the runtimes that take their time to compile or convert; the help's example is one with all."""
    return in_own_process(run_without_slow)


def test_ratios_rates_and_differences(result):
    cases = [(row["height"], row["width_pixels"], row["batch"]) for row in result["rows"]]
    assert sorted(set(cases)) == [(224, 224, 1), (224, 224, 2), (224, 256, 1), (224, 256, 2)]
    net = create("A", width=1 / 16, fc_width=256)
    for case in set(cases):
        rows = {row["runtime"]: row for row, its in zip(result["rows"], cases, strict=True) if its == case}
        peers = [rows[name]["milliseconds"] for name in ("torch", "onnxruntime", "openvino", "opencv")]
        for name, row in rows.items():
            assert row["ratio"] == pytest.approx(min(peers) / row["milliseconds"])
            assert row["gflops"] == pytest.approx(2 * macs(net, *case[:2]) / row["milliseconds"] / 1e6)
            assert row["difference"] < inference._LOW.get(name, 1e-3)
        assert rows["torch"]["difference"] == 0
        assert rows["onnxruntime"]["difference"] > 0


def test_the_chart_shows_every_runtime(result, tmp_path):
    inference_chart.draw(result, tmp_path / "chart.svg")
    drawing = (tmp_path / "chart.svg").read_text()
    assert all(f"<!-- {row['runtime']} -->" in drawing for row in result["rows"])
    with pytest.raises(UserError, match=r"\.png or \.svg"):
        inference_chart.draw(result, tmp_path / "chart.gif")


def test_the_example_of_the_help_runs():
    (example,) = [line for line in bench.inference.__doc__.splitlines() if "Example:" in line]
    words = [sys.executable, "-m", *example.split()[1:], "--json"]
    outcome = subprocess.run(words, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    runtimes = {row["runtime"] for row in json.loads(outcome.stdout)["rows"]}
    assert {"torch", "torch.compile", "onnxruntime", "openvino", "openvino int8", "opencv", "ncnn", "mnn"} <= runtimes


def test_what_is_not_installed_is_named(monkeypatch):
    def refuse(net, *options):
        raise UserError("this needs openvino")

    for name in ("openvino", "onnxruntime", "opencv", "ncnn", "mnn"):
        monkeypatch.setattr(peers, name, refuse)
    monkeypatch.setattr(library, "find", lambda: None)
    ways, missing = inference._ways(create("A", width=1 / 16).eval())
    assert list(ways) == ["torch", "torch.compile"]
    assert missing["openvino"] == "this needs openvino"
    assert "was not built" in missing["native"]


def test_a_runtime_that_computes_something_else_is_not_timed():
    ways = {"torch": lambda x: x, "native": lambda x: x * 1.01}
    with pytest.raises(WorkError, match=r"native differs from torch by 1\.0e-02"):
        inference._agreement(ways, torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"batches": ()}, {"batches": (0,)}, {"sizes": [(8, 8)]}])
def test_requests_without_sense_are_refused(wrong):
    with pytest.raises(UserError):
        inference.run("A", width=1 / 16, **wrong)


@pytest.mark.parametrize("size", ["224x", "x", "a", "224,b"])
def test_sizes_that_are_none_are_refused(size):
    outcome = CliRunner().invoke(bench.app, ["inference", "--size", size])
    assert outcome.exit_code != 0
    assert isinstance(outcome.exception, UserError)


@needs_library
def test_every_layer_has_its_limit():
    found = native_layers.run("C", side=224, repeats=2, width=1 / 8)
    names = [row["layer"] for row in found["rows"]]
    assert names[:2] == ["conv1_1", "conv1_2"]
    assert names[-3:] == ["fc6", "fc7", "fc8"]
    assert names.count("pool") == 3  # those behind C's 1x1 layers; the others are run with the layer before
    for row in found["rows"]:
        assert row["share"] == pytest.approx(row["limit"] / row["milliseconds"])
        assert row["bound"] in ("arithmetic", "memory")


@needs_library
def test_the_engine_takes_its_packed_weights_and_little_more():
    """Of a network whose first fully connected layer outweighs all others."""
    net = create("A", width=1 / 4, fc_width=1024, classes=1000)
    weights = {name: 4 * p.numel() for name, p in net.named_parameters() if p.dim() == 4}
    found = native_memory.measure("A", 224, 1 / 4)
    convolutions = sum(size for name, size in weights.items() if name.startswith("conv") and name[4:7] != "1_1")
    connected = sum(size for name, size in weights.items() if name.startswith("fc"))
    # A 3x3 kernel becomes 36 numbers in place of 9; weights of matrix products are kept in 24 bits in place of 32.
    assert found["packed_weights"] == sum(weights.values()) + 3 * convolutions - connected // 4
    assert 0 < found["other_memory"] < native_memory.TARGET_MEMORY
    assert found["making_seconds"] > 0


@pytest.mark.parametrize("side", [2, 4, 6])
def test_winograds_filtering_is_a_convolution(side, monkeypatch):
    x, weight = torch.randn(2, 5, 13, 8), torch.randn(7, 5, 3, 3)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(winograd.convolve(x, weight, side).double(), expected, rtol=1e-3, atol=1e-3)
    rounded = winograd.convolve(x, weight, side, low=True).double()
    assert 1e-3 < float((rounded - expected).norm() / expected.norm()) < 0.2


def test_errors_grow_with_the_tile():
    rows = {row["way"]: row for row in winograd.run("A", side=64, width=1 / 8)["rows"]}
    assert rows["F(2x2) float32"]["block5"] < rows["F(4x4) float32"]["block5"] < rows["F(6x6) float32"]["block5"]
    assert rows["F(6x6) float32"]["block5"] < 1e-4 < rows["direct bf16"]["block5"] < rows["F(4x4) bf16"]["block5"]
    assert rows["F(4x4) float32"]["multiplications"] == 0.25
    with pytest.raises(UserError, match="other convolutions than 3x3"):
        winograd.run("C")


@pytest.fixture
def photographs(tmp_path, rng):
    for i in range(3):
        pixels = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


@needs_library
def test_accuracy_on_photographs(photographs):
    import verydeep as vd

    net = vd.create("A", classes=9, width=1 / 8, image_size=64, fc_width=32, initialization="he", seed=0)
    vd.save(net, photographs / "net.safetensors")
    found = in_own_process(accuracy.run, [photographs], photographs / "net.safetensors")
    rows = {row["way"]: row for row in found["rows"]}
    assert found["pictures"] == 3
    for row in rows.values():
        assert 0 < row["median"] <= row["greatest"] < accuracy.ALLOWED.get(row["way"], 1e-3), row
        assert row["same_ranking"] + row["ties"] + row["otherwise"] == 3
        assert row["otherwise"] == 0
    assert rows["torch"]["same_ranking"] == 3
    assert rows["native fixed16"]["greatest"] < rows["openvino bf16"]["greatest"] / 2


def test_a_ranking_is_a_tie_only_within_the_error_allowed():
    truth = torch.tensor([6.0, 5, 5 - 2e-3, 3, 2, 1]).double()  # two are 2e-4 of the norm apart
    swapped = truth[[0, 2, 1, 3, 4, 5]]
    other = truth[[1, 0, 2, 3, 4, 5]]
    truths = [truth] * 3
    scores = {"float64": truths, "torch": truths, "native": [truth, swapped, other]}
    scores["native fast"] = scores["native"]
    counts = [[accuracy._judge(way, scores)[key] for key in ("same_ranking", "ties", "otherwise")] for way in scores]
    assert counts == [[3, 0, 0], [3, 0, 0], [1, 0, 2], [1, 1, 1]]


def test_an_installed_package_says_where_benchmarks_are(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_command, "CHECKOUT", tmp_path)
    with pytest.raises(UserError, match="not part of the installed package; clone the project"):
        CliRunner().invoke(bench_command._commands(), catch_exceptions=False)
