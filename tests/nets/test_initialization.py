import math

import pytest
import torch
from torch import nn

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.nets.initialization import COPIED_FROM_A, copy_layers
from verydeep.nets.vgg import VGG


def net(name: str, seed: int, **options: object) -> VGG:
    return vd.create(name, classes=4, width=1 / 8, fc_width=8, image_size=32, seed=seed, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["normal(0.01)", "normal(0.1)", "glorot", "he"])
def test_spread_of_the_weights(scheme: str) -> None:
    made = vd.create("D", classes=300, width=0.5, fc_width=512, image_size=64, initialization=scheme)
    for layer in made:
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 20_000:
            inputs, outputs = (n * layer.weight[0, 0].numel() for n in (layer.in_channels, layer.out_channels))
            expected = {"glorot": math.sqrt(2 / (inputs + outputs)), "he": math.sqrt(2 / inputs)}
            std = expected.get(scheme) or float(scheme[7:-1])
            assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.03)
            assert abs(float(layer.weight.detach().mean())) < 0.05 * std
            assert layer.bias is not None
            assert not layer.bias.any()


@pytest.mark.parametrize("scheme", ["normal", "normal(x)", "xavier", "normal(-1)"])
def test_unknown_scheme(scheme: str) -> None:
    with pytest.raises(UserError, match=r"normal\(0.01\), glorot or he"):
        vd.create("A", width=1 / 32, initialization=scheme)


@pytest.mark.parametrize("name", ["B", "C", "D", "E"])
def test_the_papers_seven_layers_come_from_a_and_no_others(name: str) -> None:
    a, deep, before = net("A", 1), net(name, 2), net(name, 2)
    assert copy_layers(a, deep, COPIED_FROM_A) == COPIED_FROM_A
    for layer, module in deep.named_children():
        if isinstance(module, nn.Conv2d):
            source = a if layer in COPIED_FROM_A else before
            assert torch.equal(module.weight, source.get_submodule(layer).weight), layer
    assert len(COPIED_FROM_A) == 7
    assert all(parameter.requires_grad for parameter in deep.parameters())


def test_all_layers_with_batch_norm() -> None:
    source, target = net("B", 1, batch_norm=True), net("B", 2, batch_norm=True)
    source.get_submodule("bn3_2").running_mean.normal_()
    copy_layers(source, target)
    assert all(torch.equal(target.state_dict()[key], value) for key, value in source.state_dict().items())


def test_what_does_not_fit_is_named_and_nothing_is_copied() -> None:
    source, target = net("A", 1), vd.create("B", classes=5, width=1 / 8, fc_width=8, image_size=32, seed=2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UserError, match=r"fc8.weight from A to B: expected \(5, 8, 1, 1\), found \(4, 8, 1, 1\)"):
        copy_layers(source, target, COPIED_FROM_A)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    with pytest.raises(UserError, match="no such layer"):
        copy_layers(net("A", 1), net("A", 2), ("conv1_2",))
