"""Pictures compared in bands: what a call gives for the whole ones, within a limit of memory."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch

import verydeep as vd
from tests.perceptual.test_features import ENGINES
from verydeep.basics.errors import UserError
from verydeep.basics.memory import resident
from verydeep.checkpoints.inputs import TORCHVISION
from verydeep.perceptual import in_bands
from verydeep.scoremaps import plan

LAYERS = {"conv1_2": 0.5, "conv1_2.relu": 1.0, "pool1": 1.0, "conv2_2.relu": 2.0, "pool3": 1.0}
"""Either side of a ReLU and of a pool: parts without a convolution of their own."""

METRICS = {
    "lpips": lambda net, fitted, **to: vd.LPIPS(net, fitted.lpips, **to),
    "dists": lambda net, fitted, **to: vd.DISTS(net, fitted.dists, **to),
    "content": lambda net, fitted, **to: vd.ContentLoss(net, **to),
    "l1": lambda net, fitted, **to: vd.PerceptualLoss(net, LAYERS, **to),
    "gram": lambda net, fitted, **to: vd.StyleLoss(net, **to),
    "mean-variance": lambda net, fitted, **to: vd.StyleLoss(net, statistic="mean-variance", **to),
}


@pytest.fixture
def images(rng):
    """Two pictures of odd sides, a little different."""
    first = rng.integers(0, 256, (73, 107, 3))
    return [np.clip(first + rng.integers(-k, k + 1, first.shape), 0, 255).astype(np.uint8) for k in (0, 40)]


def _whole(metric, images):
    with torch.no_grad():
        return float(metric(*(torch.from_numpy(x).permute(2, 0, 1)[None] for x in images)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("strips", "round_up"), [(1, False), (3, True)])
def test_bands_are_the_whole(metric, strips, round_up, net, fitted, images, monkeypatch):
    """In float64, where the order of sums hides nothing: places lost or counted twice would be off by 1e-3."""
    make = in_bands.make_plan

    def cut(dense, height, width, wanted, *given, **more):
        parts = tuple(piece for part in wanted for piece in plan._strips(part, strips))
        return replace(make(dense, height, width, wanted, *given, **more), parts=parts, work=0, band=1)

    monkeypatch.setattr(in_bands, "make_plan", cut)
    net.preprocessing = replace(TORCHVISION, pool_round_up=round_up)
    metric = METRICS[metric](net, fitted, range=(0, 255)).double()
    expected = _whole(metric, [x.astype(np.float64) for x in images])
    assert vd.distance_in_bands(metric, *images) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("engine", ENGINES)
def test_in_float32(metric, engine, net, fitted, images):
    metric = METRICS[metric](net, fitted, range=(0, 255), engine=engine)
    assert vd.distance_in_bands(metric, *images) == pytest.approx(_whole(metric, images), rel=2e-5)


def test_what_cannot_be_compared(net, images):
    metric = vd.ContentLoss(net)
    with pytest.raises(UserError, match="107 x 73 and 106 x 73 pixels; expected one size"):
        vd.distance_in_bands(metric, images[0], images[1][:, 1:])
    with pytest.raises(UserError, match="too small"):
        vd.distance_in_bands(metric, *(x[:7, :7] for x in images))
    with pytest.raises(
        UserError, match=r"1 MiB are too little for even one row .* least that works here is \d+MiB"
    ) as told:
        vd.distance_in_bands(metric, *images, memory=2**20)
    least = int(str(told.value).split()[-1].removesuffix("MiB"))
    vd.distance_in_bands(metric, *images, memory=(least + 8) * 2**20)  # 8: what the process itself has grown by since


def _serve(connection, folder):
    """Compare pictures that lie in files within limits, and send what the process held at most after each."""
    net = vd.trunk(f"{folder}/trunk.safetensors")
    metric = vd.LPIPS(net, f"{folder}/vgg.pth", range=(0, 255))
    pictures = [f"{folder}/{name}.npy" for name in ("picture", "reference")]
    room = -in_bands.within(0, torch.device("cpu"))
    results = []
    for limit in (room + 16 * 2**20, room + 40 * 2**20):
        results.append((limit, vd.distance_in_bands(metric, *pictures, memory=limit), resident(peak=True)))
    both = [torch.from_numpy(np.load(path)).permute(2, 0, 1)[None] for path in pictures]
    with torch.no_grad():
        results.append((None, float(metric(*both)), resident(peak=True)))
    connection.send(results)


def test_a_process_holds_no_more_than_its_limit(net, fitted, rng, tmp_path):
    """As the system counts it: first in strips, then in bands of whole rows; a call takes several times as much."""
    vd.save(net, tmp_path / "trunk.safetensors")
    for name in ("picture", "reference"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (320, 1600, 3), dtype=np.uint8))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, tmp_path))
    process.start()
    there.close()
    (small, first, held), (large, second, then), (_, whole, most) = here.recv()
    process.join()

    assert held <= small
    assert then <= large
    assert most > large + 10 * 2**20
    assert first == pytest.approx(whole, rel=2e-5)
    assert second == pytest.approx(whole, rel=2e-5)
