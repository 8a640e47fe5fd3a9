"""Plain layers compute and measure what torch's own layers do, whatever their window, stride, padding and rounding."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from verydeep.engines.compiled import _parts, plan
from verydeep.nets.plain import least_size, plain_layers, sides, stride

CHAINS = st.lists(
    st.one_of(
        st.tuples(st.just("conv"), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.sampled_from([1, 2])),
        st.tuples(st.just("max"), st.integers(2, 4), st.integers(1, 3), st.integers(0, 1), st.just(1)),
        st.tuples(st.just("mean"), st.integers(1, 3), st.integers(1, 2), st.just(0), st.just(1)),
        st.tuples(st.just("relu"), st.just(1), st.just(1), st.just(0), st.just(1)),
    ),
    min_size=1,
    max_size=5,
)


def chain(rows: list[tuple[str, int, int, int, int]], round_up: bool) -> nn.Sequential:
    kinds = {
        "conv": lambda k, s, p, groups: nn.Conv2d(4, 4, k, s, p, groups=groups),
        "max": lambda k, s, p, _: nn.MaxPool2d(k, s, p, ceil_mode=round_up),
        "mean": lambda k, s, _, __: nn.AvgPool2d(k, s),
        "relu": lambda *_: nn.ReLU(),
    }
    return nn.Sequential(*(kinds[kind](*about) for kind, *about in rows)).eval()


def by_torch(net: nn.Module, side: int) -> torch.Tensor | None:
    try:
        with torch.no_grad():
            return net(torch.randn(2, 4, side, side + 1))
    except RuntimeError:
        return None  # nothing is left of so small a map


@settings(max_examples=150)
@given(CHAINS, st.booleans(), st.integers(1, 40))
def test_sides_are_torchs(rows: list[tuple[str, int, int, int, int]], round_up: bool, side: int) -> None:
    net = chain(rows, round_up)
    plain = plain_layers(net.named_children(), round_up)
    y, least = by_torch(net, side), least_size(plain)
    if side >= least:
        assert y is not None
        assert tuple(y.shape[2:]) == (sides(plain, side)[-1], sides(plain, side + 1)[-1])
    assert by_torch(net, least) is not None
    if least > 1:
        assert min(sides(plain, least - 1)) < 1
    with torch.no_grad():
        moved = stride(plain)
        larger = net(torch.zeros(1, 4, least + moved, least + moved))
    assert larger.shape[2] == sides(plain, least)[-1] + 1


@settings(max_examples=60)
@given(CHAINS, st.booleans(), st.integers(1, 24))
def test_the_engine_runs_what_torch_runs(rows: list[tuple[str, int, int, int, int]], up: bool, more: int) -> None:
    net = chain(rows, up)
    plain = plain_layers(net.named_children(), up)
    side = least_size(plain) + more
    assume(side < 400)
    x = torch.randn(2, 4, side, side + 3)
    with torch.no_grad():
        found = x
        for part in _parts(plan(plain), 4, None):
            found = part(found, up)
        expected = net.double()(x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max() + 1))


def test_what_no_record_stands_for_is_named() -> None:
    for module in (nn.AvgPool2d(3, padding=1), nn.AvgPool2d(3, ceil_mode=True), nn.Softmax()):
        with pytest.raises(TypeError, match=f"layer odd: a {type(module).__name__}"):
            plain_layers([("odd", module)], round_up=False)
