"""LPIPS, DISTS and the losses against their formulas in float64: values, gradients, both engines; what is refused."""

import copy
import sys
from types import SimpleNamespace

import pytest
import torch

import verydeep as vd
from tests.perceptual import reference
from tests.perceptual.test_features import ENGINES
from verydeep.basics.errors import UserError
from verydeep.perceptual import comparison
from verydeep.perceptual.torchmetric import _metric_class

LAYERS = {"conv1_2": 0.5, "conv2_2.relu": 2.0, "pool3": 1.0}


def _weighted(net, layers, difference):
    def value(a, b):
        first, second = reference.maps(net, a), reference.maps(net, b)
        return sum(weight * difference(first[layer], second[layer]) for layer, weight in layers.items())

    return value


@pytest.fixture(params=["lpips", "dists", "l1", "l2", "content", "gram", "mean-variance"])
def case(request, net, fitted):
    """How a metric is made, given an engine, and its formula."""
    alpha, beta = (array.flatten() for array in fitted.shares.values())
    lin = list(fitted.lin.values())
    style = dict.fromkeys([f"conv{block}_1.relu" for block in range(1, 6)], 0.2)
    mean = _weighted(net, {"conv4_2.relu": 1}, lambda a, b: (a - b).pow(2).mean((1, 2, 3)))
    cases = {
        "lpips": (lambda **to: vd.LPIPS(net, fitted.lpips, **to), lambda a, b: reference.lpips(net, a, b, lin)),
        "dists": (
            lambda **to: vd.DISTS(net, fitted.dists, **to),
            lambda a, b: reference.dists(net, a, b, alpha, beta),
        ),
        "l1": (
            lambda **to: vd.PerceptualLoss(net, LAYERS, **to),
            _weighted(net, LAYERS, lambda a, b: (a - b).abs().mean((1, 2, 3))),
        ),
        "l2": (
            lambda **to: vd.PerceptualLoss(net, LAYERS, "l2", **to),
            _weighted(net, LAYERS, lambda a, b: (a - b).pow(2).mean((1, 2, 3))),
        ),
        "content": (lambda **to: vd.ContentLoss(net, **to), mean),
        "gram": (lambda **to: vd.StyleLoss(net, **to), _weighted(net, style, reference.gram_loss)),
        "mean-variance": (
            lambda **to: vd.StyleLoss(net, statistic="mean-variance", **to),
            _weighted(net, style, reference.statistics_loss),
        ),
    }
    make, formula = cases[request.param]
    return SimpleNamespace(make=make, formula=formula)


@pytest.mark.parametrize("engine", ENGINES)
def test_values(case, pair, engine):
    expected = case.formula(*pair)
    with torch.no_grad():
        found = case.make(engine=engine)(*pair)
        exact = case.make(engine=engine).double()(*(x.double() for x in pair))
    assert (found.shape, found.dtype) == ((3,), torch.float32)
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_of_either_or_both(case, pair, engine, monkeypatch):
    at_once = 2 * 49 * 38 // min(2, torch.get_num_threads())  # two groups, of two pictures and of one
    monkeypatch.setitem(comparison.AT_ONCE, "cpu", at_once)
    metric, factors = case.make(engine=engine).double(), torch.randn(3).double()
    for wants in ((True, False), (False, True), (True, True)):
        ours = [x.double().requires_grad_(want) for x, want in zip(pair, wants, strict=True)]
        theirs = [x.detach().clone().requires_grad_(want) for x, want in zip(ours, wants, strict=True)]
        (factors * metric(*ours)).sum().backward()
        (factors * case.formula(*theirs)).sum().backward()
        for found, expected in zip(ours, theirs, strict=True):
            assert (found.grad is None) == (expected.grad is None)
            if expected.grad is not None:
                torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6, atol=1e-9 * expected.grad.abs().max())
    x = pair[0].clone().requires_grad_()  # in float32 the reference's maps are the native engine's
    metric = case.make(engine=engine)
    metric(x, pair[1]).sum().backward()
    y = pair[0].double().requires_grad_()
    case.formula(y, pair[1].double()).sum().backward()
    assert float((x.grad - y.grad).norm() / y.grad.norm()) < 1e-3
    assert all(p.grad is None for p in metric.features.net.parameters())


def test_the_same_picture_is_at_no_distance(case, pair):
    with torch.no_grad():
        assert case.make()(pair[0], pair[0]).tolist() == [0, 0, 0]


def test_flat_pictures_have_gradients_that_are_numbers(case):
    x = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    case.make()(x, torch.zeros_like(x)).sum().backward()
    assert x.grad.isfinite().all()


