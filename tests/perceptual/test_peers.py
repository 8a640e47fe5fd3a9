"""The published programs themselves, full size, with the same random trunk: values and gradients to a millionth."""

import pytest
import torch

import verydeep as vd
from benchmarks import perceptual_peers as peers
from verydeep.basics.errors import UserError
from verydeep.checkpoints.inputs import TORCHVISION

pytestmark = pytest.mark.large


@pytest.fixture(scope="module", autouse=True)
def _there():
    try:
        peers.use()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(torch.initial_seed() + 1)
    return vd.create("D", 0, trunk="pool5", preprocessing=TORCHVISION, initialization="he").eval()


@pytest.fixture
def pair():
    first = torch.rand(2, 3, 97, 74)
    return first, (first + 0.2 * torch.randn_like(first)).clamp(0, 1)


CASES = {
    "lpips": (peers.lpips, vd.LPIPS),
    "pyiqa's lpips": (peers.pyiqa_lpips, vd.LPIPS),
    "dists-pytorch": (peers.dists, vd.DISTS),
    "pyiqa's dists": (peers.pyiqa_dists, vd.DISTS),
}


@pytest.mark.parametrize("name", CASES)
def test_metrics(name, net, pair):
    make, ours = CASES[name]
    module, theirs = make(net)
    with torch.no_grad():
        expected = theirs(*pair)
        for engine in ("torch", "auto"):
            assert (ours(net, engine=engine)(*pair) - expected).abs().max() < 1e-6
    module.double()
    x, y = (pair[0].double().requires_grad_() for _ in range(2))
    found = ours(net).double()(x, pair[1].double())
    expected = theirs(y, pair[1].double())
    assert (found - expected).abs().max() < 1e-7  # their constants are float32
    found.sum().backward()
    expected.sum().backward()
    assert float((x.grad - y.grad).norm() / y.grad.norm()) < 1e-4


def test_maps_of_lpips(net, pair):
    module, _ = peers.lpips(net)
    module.spatial = True
    with torch.no_grad():
        expected = module.double()(*(x.double() for x in pair), normalize=True)
        assert (vd.LPIPS(net).spatial(*pair) - expected).abs().max() < 1e-5
        assert (vd.LPIPS(net).double().spatial(*(x.double() for x in pair)) - expected).abs().max() < 1e-7


@pytest.mark.parametrize(("norm", "distance"), [("l1", "mae"), ("l2", "mse")])
def test_losses_of_layers(net, pair, norm, distance):
    from piq import ContentLoss

    theirs = peers.torchvisions(net)
    number = {"conv1_2.relu": "3", "conv2_1": "5", "conv4_2.relu": "20"}  # of torchvision's layers
    weights = dict(zip(number, (0.5, 2.0, 1.0), strict=True))
    words = {"weights": list(weights.values()), "reduction": "none", "distance": distance}

    def ours(names):
        # Theirs sums over channels what ours averages.
        width = {"conv1_2.relu": 64, "conv4_2.relu": 512}
        layers = {name: weight * width.get(name, 128) for name, weight in zip(names, weights.values(), strict=True)}
        return vd.PerceptualLoss(net, layers, norm)(*pair)

    # torchvision's ReLUs work in place: what is asked of piq before a ReLU, it gives behind it.
    expected = ContentLoss(theirs, layers=list(number.values()), **words)(*pair)
    torch.testing.assert_close(ours(["conv1_2.relu", "conv2_1.relu", "conv4_2.relu"]), expected, rtol=1e-5, atol=0)
    for module in theirs.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    expected = ContentLoss(theirs, layers=list(number.values()), **words)(*pair)
    torch.testing.assert_close(ours(number), expected, rtol=1e-5, atol=0)


def test_losses_of_style(net, pair):
    from piq import StyleLoss

    for layer, number, places in (("conv1_2.relu", "3", 97 * 74), ("conv2_1.relu", "6", 48 * 37)):
        theirs = StyleLoss(peers.torchvisions(net), layers=[number], weights=[1.0])
        theirs.reduction = "none"
        # Theirs is the mean over the matrix, where Gatys et al. divide its sum by 4 C^2 M^2.
        found = vd.StyleLoss(net, {layer: 1.0})(*pair) * 4 * places**2
        torch.testing.assert_close(found, theirs(*pair).flatten(), rtol=1e-5, atol=0)


def test_a_metric_of_torchmetrics(net, pair):
    from torchmetrics import Metric, MetricCollection

    measure = vd.LPIPS(net)
    metric = vd.as_torchmetric(measure)
    assert isinstance(metric, Metric)
    together = MetricCollection({"lpips": metric, "dists": vd.as_torchmetric(vd.DISTS(net))})
    with torch.no_grad():
        expected = measure(*pair)
        together.update(*pair)
        together.update(pair[0][:1], pair[0][:1])
        found = together.compute()
    torch.testing.assert_close(found["lpips"], expected.sum() / 3)
    assert 0 < found["dists"] < 1
    together.reset()
    x = pair[0].clone().requires_grad_()
    metric(x, pair[1]).backward()
    assert x.grad.abs().sum() > 0
