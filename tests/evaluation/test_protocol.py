"""Names of protocols are read, written and refused as the grammar says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.basics.errors import UserError
from verydeep.inference.protocol import KINDS, Protocol

scales = st.lists(st.integers(1, 4096), min_size=1, max_size=6, unique=True)


@given(st.sampled_from(KINDS), scales)
def test_name_and_protocol_are_inverse(kind, sides):
    protocol = Protocol(kind, tuple(sides))
    assert Protocol.parse(str(protocol)) == protocol
    assert Protocol.parse(f" {kind}@{','.join(map(str, sides))}\n") == protocol
    assert list(protocol.scales) == sorted(sides)


@pytest.mark.parametrize(
    ("name", "kind", "sides"),
    [
        ("center@256", "center", (256,)),
        ("dense@384", "dense", (384,)),
        ("dense@512,256,384", "dense", (256, 384, 512)),
        ("crops@256,384,512", "crops", (256, 384, 512)),
        ("dense+crops@256,384,512", "dense+crops", (256, 384, 512)),
        ("ten-crops@256", "ten-crops", (256,)),
        ("square-crops@256,288,320,352", "square-crops", (256, 288, 320, 352)),
    ],
)
def test_the_papers_protocols(name, kind, sides):
    assert Protocol.parse(name) == Protocol(kind, sides)


@pytest.mark.parametrize(
    "name",
    ["", "dense", "dense@", "@256", "dense@-1", "dense@0", "dense@256,", "dense@2.5", "dens@256", "dense@256@384",
     "crops+dense@256", "dense@256 384", "DENSE@256", "dense@99999999999", "dense@٢٥٦x", "../dense@256"],
)  # fmt: skip
def test_unreadable_names_are_refused_in_one_line_with_an_example(name):
    with pytest.raises(UserError, match="for example dense@256,384,512") as caught:
        Protocol.parse(name)
    assert repr(name)[:20] in str(caught.value) or "0" in name
    assert "\n" not in str(caught.value)


def test_a_scale_given_twice_is_refused():
    with pytest.raises(UserError, match="twice"):
        Protocol.parse("dense@256,384,256")


def test_components_and_leaves_are_means_with_equal_weights():
    both = Protocol.parse("dense+crops@256,384")
    assert [str(part) for part in both.components] == ["dense@256,384", "crops@256,384"]
    assert [str(part) for part in both.leaves] == ["dense@256", "dense@384", "crops@256", "crops@384"]
    single = Protocol.parse("dense@256")
    assert single.components == ()
    assert single.leaves == (single,)


def test_scales_below_what_the_network_takes_are_refused_naming_the_least():
    Protocol.parse("dense@193").check_scales(least_size=193, crop=224)
    Protocol.parse("crops@224").check_scales(least_size=193, crop=224)
    for name, least in (("dense@192", "193"), ("center@223", "224"), ("crops@223,256", "224")):
        with pytest.raises(UserError, match=f"the least is {least}"):
            Protocol.parse(name).check_scales(least_size=193, crop=224)
    with pytest.raises(UserError, match="the least is 224"):
        Protocol.parse("dense+crops@200").check_scales(least_size=193, crop=224)
