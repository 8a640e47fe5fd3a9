"""`verydeep explain` and its function: each method against its formula in float64; what is refused."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from typer.testing import CliRunner

import verydeep as vd
from tests.perceptual.test_explainers import CLASS, _grad_cam, _gradient, _Guided
from verydeep.basics.errors import UserError
from verydeep.cli.explain import EXAMPLE
from verydeep.cli.main import app
from verydeep.images.rescale import rescale
from verydeep.nets.run_info import RunInfo
from verydeep.perceptual.explain import explain

SCALE, NAMES = 64, ["ant", "bee", "cat", "dog"]


@pytest.fixture
def net():
    net = vd.create("A", NAMES, width=1 / 8, image_size=64, fc_width=16, initialization="he").eval()
    net.provenance = RunInfo(train_scales=(SCALE, SCALE))
    return net


@pytest.fixture
def original(rng):
    return rng.integers(0, 256, (96, 144, 3), dtype=np.uint8)


@pytest.fixture
def captum():
    return pytest.importorskip("captum", reason="captum is not installed (make test installs it)")


def _score(net, x):
    with torch.no_grad():
        return float(net(x)[0, CLASS])


def _close(found, expected):
    expected = expected.numpy()
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.filterwarnings("error::UserWarning:captum")
def test_each_method_is_its_formula(captum, net, original):
    net.double()
    found = {
        method: explain(net, original, SCALE, method, NAMES[CLASS])
        for method in ("grad-cam", "guided", "integrated", "occlusion")
    }
    picture = rescale(original, SCALE)
    for shown, name, _ in found.values():
        np.testing.assert_array_equal(shown, picture)
        assert name == "cat"
    x = net.preprocessing(torch.from_numpy(picture)[None]).double()
    black = net.preprocessing(torch.zeros(1, *picture.shape, dtype=torch.uint8)).double()
    cam = _grad_cam(net, x, "conv5_2.relu")
    _close(found["grad-cam"][2], F.interpolate(cam, x.shape[2:], mode="bilinear")[0, 0])
    _close(found["guided"][2], _gradient(net, x, _Guided.apply)[0].abs().amax(0))
    nodes, weights = np.polynomial.legendre.leggauss(50)
    slopes = [
        w / 2 * _gradient(net, black + (n + 1) / 2 * (x - black), F.relu) for n, w in zip(nodes, weights, strict=True)
    ]
    _close(found["integrated"][2], ((x - black) * sum(slopes))[0].sum(0))
    side, step = 9, 4  # of a network for 64 pixels
    losses, counts = torch.zeros(x.shape[2:]), torch.zeros(x.shape[2:])
    for row in range(0, x.shape[2] - side + step, step):
        for column in range(0, x.shape[3] - side + step, step):
            where = slice(row, row + side), slice(column, column + side)
            hidden = x.clone()
            hidden[:, :, where[0], where[1]] = 0
            losses[where] += _score(net, x) - _score(net, hidden)
            counts[where] += 1
    _close(found["occlusion"][2], losses / counts)


def test_the_example_of_the_help(captum, net, original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/A").mkdir(parents=True)
    vd.save(net, "runs/A/best.safetensors")
    Image.fromarray(original).save("photo.jpg")
    program, *words = shlex.split(EXAMPLE)
    assert program == "verydeep"
    result = CliRunner().invoke(app, [*words, "--class", "bee"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "why.png: bee, integrated at scale 64"
    assert Image.open("why.png").size[0] > 500
    best = vd.predict(net, "photo.jpg", top=1).top[0][0]
    assert f"why.png: {best}, " in CliRunner().invoke(app, words).stdout
    for more, message in (("--class cow", "the network has 4 others"), ("--memory 300KiB", "--memory allows")):
        result = CliRunner().invoke(app, [*words, *more.split()])
        assert message in f"{result.exception}{result.stderr}"
        assert result.exit_code in (1, 2)


def test_what_is_refused(net, original, monkeypatch):
    with pytest.raises(UserError, match="expected one of grad-cam"):
        explain(net, original, SCALE, "magic")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"pip install 'verydeep\[explain\]'"):
        explain(net, original, SCALE, "guided")
