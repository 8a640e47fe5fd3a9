"""Small networks, images, and what maps are compared by."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import verydeep as vd


def make(name="B", *, batch_norm=False, image_size=64, round_up=True, classes=6, seed=0):
    """A tiny network whose batch norm does something."""
    net = vd.create(
        name, classes, width=1 / 16, batch_norm=batch_norm, image_size=image_size, fc_width=16, seed=seed,
        initialization="he",
    ).eval()  # fmt: skip
    net.preprocessing = replace(net.preprocessing, pool_round_up=round_up)
    chance = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=chance))
            layer.running_var.copy_(torch.rand(layer.num_features, generator=chance) + 0.5)
            layer.weight.data.copy_(torch.rand(layer.num_features, generator=chance) + 0.5)
    return net


def whole(net, image):
    """The whole image's map in float64, K x h x w, by the network itself."""
    import copy

    double = copy.deepcopy(net).double()
    with torch.inference_mode():
        pixels = net.preprocessing(torch.from_numpy(np.ascontiguousarray(image))[None]).double()
        return double.score_map(pixels)[0].numpy()


def off(found, expected):
    """Greatest difference, relative to the greatest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="session")
def tools():
    """The functions of this file, for tests."""
    return SimpleNamespace(make=make, whole=whole, off=off)


@pytest.fixture(scope="session")
def net():
    return make()


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (331, 250, 3), dtype=np.uint8)
