"""From views to posteriors, against a float64 network in numpy and literal loops over locations and windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from verydeep.basics.errors import UserError
from verydeep.inference.forward import Forward
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime

DENSE = Protocol("dense", (64,))
PLENTY = Runtime("cpu", engine="torch")


def _picture(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["A", "C", "B-5x5"])
@pytest.mark.parametrize("rounding", ["up", "down"])
def test_score_map_is_that_of_a_float64_network(make_net, reference, rng, name, rounding):
    net, picture = make_net(name), _picture(rng, 75, 133)
    expected = reference(net, picture, rounding == "up")
    found = Forward(net, Options(pool_rounding=rounding), PLENTY).score_maps([picture])[0].numpy()
    assert found.shape == expected.shape == ((8, 2, 4) if rounding == "up" else (8, 1, 3))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_dense_is_the_soft_max_of_the_mean_score_then_the_mean_over_the_flip(
    make_net, reference, reference_softmax, rng
):
    net, picture = make_net(), _picture(rng, 64, 130)
    views = [reference(net, picture), reference(net, picture[:, ::-1])]
    expected = sum(reference_softmax(scores.mean(axis=(1, 2))) for scores in views) / 2
    found = Forward(net, Options(), PLENTY).posteriors(DENSE, [picture])
    np.testing.assert_allclose(found, expected[None], atol=1e-5)


def test_soft_max_at_each_location_is_a_literal_loop(make_net, reference, reference_softmax, rng):
    net, picture = make_net(), _picture(rng, 64, 130)
    posteriors = []
    for view in (picture, picture[:, ::-1]):
        scores = reference(net, view)
        for i in range(scores.shape[1]):
            for j in range(scores.shape[2]):
                posteriors.append(reference_softmax(scores[:, i, j]))
    found = Forward(net, Options(softmax="location"), PLENTY).posteriors(DENSE, [picture])
    np.testing.assert_allclose(found[0], np.mean(posteriors, axis=0), atol=1e-5)
    assert np.abs(found - Forward(net, Options(), PLENTY).posteriors(DENSE, [picture])).max() > 1e-3


def test_spatial_max_is_taken_of_each_class(make_net, reference, reference_softmax, rng):
    net, picture = make_net(), _picture(rng, 64, 130)
    views = [reference(net, picture), reference(net, picture[:, ::-1])]
    expected = sum(reference_softmax(scores.max(axis=(1, 2))) for scores in views) / 2
    found = Forward(net, Options(pool="max"), PLENTY).posteriors(DENSE, [picture])
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_without_padding_a_dense_map_is_every_window_by_itself(make_net, reference, rng):
    """A network whose 3x3 filters only use their center sees no padding: cell (i, j) is its window alone."""
    net = make_net("B")
    with torch.no_grad():
        for name, layer in net.named_children():
            if name.startswith("conv"):
                center = layer.weight[:, :, 1:2, 1:2] * 3
                layer.weight.zero_()
                layer.weight[:, :, 1:2, 1:2] = center
    picture = _picture(rng, 160, 224)
    forward = Forward(net, Options(), PLENTY)
    scores = forward.score_maps([picture])[0].numpy()
    assert scores.shape == (8, 4, 6)
    for i in range(4):
        for j in range(6):
            window = picture[32 * i : 32 * i + 64, 32 * j : 32 * j + 64]
            expected = reference(net, window)[:, 0, 0]
            np.testing.assert_allclose(scores[:, i, j], expected, atol=1e-4)
            np.testing.assert_allclose(forward.score_maps([window])[0, :, 0, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["center", "dense", "crops"])
def test_posteriors_do_not_depend_on_what_shares_a_batch(make_net, rng, kind):
    net = make_net()
    shape = (64, 64) if kind == "center" else (80, 100)
    pictures = [_picture(rng, *shape) for _ in range(5)]
    part = Protocol(kind, (80,))
    together = Forward(net, Options(), PLENTY).posteriors(part, pictures)
    for memory in (1, 3_000_000):
        forward = Forward(net, Options(), Runtime("cpu", "torch", memory))
        assert forward.at_once(64, 64) == (1 if memory == 1 else forward.at_once(64, 64))
        alone = np.concatenate([forward.posteriors(part, [picture]) for picture in pictures])
        np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)


def test_batches_keep_to_the_memory(make_net, monkeypatch, rng):
    net = make_net()
    seen = []
    original = net.activations
    monkeypatch.setattr(net, "activations", lambda x, *layers: seen.append(tuple(x.shape)) or original(x, *layers))
    forward = Forward(net, Options(), Runtime("cpu", "torch", 3_000_000))
    forward.posteriors(Protocol("crops", (80,)), [_picture(rng, 80, 100) for _ in range(3)])
    most = forward.at_once(64, 64)
    assert 1 < most < 150
    assert [shape[0] for shape in seen] == [most] * (150 // most) + ([150 % most] if 150 % most else [])


def test_bf16_is_close(make_net, rng):
    net, pictures = make_net(), [_picture(rng, 80, 100) for _ in range(4)]
    exact = Forward(net, Options(), PLENTY).posteriors(DENSE, pictures)
    low = Forward(net, Options(), replace(PLENTY, precision="bf16")).posteriors(DENSE, pictures)
    assert low.dtype == np.float32
    assert 0 < np.abs(low - exact).max() < 0.1


def test_the_network_is_left_as_it_was(make_net, rng):
    net = make_net()
    preprocessing = net.preprocessing
    net.train()
    forward = Forward(net, Options(pool_rounding="down"), PLENTY)
    first = forward.posteriors(DENSE, [_picture(rng, 70, 90)])
    assert net.training
    assert net.preprocessing is preprocessing
    assert forward.least_size == 64
    assert Forward(net, Options(), PLENTY).least_size == 33
    assert np.isfinite(first).all()


def test_the_options_record_the_rounding_that_was_used(make_net):
    assert Forward(make_net(), Options(), PLENTY).options.pool_rounding == "up"
    assert Forward(make_net(), Options(pool_rounding="down"), PLENTY).options.pool_rounding == "down"


def test_a_diverged_network_is_named(make_net, rng):
    net = make_net()
    with torch.no_grad():
        net.fc6.bias[0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        Forward(net, Options(), PLENTY).posteriors(DENSE, [_picture(rng, 64, 64)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softmax": "both"}, "softmax is 'both', expected image or location"),
        ({"pool_rounding": "ceil"}, "pool-rounding is 'ceil', expected up or down"),
        ({"softmax": "location", "pool": "max"}, "choose one"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)
