"""Score maps by the native engine: those of the whole image in float64, as by torch."""

import copy

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.engines import library
from verydeep.scoremaps.densify import densify
from verydeep.scoremaps.native import NativeConvolution, native

pytestmark = pytest.mark.skipif(library.find() is None, reason=library.MISSING)


def network(name, **options):
    net = vd.create(name, 5, width=1 / 8, image_size=64, fc_width=24, initialization="he", seed=0, **options)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.bias.data.normal_(std=0.1)
    return net.eval()


@pytest.mark.parametrize("name", ["A", "C", "D", "B-5x5", "A-LRN"])
@pytest.mark.parametrize("stride", [None, 8])
def test_the_map_is_the_whole_images(rng, name, stride):
    net = network(name, batch_norm=name == "D")
    image = rng.integers(0, 256, (301, 233, 3), dtype=np.uint8)
    found = vd.score_map(image, net, softmax=False, stride=stride, engine="native").levels[0].values
    by_torch = vd.score_map(image, net, softmax=False, stride=stride, engine="torch").levels[0].values
    with torch.inference_mode():
        whole = copy.deepcopy(net).double().score_map(net.preprocessing(torch.from_numpy(image[None])).double())[0]
    step = 32 // (stride or 32)
    most = np.abs(by_torch).max()
    assert np.abs(found - by_torch).max() < 1e-5 * most
    coarse = found[:, ::step, ::step][:, : whole.shape[1], : whole.shape[2]]
    assert np.abs(coarse - whole.numpy()[:, : coarse.shape[1], : coarse.shape[2]]).max() < 1e-5 * most


def test_regions_and_limits_change_nothing(rng):
    net = network("B")
    image = rng.integers(0, 256, (400, 500, 3), dtype=np.uint8)
    whole = vd.score_map(image, net, softmax=False, engine="native").levels[0].values
    part = vd.score_map(image, net, softmax=False, engine="native", region=(100, 90, 300, 200)).levels[0].values
    there = ~np.isnan(part)
    assert 0 < there.sum() < part.size
    assert np.abs(part[there] - whole[there]).max() < 1e-5 * np.abs(whole).max()


def test_only_3x3_convolutions_of_stride_1_are_native():
    kinds = {layer.name: type(layer) is NativeConvolution for layer in native(densify(network("C"))).layers}
    assert kinds["conv1_1"]
    assert kinds["conv3_2"]
    assert not any(kinds[name] for name in ("conv3_3", "pool1", "fc6", "fc8"))
    finer = native(densify(network("C")).at_stride(4))
    assert [type(layer) is NativeConvolution for layer in finer.layers].count(True) < list(kinds.values()).count(True)
