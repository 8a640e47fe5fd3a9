"""Style transfer: what is sought against the paper's equations in float64, the search, what is refused."""

import numpy as np
import pytest
import torch

import verydeep as vd
from tests.perceptual import reference
from verydeep.basics.errors import UserError
from verydeep.perceptual import stylize as work
from verydeep.perceptual.features import Features
from verydeep.perceptual.losses import CONTENT, STYLE

STYLE_WEIGHT = 3.0


@pytest.fixture
def pictures(rng):
    """Content, of 40 x 52 pixels, and style, of another shape."""
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 52, 3), (70, 44, 3))]


def _formula(net, content, style, picture):
    """Equations 1 to 7 of a network whose layers are each divided by their mean over the picture given."""
    of_content, of_style, found = (reference.maps(net, x) for x in (content, style, picture))
    goal = of_content["conv4_2.relu"]
    total = ((found["conv4_2.relu"] - goal) / goal.mean()).pow(2).mean()
    for block in range(1, 6):
        a, b = (maps[f"conv{block}_1.relu"] / of_style[f"conv{block}_1.relu"].mean() for maps in (of_style, found))
        grams = [torch.einsum("chw,dhw->cd", x[0], x[0]) / x[0, 0].numel() for x in (a, b)]
        total = total + STYLE_WEIGHT / 5 * (grams[0] - grams[1]).pow(2).sum() / (4 * len(grams[0]) ** 2)
    return total


def test_what_is_sought_is_the_papers(net, pictures):
    content, style = (work._unit(picture).double() for picture in pictures)
    features = Features(net, sorted({*CONTENT, *STYLE}), engine="torch").double()
    aim = work.Aim.of(features, content, style, STYLE_WEIGHT)
    first, second = (torch.rand_like(content) for _ in range(2))
    second.copy_(first)
    found = aim.value(first.requires_grad_())
    expected = _formula(net, content, style, second.requires_grad_())
    torch.testing.assert_close(found, expected)
    for value in (found, expected):
        value.backward()
    torch.testing.assert_close(first.grad, second.grad)
    assert all(p.grad is None for p in net.parameters())


def test_it_runs_natively_to_the_same_gradient(net, pictures):
    content, style = (work._unit(picture) for picture in pictures)
    picture = torch.rand_like(content)
    slopes = []
    for engine, dtype in (("native", torch.float32), ("torch", torch.float64)):
        features = Features(net, sorted({*CONTENT, *STYLE}), engine=engine).to(dtype)
        aim = work.Aim.of(features, content.to(dtype), style.to(dtype), STYLE_WEIGHT)
        (slope,) = torch.autograd.grad(aim.value(given := picture.to(dtype).requires_grad_()), given)
        slopes.append(slope.double())
    assert float((slopes[0] - slopes[1]).norm() / slopes[1].norm()) < 1e-4


def test_of_one_shape_it_is_the_two_losses(net, rng):
    content, style, picture = (torch.rand(1, 3, 48, 40, dtype=torch.float64) for _ in range(3))
    features = Features(net, sorted({*CONTENT, *STYLE}), engine="torch").double()
    aim = work.Aim.of(features, content, style, STYLE_WEIGHT)
    losses = [
        vd.ContentLoss(net, {layer: aim.weights[layer] for layer in CONTENT}).double()(picture, content),
        vd.StyleLoss(net, {layer: aim.weights[layer] for layer in STYLE}).double()(picture, style),
    ]
    torch.testing.assert_close(aim.value(picture), sum(losses)[0])


def test_the_search_comes_near_and_stays_among_pictures(net, pictures):
    seen = []
    found = vd.stylize(net, *pictures, size=128, steps=15, style_weight=STYLE_WEIGHT, on_step=seen.append)
    assert (found.shape, found.dtype) == ((128, 166, 3), np.uint8)
    assert {picture.shape for picture in seen} == {(64, 83, 3), (128, 166, 3)}
    assert len(seen) <= 30
    np.testing.assert_array_equal(seen[-1], found)
    from verydeep.images.rescale import rescale

    content, style = (work._unit(rescale(picture, 128)) for picture in pictures)
    values = [float(_formula(net, content, style, x).detach()) for x in (torch.rand_like(content), work._unit(found))]
    assert values[1] < values[0] / 2


def test_the_seed_says_which_picture(net, pictures):
    first, again, other = (vd.stylize(net, *pictures, size=48, steps=3, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_sizes_double():
    assert [work.sides(size) for size in (48, 127, 128, 384)] == [[48], [127], [64, 128], [96, 192, 384]]


def test_who_watches_can_end_it(net, pictures):
    def stop(picture):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vd.stylize(net, *pictures, size=48, on_step=stop)


@pytest.mark.parametrize(
    "words", [{"size": 31}, {"steps": 0}, {"style_weight": 0}, {"style_weight": float("nan")}, {"seed": -1}]
)
def test_numbers_that_are_none(net, pictures, words):
    with pytest.raises(UserError, match="expected a size of at least 32, steps"):
        vd.stylize(net, *pictures, **words)


def test_a_network_without_the_layers(pictures):
    with pytest.raises(UserError, match=r"no layer 'conv4_1\.relu'"):
        vd.stylize(vd.trunk(vd.create("D", 0, width=1 / 16, trunk="conv4_1")), *pictures, size=48)
