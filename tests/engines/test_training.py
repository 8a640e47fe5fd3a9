"""3x3 convolutions in training by the native library: against torch's own gradients in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import verydeep as vd
from verydeep.engines.library import PROCESSORS, best_processor
from verydeep.engines.training import convolve, run_natively
from verydeep.nets.config import SegmentationConfig
from verydeep.training.parallel import Processes
from verydeep.training.recipe import load_recipe
from verydeep.training.step import Stepper, make_optimizer

USABLE = PROCESSORS[: PROCESSORS.index(best_processor()) + 1]
HOW = [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]
"""ReLU, pool, and whether it rounds up."""


def layer(channels, out):
    weight = torch.randn(out, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
    return weight.requires_grad_(), torch.randn(out).requires_grad_()


def in_float64(x, weight, bias, how):
    """Return the result, and where no rounding decides: neither a ReLU's sign nor a pool's winner."""
    rectify, pool, up = how
    z = F.conv2d(x, weight, bias, padding=1)
    if not rectify:
        return z, torch.ones_like(z, dtype=torch.bool)
    y = F.max_pool2d(F.relu(z), 2, 2, ceil_mode=up) if pool else F.relu(z)
    return y, decided(z.detach(), pool, up)


def decided(sums, pool, up):
    """Return where no rounding of what comes before ReLU and pool decides."""
    near = 1e-4 * sums.abs().max()
    if not pool:
        return sums.abs() > near
    lines, columns = (-side % 2 if up else -(side % 2) for side in sums.shape[2:])
    cells = F.pad(sums, (0, columns, 0, lines), value=-torch.inf).unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    first, second = cells.topk(2).values.unbind(-1)
    return (first.abs() > near) & ((first - second > near) | (first < 0))


def check(x, weight, bias, how, processor=None, allowed=1e-5):
    """The result and all gradients, in norm, where rounding decides nothing."""
    doubles = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    expected, sure = in_float64(*doubles, how)
    found = convolve(x, weight, bias, *how, processor)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    gradient = torch.randn(found.shape) * sure
    pairs = [(found, expected)]
    pairs += zip(
        torch.autograd.grad(found, (x, weight, bias), gradient),
        torch.autograd.grad(expected, doubles, gradient.double()),
        strict=True,
    )
    for one, truth in pairs:
        assert one.shape == truth.shape
        assert float((one - truth).detach().norm()) <= allowed * float(truth.detach().norm()) + 1e-6


@st.composite
def shapes(draw):
    how = draw(st.sampled_from(HOW))
    least = 2 if how[1] and not how[2] else 1
    sides = draw(st.integers(least, 21)), draw(st.integers(least, 21))
    return (draw(st.integers(1, 4)), draw(st.integers(1, 70)), *sides), draw(st.integers(1, 70)), how


@settings(max_examples=40, deadline=None)
@given(shapes(), st.sampled_from(USABLE), st.integers(0, 2**31))
def test_any_shape_on_any_processor(shape, processor, seed):
    size, out, how = shape
    torch.manual_seed(seed)
    check(torch.randn(size, requires_grad=True), *layer(size[1], out), how, processor)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("channels", "out", "side"), [(3, 64, 56), (64, 128, 40), (256, 512, 14), (512, 512, 7)])
def test_layers_of_the_paper(channels, out, side, how):
    # In several chunks of tiles, and in one.
    check(torch.randn(3, channels, side, side + 1, requires_grad=True), *layer(channels, out), how)


@pytest.mark.parametrize("processor", USABLE)
def test_gradients_by_differences(processor):
    # A convolution is linear in each of its inputs, so that differences of any width are its gradients.
    inputs = (torch.randn(2, 3, 5, 6, requires_grad=True), *layer(3, 4))
    torch.autograd.gradcheck(
        lambda *given: convolve(*given, processor=processor).double(), inputs, eps=0.5, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("size", [(1, 40, 9, 9), (3, 64, 60, 60)])
def test_any_number_of_threads_gives_the_same_bits(size, how):
    x, (weight, bias) = torch.randn(size, requires_grad=True), layer(size[1], 48)
    gradient, before, found = None, torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            y = convolve(x, weight, bias, *how)
            gradient = torch.randn(y.shape) if gradient is None else gradient
            found.append((y, *torch.autograd.grad(y, (x, weight, bias), gradient)))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_only_what_is_asked_for_is_computed():
    x, (weight, bias) = torch.randn(1, 16, 8, 8), layer(16, 16)
    y = convolve(x, weight, bias, True)
    assert y.requires_grad
    assert torch.autograd.grad(y.sum(), weight)[0].shape == weight.shape
    x.requires_grad_()
    y = convolve(x, weight.detach(), bias.detach(), True)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
    assert not convolve(x.detach(), weight.detach(), None).requires_grad


def test_no_bias_and_any_layout():
    weight, _ = layer(20, 12)
    x = torch.randn(2, 9, 11, 20).permute(0, 3, 1, 2)
    laid_out = weight.detach().to(memory_format=torch.channels_last)
    expected = F.conv2d(x.double(), weight.detach().double(), padding=1)
    for kernel in (weight.detach(), laid_out):
        torch.testing.assert_close(convolve(x, kernel, None).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [("A", {}), ("D", {"batch_norm": True}), ("A-LRN", {}), ("C", {}), ("B-5x5", {}), ("A", {"width": 1 / 50})],
)
def test_networks_train_as_by_torch(name, options):
    options = {"width": 1 / 16, **options}
    net = vd.create(name, classes=5, fc_width=16, image_size=64, initialization="he", dropout=0.0, seed=1, **options)
    other = copy.deepcopy(net).double()
    x, labels = torch.randn(4, 3, 64, 64), torch.randint(0, 5, (4,))
    native, torches = run_natively(net, x, "fc8").mean(dim=(2, 3)), other(x.double())
    # Of all scores, not of each: one that happens to be near 0 is a difference of large numbers.
    assert (native - torches).norm() <= 1e-4 * torches.norm()
    F.cross_entropy(native, labels).backward()
    F.cross_entropy(torches, labels).backward()
    for (place, one), truth in zip(net.named_parameters(), other.parameters(), strict=True):
        # Rounding that turns a pool's winner changes a gradient by far more than rounding.
        most = 0.05 * truth.grad.norm() + 1e-5
        assert (one.grad - truth.grad).norm() <= most, place


@pytest.mark.parametrize(("head", "frozen"), [("8s", False), ("8s", True), ("32s", True)])
def test_networks_for_pixels_train_as_by_torch(head, frozen):
    options = {"width": 1 / 16, "fc_width": 16, "image_size": 64, "initialization": "he", "dropout": 0.0, "seed": 1}
    net = vd.create("B", 3, segmentation=SegmentationConfig(head, "map", (1.0, 1.0)), **options)
    rates = "{conv1 = 0, conv2 = 0, conv3 = 0}" if frozen else "{}"
    recipe = load_recipe("small-segment", ["engine=native", f"optimizer.layer_learning_rates={rates}"])
    stepper = Stepper(net, make_optimizer(net, recipe.optimizer), recipe, Processes())
    other = copy.deepcopy(net).double()
    x, labels = torch.randn(2, 3, 72, 100), torch.randint(0, 3, (2, 72, 100))
    (native,), (torches,) = stepper.forward(x), other.in_training(x.double())
    assert stepper.forward != net.in_training
    torch.testing.assert_close(native.double(), torches, rtol=1e-4, atol=1e-5 * float(torches.detach().abs().max()))
    F.cross_entropy(native, labels).backward()
    F.cross_entropy(torches, labels).backward()
    for (place, one), truth in zip(net.named_parameters(), other.parameters(), strict=True):
        assert (one.grad is None) == (truth.grad is None), place
        if one.grad is not None:
            assert (one.grad - truth.grad).norm() <= 0.05 * truth.grad.norm() + 1e-5, place
