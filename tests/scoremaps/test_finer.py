"""Finer maps against pooling offsets taken one by one with ordinary layers, and against shifted windows."""

import numpy as np
import pytest
import torch
from torch import nn

from verydeep.basics.errors import UserError
from verydeep.scoremaps.densify import densify, run
from verydeep.scoremaps.finer import strides


def interleaved(layers, x, skipped):
    """Put the offsets of all skipped pools (stride 2 each) into one map."""
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    at = pools[-skipped]
    for layer in layers[:at]:
        x = layer(x)
    found = {}

    def descend(x, layers, shift, spacing):
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.MaxPool2d):
                for di in range(2):
                    for dj in range(2):
                        moved = layer(x[:, :, di:, dj:])
                        shifted = (shift[0] + di * spacing, shift[1] + dj * spacing)
                        descend(moved, layers[i + 1 :], shifted, 2 * spacing)
                return
            x = layer(x)
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                found[shift[0] + i * spacing, shift[1] + j * spacing] = x[0, :, i, j]

    descend(x, layers[at:], (0, 0), 1)
    rows, columns = (max(place[axis] for place in found) + 1 for axis in (0, 1))
    assert len(found) == rows * columns  # no place twice, none left out
    out = torch.stack([torch.stack([found[i, j] for j in range(columns)], dim=1) for i in range(rows)], dim=1)
    return out.numpy()


def plain(net, round_up):
    """The network's layers as torch's own, with pools that round as told."""
    layers = []
    for layer in net.children():
        if isinstance(layer, nn.MaxPool2d):
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=round_up))
        elif isinstance(layer, nn.Conv2d):
            conv = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding)
            conv.load_state_dict(layer.state_dict())
            layers.append(conv.double())
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
    return layers


@pytest.mark.parametrize("round_up", [True, False])
@pytest.mark.parametrize("skipped", [1, 2, 3, 5])
def test_all_pooling_offsets_borders_included(tools, rng, round_up, skipped):
    net = tools.make("A", round_up=round_up, seed=int(rng.integers(1000)))
    height, width = (int(side) for side in rng.integers(100, 160, 2))  # every offset has a cell
    x = torch.from_numpy(rng.normal(size=(1, 3, height, width)))
    with torch.inference_mode():
        expected = interleaved(plain(net, round_up), x, skipped)
        dense = densify(net).at_stride(32 >> skipped)
        found = run(dense.layers, x[0].float())
    assert tools.off(found, expected) < 1e-5


def test_cells_are_the_scores_of_shifted_windows(tools, rng):
    """The image without its first rows and columns has the same windows at its first cells, away from the borders."""
    net = tools.make("A", seed=3)
    image = rng.integers(0, 256, (480, 480, 3), dtype=np.uint8)
    margin = 192  # more than the 90 pixels around a window that its scores depend on, in cells of 32
    fine = densify(net).at_stride(8)
    with torch.inference_mode():
        pixels = net.preprocessing(torch.from_numpy(image)[None])
        found = run(fine.layers, pixels[0]).numpy()
        for down, across in rng.integers(0, 4, (4, 2)).tolist():
            # The pixels that the pool skips lie between: a shift by 8 keeps every layer below it in step.
            shifted = net.score_map(pixels[:, :, 8 * down :, 8 * across :])[0].numpy()
            i = margin // 32
            assert np.abs(shifted[:, i, i] - found[:, 4 * i + down, 4 * i + across]).max() < 1e-5 * np.abs(found).max()


def test_the_coarse_map_is_every_nth_cell_of_a_finer_one(tools, image):
    for name in ("B", "C", "B-5x5"):
        net = tools.make(name)
        with torch.inference_mode():
            pixels = net.preprocessing(torch.from_numpy(image)[None])[0]
            fine = run(densify(net).at_stride(4).layers, pixels)
        assert tools.off(fine[:, ::8, ::8], tools.whole(net, image)) < 1e-5


def test_only_the_layers_behind_the_pool_cost_more(tools):
    dense = densify(tools.make("B"))
    fine = dense.at_stride(8)
    for layer, same in zip(dense.layers, fine.layers, strict=True):
        if layer.name == "pool4":
            break
        assert same == layer
    assert strides(dense.layers) == [32, 16, 8, 4, 2, 1]
    with pytest.raises(UserError, match="stride 12: this network's maps can have 32, 16, 8, 4, 2, 1"):
        dense.at_stride(12)


def test_alexnets_overlapping_pools(peers, rng, tools):
    torch.manual_seed(2)
    model = peers.torchvision.models.alexnet(num_classes=3).eval()
    dense = densify(model)
    x = torch.from_numpy(rng.normal(size=(3, 300, 280))).float()
    features = model.features
    with torch.inference_mode():
        found = run(dense.at_stride(16).layers, x)
        before = features[:12](x[None])
        parts = {}
        for i in range(2):
            for j in range(2):
                pooled = features[12](before[:, :, i:, j:])
                for a in range(pooled.shape[2] - 5):
                    for b in range(pooled.shape[3] - 5):
                        crop = pooled[:, :, a : a + 6, b : b + 6]
                        parts[2 * a + i, 2 * b + j] = model.classifier(torch.flatten(crop, 1))[0]
    assert len(parts) == found.shape[1] * found.shape[2]
    for (i, j), expected in parts.items():
        assert float((found[:, i, j] - expected).abs().max()) < 1e-5 * float(found.abs().max())
