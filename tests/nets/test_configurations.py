import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.nets.config import NetworkConfig
from verydeep.nets.configurations import CONFIGURATIONS, configuration
from verydeep.nets.geometry import summarize
from verydeep.nets.vgg import VGG

# Exact figures for 1000 classes at 224 x 224, worked out from the paper's Table 1: weight layers, parameters, of which
# convolutions, giga multiply-adds of all layers and of the convolutions, receptive field at pool5 and at fc6.
FIGURES = {
    "A": (11, 132_863_336, 9_220_480, 7.609, 7.485, 150, 342),
    "A-LRN": (11, 132_863_336, 9_220_480, 7.609, 7.485, 150, 342),
    "B": (13, 133_047_848, 9_404_992, 11.308, 11.185, 156, 348),
    "C": (16, 133_638_952, 9_996_096, 11.771, 11.647, 156, 348),
    "D": (16, 138_357_544, 14_714_688, 15.470, 15.347, 212, 404),
    "E": (19, 143_667_240, 20_024_384, 19.632, 19.508, 268, 460),
    # Only parameters are published for the 5x5 variant; multiply-adds and fields by hand in the test below.
    "B-5x5": (8, 134_503_528, 10_860_672, None, None, 156, 348),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_figures_are_those_of_the_paper(name: str) -> None:
    layers_, parameters, conv, giga, conv_giga, pool5, fc6 = FIGURES[name]
    with torch.device("meta"):
        net = VGG(NetworkConfig(configuration(name), tuple(map(str, range(1000)))))
    rows = summarize(net, 224, 224)
    at = {row.name: row for row in rows}
    assert net.configuration.weight_layers == layers_ == sum(row.kind.startswith("conv") for row in rows)
    assert sum(row.parameters for row in rows) == parameters == sum(p.numel() for p in net.parameters())
    assert sum(row.parameters for row in rows if row.name.startswith("conv")) == conv
    assert (at["pool5"].receptive_field, at["fc6"].receptive_field) == (pool5, fc6)
    assert at["pool5"].stride == 32
    if giga is not None:
        assert round(sum(row.macs for row in rows) / 1e9, 3) == giga
        assert round(sum(row.macs for row in rows if row.name.startswith("conv")) / 1e9, 3) == conv_giga


def test_shallow_variant_costs_as_computed_by_hand() -> None:
    with torch.device("meta"):
        net = VGG(NetworkConfig(configuration("B-5x5"), ("a", "b"), fc_width=8))
    sides, channels = (224, 112, 56, 28, 14), (3, 64, 128, 256, 512, 512)
    by_hand = sum(25 * channels[i] * channels[i + 1] * sides[i] ** 2 for i in range(5))
    head = 49 * 512 * 8 + 8 * 8 + 8 * 2
    assert sum(row.macs for row in summarize(net, 224, 224)) == by_hand + head


@pytest.mark.parametrize(
    ("asked", "named"), [("VGG16", "D"), ("vgg-19", "E"), ("F", "known|paper's are"), ("b-5", "B-5x5")]
)
def test_unknown_configuration_names_the_likely_one(asked: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        configuration(asked)


def test_names_do_not_depend_on_case() -> None:
    assert configuration("a-lrn").name == "A-LRN"
    assert configuration("b-5X5").name == "B-5x5"


def test_every_configuration_runs_with_batch_norm_too() -> None:
    for name in CONFIGURATIONS:
        for batch_norm in (False, True):
            net = vd.create(name, classes=3, width=1 / 32, fc_width=4, image_size=32, batch_norm=batch_norm).eval()
            assert net(torch.zeros(2, 3, 32, 40)).shape == (2, 3)
            assert sum(layer.startswith("bn") for layer, _ in net.named_children()) == batch_norm * sum(
                map(len, net.configuration.blocks)
            )
