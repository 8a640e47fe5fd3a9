"""Batch norm in training by the native library: against torch's own in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.engines.test_training import USABLE, decided
from verydeep.engines.normalization import normalize

HOW = [(False, False), (True, False), (True, True)]
"""Pool, and whether it rounds up."""


def norm_of(channels, **options):
    norm = nn.BatchNorm2d(channels, **options)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    return norm


def check(x, norm, how, processor=None, allowed=1e-5):
    """The result, all gradients and the running statistics, where rounding decides neither a ReLU nor a pool."""
    other, double = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    sums = other(double)
    expected = F.max_pool2d(sums.relu(), 2, 2, ceil_mode=how[1]) if how[0] else sums.relu()
    found = normalize(x, norm, *how, processor)
    assert found.shape == expected.shape
    gradient = torch.randn(found.shape) * decided(sums.detach(), *how)
    pairs = [(found, expected), (norm.running_mean, other.running_mean), (norm.running_var, other.running_var)]
    pairs += zip(
        torch.autograd.grad(found, (x, norm.weight, norm.bias), gradient),
        torch.autograd.grad(expected, (double, other.weight, other.bias), gradient.double()),
        strict=True,
    )
    for one, truth in pairs:
        assert one.shape == truth.shape
        assert float((one - truth).detach().norm()) <= allowed * float(truth.detach().norm()) + 1e-6
    assert norm.num_batches_tracked == other.num_batches_tracked


@st.composite
def shapes(draw):
    how = draw(st.sampled_from(HOW))
    least = 2 if how[0] and not how[1] else 1
    return (draw(st.integers(2, 5)), draw(st.integers(1, 70)), *(draw(st.integers(least, 21)) for _ in range(2))), how


@settings(max_examples=40, deadline=None)
@given(shapes(), st.sampled_from(USABLE), st.integers(0, 2**31))
def test_any_shape_on_any_processor(shape, processor, seed):
    size, how = shape
    torch.manual_seed(seed)
    x = torch.randn(size, requires_grad=True)
    if x.numel() < 16 * x.shape[1]:  # of a few numbers the gradient is what is left of larger ones
        return
    check(x, norm_of(size[1], momentum=0.3), how, processor)


@pytest.mark.parametrize("how", HOW)
def test_many_chunks_and_a_plain_mean_of_statistics(how):
    check(torch.randn(6, 64, 57, 56, requires_grad=True), norm_of(64, momentum=None), how)


def test_a_mean_far_from_zero_costs_no_more_than_its_own_rounding():
    # At 100 deviations from 0 the input itself is rounded to 1e-5 of one, and so is what is added to it.
    x = (100 + torch.randn(8, 16, 40, 40)).requires_grad_()
    check(x, norm_of(16), (False, False), allowed=1e-4)


@pytest.mark.parametrize("how", HOW)
def test_any_number_of_threads_gives_the_same_bits(how):
    x, before, found = torch.randn(5, 40, 33, 34, requires_grad=True), torch.get_num_threads(), []
    norm, gradient = norm_of(40), None
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            y = normalize(x, one := copy.deepcopy(norm), *how)
            gradient = torch.randn(y.shape) if gradient is None else gradient
            gradients = torch.autograd.grad(y, (x, one.weight, one.bias), gradient)
            found.append((y, *gradients, one.running_mean, one.running_var))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
