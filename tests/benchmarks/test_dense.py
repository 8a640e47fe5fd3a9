"""The benchmark of dense evaluation: both ways do what they say, and the figures hold together."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import verydeep as vd
from benchmarks import commands as bench
from benchmarks import dense
from verydeep.basics.errors import UserError
from verydeep.nets.geometry import macs


@pytest.fixture(scope="module")
def net():
    return vd.create("D", classes=12, width=1 / 16, fc_width=32, seed=3).eval()


def test_crops_are_the_windows_of_the_map_in_order(net):
    picture = dense.photograph(288)
    with torch.inference_mode():
        found = dense._crops(net, picture, batch=4)
        assert found.shape == dense._dense(net, picture).shape == (3, 3, 12)
        for i in range(3):
            for j in range(3):
                crop = picture[32 * i : 32 * i + 224, 32 * j : 32 * j + 224]
                expected = net(net.preprocessing(crop[None]))[0].numpy()
                np.testing.assert_allclose(found[i, j], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_cells_that_see_no_border_agree_and_others_do_not(net):
    with torch.inference_mode():
        assert dense._interior_difference(net) < 1e-4
        picture = dense.photograph(384)
        whole = dense._dense(net, picture)
        border = np.abs(whole - dense._crops(net, picture, 36)).max()
    assert border > 1e-2 * whole.std()


def test_the_example_of_the_help_runs():
    (example,) = [line for line in bench.dense.__doc__.splitlines() if "Example:" in line]
    result = CliRunner().invoke(bench.app, [*example.split()[3:], "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["windows"] == 36


def test_the_figures_hold_together():
    result = dense.run(repeats=2, side=256, width=1 / 16)
    (whole, crops), ratio = result["rows"], result["ratio"]
    assert result["windows"] == 4
    assert ratio == pytest.approx(crops["seconds"] / whole["seconds"]) == pytest.approx(whole["speed"])
    assert crops["batch"] in (4, 12, 36)
    assert 1 < result["multiply_add_ratio"] < 4
    assert result["interior_difference"] < 1e-4
    assert 0.5 < result["crop_correlation"] < 1
    assert result["machine"]["torch"] == torch.__version__


def test_the_papers_ratio_of_multiply_adds():
    net = vd.create("D", seed=0)
    assert 36 * macs(net, 224, 224) / macs(net, 384, 384) == pytest.approx(11.24, abs=0.005)


@pytest.mark.parametrize("wrong", [{"side": 192}, {"side": 385}, {"repeats": 0}])
def test_requests_without_sense_are_refused(wrong):
    with pytest.raises(UserError, match="multiple of 32"):
        dense.run(**wrong)
