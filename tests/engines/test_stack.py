"""Layers in the native library against float64, at every shape of the paper's networks and at random ones."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.engines.library import PROCESSORS, best_processor
from verydeep.engines.stack import Kind, Stack, Step
from verydeep.nets.configurations import CONFIGURATIONS

USABLE = PROCESSORS[: PROCESSORS.index(best_processor()) + 1]


def step_of(kind, channels, out, kernel, **flags):
    weight = torch.randn(out, channels, kernel, kernel) * (2 / (channels * kernel**2)) ** 0.5
    return Step(kind, weight, torch.randn(out), **flags)


def expected_of(step, x, round_up):
    """The same by torch in float64."""
    x = x.double()
    if step.weight is not None:
        x = F.conv2d(x, step.weight.double(), step.bias.double(), padding=0 if step.kind == Kind.WINDOW else 1)
    x = F.relu(x) if step.relu else x
    return F.max_pool2d(x, 2, 2, ceil_mode=round_up) if step.pool or step.kind == Kind.POOL else x


def error(found, expected):
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def shapes_of_the_paper():
    """Channels in and out, and map sides at 224, of every 3x3 layer of A to E."""
    found = set()
    for name in "ABCDE":
        before, side = 3, 224
        for block in CONFIGURATIONS[name].blocks:
            for conv in block:
                if conv.kernel == 3:
                    found.add((before, conv.channels, side))
                before = conv.channels
            side //= 2
    return sorted(found)


@pytest.mark.parametrize(("channels", "out", "side"), shapes_of_the_paper())
def test_every_layer_of_the_paper(channels, out, side):
    # At a quarter of the larger maps, odd and not square, for time; the 14 x 14 ones whole, too.
    kind = Kind.FIRST if channels == 3 else Kind.WINOGRAD
    step = step_of(kind, channels, out, 3, relu=True, pool=kind == Kind.WINOGRAD)
    stack = Stack([step], channels)
    for batch, height, width in ((1, side if side == 14 else side // 4 + 1, side // 4 + 2), (3, 13, 7)):
        x = torch.randn(batch, channels, height, width)
        for round_up in (False, True):
            assert error(stack(x, round_up), expected_of(step, x, round_up)) < 5e-6


@st.composite
def layers(draw):
    kind = draw(st.sampled_from([*Kind]))
    channels = draw(st.integers(1, 15 if kind == Kind.FIRST else 70))
    out = channels if kind == Kind.POOL else draw(st.integers(1, 70))
    kernel = draw(st.integers(1, 4)) if kind == Kind.WINDOW else 3
    shape = draw(st.integers(1, 4)), channels, draw(st.integers(kernel, 30)), draw(st.integers(kernel, 30))
    flags = {"alone": draw(st.booleans())}
    if kind != Kind.POOL:
        flags["relu"] = draw(st.booleans())
    if kind == Kind.WINOGRAD:
        flags["pool"] = draw(st.booleans())
    if kind in (Kind.WINDOW, Kind.WINOGRAD):
        flags["low"] = draw(st.booleans())
    return kind, shape, out, kernel, flags, draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(layers(), st.sampled_from(USABLE), st.integers(0, 2**31))
def test_any_layer_on_any_processor(layer, processor, seed):
    kind, shape, out, kernel, flags, round_up = layer
    torch.manual_seed(seed)
    step = Step(kind, **flags) if kind == Kind.POOL else step_of(kind, shape[1], out, kernel, **flags)
    x = torch.randn(shape)
    found = Stack([step], shape[1], processor)(x, round_up)
    expected = expected_of(step, x, round_up)
    assert found.shape == expected.shape
    # Against the greatest value, for a ReLU may leave nothing to divide by; half precision keeps 11 bits, 16-bit
    # integers at least as many of a tile's greatest.
    allowed = 2e-3 if flags.get("low") else 2e-5
    assert float((found - expected).abs().max()) <= allowed * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("processor", USABLE)
@pytest.mark.parametrize("channels", [16, 64, 80, 512])
@pytest.mark.parametrize("signs", ["same", "opposite", "alternating"])
def test_no_sum_of_integers_overflows(processor, channels, signs):
    """The worst case: every pixel at the greatest value, every product of one sign, weights up to their bound."""
    weight = torch.zeros(20, channels, 3, 3)
    sign = torch.ones(channels) if signs != "alternating" else (-1.0) ** torch.arange(channels)
    weight[:, :, 1, 1] = sign
    weight[5:10] = sign[:, None, None]  # all nine
    weight[10:15, ::3] *= 1000  # few weights far above the others
    weight[15:] += 1e-3 * torch.randn(5, channels, 3, 3)
    x = (sign * (-1.0 if signs == "opposite" else 1.0))[None, :, None, None].expand(2, -1, 13, 10) * 1e4
    step = Step(Kind.WINOGRAD, weight, torch.zeros(20), low=True)
    found, expected = Stack([step], channels, processor)(x, False), expected_of(step, x, False)
    scale = expected.abs().amax(dim=(0, 2, 3), keepdim=True)
    assert float(((found - expected) / scale).abs().max()) < 1e-3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("processor", USABLE)
def test_what_is_no_number_does_not_become_one_in_integers(value, processor):
    step = step_of(Kind.WINOGRAD, 32, 16, 3, low=True)
    x = torch.randn(2, 32, 12, 12)
    x[1, 7, 6, 5] = value
    found = Stack([step], 32, processor)(x, False)
    assert bool(torch.isfinite(found[0]).all())
    assert not bool(torch.isfinite(found[1, :, 5:8, 4:7]).any())


def test_layers_in_a_row_pass_their_blocks_on():
    first, second = step_of(Kind.FIRST, 3, 24, 3, relu=True), step_of(Kind.WINOGRAD, 24, 40, 3, relu=True, pool=True)
    third, last = step_of(Kind.WINOGRAD, 40, 8, 3), step_of(Kind.WINDOW, 8, 5, 3)
    steps = [first, second, third, Step(Kind.POOL), last]
    x = torch.randn(2, 3, 29, 22)
    expected = x
    for step in steps:
        expected = expected_of(step, expected, True)
    assert error(Stack(steps, 3)(x, True), expected) < 1e-5


@pytest.mark.parametrize("processor", USABLE)
def test_one_thread_and_several_give_the_same_bits(processor):
    threads = torch.get_num_threads()
    steps = [step_of(Kind.FIRST, 3, 64, 3, relu=True), step_of(Kind.WINOGRAD, 64, 96, 3, relu=True, pool=True)]
    steps += [step_of(Kind.WINOGRAD, 96, 96, 3, pool=True, low=True), step_of(Kind.WINDOW, 96, 50, 3)]
    stack, x = Stack(steps, 3, processor), torch.randn(2, 3, 61, 47)
    try:
        found = []
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            found.append(stack(x, False))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_an_image_gives_the_same_bits_in_any_batch():
    steps = [step_of(Kind.FIRST, 3, 32, 3, relu=True), step_of(Kind.WINOGRAD, 32, 32, 3, relu=True, pool=True)]
    steps.append(step_of(Kind.WINOGRAD, 32, 32, 3, relu=True, low=True))
    stack, x = Stack([*steps, step_of(Kind.WINDOW, 32, 20, 2)], 3), torch.randn(20, 3, 18, 34)
    together = stack(x, False)
    assert all(torch.equal(stack(x[i : i + 1], False)[0], together[i]) for i in range(20))


def test_layouts_that_are_not_contiguous():
    step = step_of(Kind.WINOGRAD, 20, 17, 3)
    stack, whole = Stack([step], 20), torch.randn(2, 23, 40, 19)
    for x in (
        whole[:, 1:21, 3:],
        whole[:, :20].transpose(2, 3),
        whole[:, :20].contiguous(memory_format=torch.channels_last),
        whole.flatten()[1 : 1 + 20 * 9 * 9].view(1, 20, 9, 9),  # not aligned
        whole[:1, :1].expand(2, 20, 40, 19),
    ):
        assert error(stack(x, False), expected_of(step, x, False)) < 5e-6


def test_inputs_that_would_be_read_beyond_their_end_are_refused():
    stack = Stack([step_of(Kind.WINDOW, 16, 4, 3)], 16)
    for shape in ((1, 15, 5, 5), (1, 17, 5, 5), (0, 16, 5, 5), (1, 16, 2, 5), (1, 16, 5, 2), (1, 16, 0, 0)):
        with pytest.raises(ValueError, match="expected float32 with 16 channels"):
            stack(torch.zeros(shape), False)
    with pytest.raises(ValueError, match=r"torch\.float64"):
        stack(torch.zeros(1, 16, 5, 5).double(), False)


def test_a_processor_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="this machine runs portable"):
        Stack([Step(Kind.POOL)], 16, "quantum")


def test_float64_as_the_default_type_changes_nothing():
    step, x = step_of(Kind.WINOGRAD, 16, 16, 3), torch.randn(1, 16, 8, 8)
    torch.set_default_dtype(torch.float64)
    try:
        found = Stack([step], 16)(x, False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert error(found, expected_of(step, x, False)) < 5e-6


def test_the_operator_says_its_shape_to_the_compiler():
    stack = Stack([step_of(Kind.WINOGRAD, 16, 8, 3, pool=True)], 16)
    x = torch.randn(2, 16, 9, 11)
    torch.library.opcheck(
        torch.ops.verydeep.stack.default, (x, stack.number, True), test_utils=("test_schema", "test_faketensor")
    )


def test_a_stack_that_nobody_holds_is_freed():
    from verydeep.engines import stack as module

    number = Stack([Step(Kind.POOL)], 16).number
    gc.collect()
    assert number not in module._stacks


def test_weights_on_no_bias_and_other_types_are_taken():
    weight = torch.randn(8, 16, 3, 3)
    x = torch.randn(1, 16, 6, 6)
    found = Stack([Step(Kind.WINOGRAD, weight.double(), None)], 16)(x, False)
    assert error(found, F.conv2d(x.double(), weight.double(), padding=1)) < 5e-6


def test_public_names():
    assert vd.compile_cpu.__module__ == "verydeep.engines.compiled"