def test_half_precision_around_it_changes_nothing(case, pair):
    metric = case.make()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inside = metric(*pair)
    with torch.no_grad():
        torch.testing.assert_close(inside, metric(*pair), rtol=0, atol=0)


def test_it_says_what_it_is_of(case):
    about = case.make(range=(-1, 1)).provenance
    assert about["trunk"]["configuration"] == "D"
    assert len(about["trunk"]["sha256"]) == 64
    assert about["range"] == [-1, 1]
    assert "weights of unknown origin" in repr(case.make())


def test_pictures_of_other_shapes_are_refused(case, pair):
    metric = case.make()
    with pytest.raises(UserError, match="3 x 3 x 49 x 38 and 2 x 3 x 49 x 38; expected one shape"):
        metric(pair[0], pair[1][:2])
    with pytest.raises(UserError, match="the references have values from"):
        case.make()(pair[0], pair[1] * 255)


def test_within_a_module_it_has_no_parameters_and_leaves_nothing_in_checkpoints(case):
    model = torch.nn.ModuleDict({"loss": case.make(), "own": torch.nn.Linear(2, 2)})
    assert [*model.state_dict()] == ["own.weight", "own.bias"]
    assert len(list(model.parameters())) == 2
    copy.deepcopy(model).train()


@pytest.mark.parametrize("engine", ENGINES)
def test_lpips_says_where(net, pair, fitted, engine):
    metric = vd.LPIPS(net, fitted.lpips, engine=engine)
    with torch.no_grad():
        found = metric.spatial(*pair)
    maps = reference.lpips_maps(net, *pair, list(fitted.lin.values()))
    up = [torch.nn.functional.interpolate(m[:, None], (49, 38), mode="bilinear", align_corners=False) for m in maps]
    torch.testing.assert_close(found.double(), sum(up), rtol=1e-4, atol=1e-5)
    x = pair[0].clone().requires_grad_()
    metric.spatial(x, pair[1]).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["lpips", "dists"])
def test_fitted_weights_that_do_not_fit(kind, net, fitted, tmp_path):
    make, path = {"lpips": (vd.LPIPS, fitted.lpips), "dists": (vd.DISTS, fitted.dists)}[kind]
    arrays = torch.load(path, weights_only=True)
    first = next(iter(arrays))
    wrong = {
        rf"{first}: expected .*, found no such array": {k: v for k, v in arrays.items() if k != first},
        "another: expected no such array, found": {**arrays, "another": torch.zeros(2)},
        rf"{first}: expected .*, found \(1, 2, 1, 1\)": {**arrays, first: torch.zeros(1, 2, 1, 1)},
        "no finite numbers": {**arrays, first: arrays[first] / 0},
    }
    for message, content in wrong.items():
        torch.save(content, tmp_path / "wrong.pth")
        with pytest.raises(UserError, match=message):
            make(net, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match="no such file"):
        make(net, tmp_path / "none.pth")
    for other in (vd.create("E", 0, width=1 / 8, trunk="pool5"), vd.create("D", 0, trunk="pool5", batch_norm=True)):
        with pytest.raises(UserError, match="is defined by configuration D"):
            make(other, path)
    whole = make(net, path)
    assert whole.provenance["weights"]["file"] == path.name


def test_words_that_are_none(net):
    with pytest.raises(UserError, match="norm is"):
        vd.PerceptualLoss(net, LAYERS, "l3")
    with pytest.raises(UserError, match="statistic is"):
        vd.StyleLoss(net, statistic="median")
    for layers in ({"conv1_1": -1.0}, {"conv1_1": 0.0}, ["conv1_1"], {"conv1_1": float("nan")}):
        with pytest.raises(UserError, match="weights above 0"):
            vd.PerceptualLoss(net, layers)
    with pytest.raises(UserError, match="no layer"):
        vd.ContentLoss(net, {"conv7_1": 1.0})
    with pytest.raises(UserError, match="one or more"):
        vd.ContentLoss(net, {})


def test_weights_that_are_nowhere(net, monkeypatch):
    monkeypatch.setattr("verydeep.perceptual.fitted.find_spec", lambda name: None)
    for make in (vd.LPIPS, vd.DISTS):
        with pytest.raises(UserError, match="pip install --no-deps"):
            make(net)


def test_torchmetrics_is_asked_for_where_it_is_missing(net, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    _metric_class.cache_clear()
    with pytest.raises(UserError, match=r"verydeep\[metrics\]"):
        vd.as_torchmetric(vd.LPIPS(net, fitted.lpips))
