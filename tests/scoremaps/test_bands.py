"""Maps computed band by band are those of the whole image, whatever the sizes, layers and limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import verydeep as vd
from verydeep.scoremaps.bands import Rectangle, bands, extents, map_size, steps
from verydeep.scoremaps.densify import densify
from verydeep.scoremaps.layers import Axis

CONFIGURATIONS = ("A", "A-LRN", "B", "C", "D", "E", "B-5x5")


def compute(layers, pixels, part, at_a_time, pieces):
    """Run a part of the map on pixels H x W x 3 given in pieces of rows."""
    found = extents(layers, *pixels.shape[:2], part)
    area = found[0].inputs
    rows = pixels[area.top : area.bottom, area.left : area.right].contiguous()
    with torch.inference_mode():
        return torch.cat(list(bands(layers, found, at_a_time, rows.split(pieces)))).permute(2, 0, 1).numpy()


@settings(max_examples=60)
@given(
    name=st.sampled_from(CONFIGURATIONS),
    batch_norm=st.booleans(),
    round_up=st.booleans(),
    window=st.sampled_from((32, 64, 96)),
    height=st.integers(0, 180),
    width=st.integers(0, 180),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_every_part_in_every_way_is_the_whole_images(
    tools, name, batch_norm, round_up, window, height, width, seed, data
):
    net = tools.make(name, batch_norm=batch_norm, image_size=window, round_up=round_up, seed=seed % 97)
    image = np.random.default_rng(seed).integers(0, 256, (window + height, window + width, 3), dtype=np.uint8)
    expected = tools.whole(net, image)
    layers = densify(net).layers
    assert map_size(layers, *image.shape[:2]) == expected.shape[1:]
    top, left = (data.draw(st.integers(0, side - 1)) for side in expected.shape[1:])
    bottom, right = (data.draw(st.integers(s + 1, n)) for s, n in zip((top, left), expected.shape[1:], strict=True))
    part = data.draw(st.sampled_from((Rectangle(0, 0, *expected.shape[1:]), Rectangle(top, left, bottom, right))))
    at_a_time = data.draw(st.lists(st.integers(1, 40), min_size=len(layers), max_size=len(layers)))
    pixels = net.preprocessing(torch.from_numpy(image)[None])[0].permute(1, 2, 0)
    found = compute(layers, pixels, part, at_a_time, data.draw(st.integers(1, 70)))
    wanted = expected[:, part.top : part.bottom, part.left : part.right]
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(expected).max()


@st.composite
def _modules(draw):
    """Convolutions and pools of any geometry that torch has."""
    modules, channels = [], 3
    for _ in range(draw(st.integers(1, 5))):
        kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        if draw(st.booleans()):
            dilation, padding = draw(st.integers(1, 3)), draw(st.integers(0, 4))
            modules.append(nn.Conv2d(channels, 4, kernel, stride, padding, dilation))
            modules.append(draw(st.sampled_from((nn.ReLU(inplace=True), nn.Tanh(), nn.BatchNorm2d(4)))))
            channels = 4
        elif draw(st.booleans()):
            padding = draw(st.integers(0, kernel // 2))
            modules.append(
                nn.MaxPool2d(kernel, stride, padding, draw(st.integers(1, 2)), ceil_mode=draw(st.booleans()))
            )
        else:
            modules.append(nn.AvgPool2d(kernel, stride))
    return [*modules, nn.Conv2d(channels, 3, 1)]


@settings(max_examples=150)
@given(_modules(), st.integers(20, 90), st.integers(20, 90), st.integers(0, 2**32 - 1), st.data())
def test_layers_of_any_geometry(modules, height, width, seed, data):
    """Padding above half a kernel, strides above kernels, dilation, windows that hang over: as torch has them."""
    from verydeep.scoremaps.densify import _Builder

    torch.manual_seed(seed)
    model = nn.Sequential(*modules).eval().double()
    try:
        with torch.inference_mode():
            x = torch.randn(1, 3, height, width, dtype=torch.float64)
            expected = model(x)[0].numpy()
    except RuntimeError:  # torch finds no output
        return
    if not np.isfinite(expected).all():  # a pool that sees nothing but padding
        return
    layers = _Builder(64).build(model.named_children())
    part = Rectangle(0, 0, *map_size(layers, height, width))
    assert (part.bottom, part.right) == expected.shape[1:]
    at_a_time = data.draw(st.lists(st.integers(1, 20), min_size=len(layers), max_size=len(layers)))
    found = compute(layers, x[0].permute(1, 2, 0), part, at_a_time, data.draw(st.integers(1, 30)))
    assert np.abs(found - expected).max() <= 1e-10 * max(1.0, np.abs(expected).max())


def test_every_output_is_computed_once(tools, monkeypatch):
    """The rows that leave each layer, counted, are those that the whole image has."""
    net = tools.make("D")
    layers = densify(net).layers
    found = extents(layers, 333, 280, Rectangle(0, 0, *map_size(layers, 333, 280)))
    counted = {layer.name: 0 for layer in layers}

    for kind in {type(layer) for layer in layers}:
        slide = kind.slide

        def count(self, x, left, right, slide=slide):
            y = slide(self, x, left, right)
            counted[self.name] += y.shape[0] * y.shape[1]
            return y

        monkeypatch.setattr(kind, "slide", count)
    with torch.inference_mode():
        list(bands(layers, found, steps(layers, found, 2**14), torch.randn(333, 280, 3).split(7)))
    for layer, extent in zip(layers, found, strict=True):
        assert counted[layer.name] == extent.outputs.area, layer.name
    rows, columns = 333, 280
    for layer, extent in zip(layers, found, strict=True):
        rows, columns = layer.rows.size(rows), layer.columns.size(columns)
        assert extent.outputs.area == rows * columns, layer.name


@pytest.mark.parametrize("axis", [Axis(3, 1, 1, 1, 1), Axis(2, 2, overhang=1), Axis(5, 2, 3, 4, 4), Axis(1, 3)])
def test_an_output_needs_what_changes_it(axis):
    """By moving one input: the outputs that change are those whose needs hold it."""
    n, kernel = 23, torch.ones(1, 1, axis.kernel, dtype=torch.float64)
    padded = axis.before + n + axis.after + axis.overhang
    outputs = axis.size(n)
    for place in range(n):
        x = torch.zeros(1, 1, padded, dtype=torch.float64)
        x[0, 0, axis.before + place] = 1
        y = torch.nn.functional.conv1d(x, kernel, stride=axis.stride, dilation=axis.dilation)[0, 0]
        for output in torch.nonzero(y[:outputs]).flatten().tolist():
            low, high = axis.needs(output, output + 1, n)
            assert low <= place < high


@settings(max_examples=25)
@given(
    stride=st.sampled_from((16, 4)),
    height=st.integers(0, 70),
    width=st.integers(0, 70),
    batch_norm=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_branches_pad_where_the_image_ends_and_nowhere_else(stride, height, width, batch_norm, seed, data):
    torch.manual_seed(seed)
    net = vd.create("googlenet", 3, width=1 / 16, image_size=96, batch_norm=batch_norm, trunk="inception_4b").eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):  # what is not 0 where the map is padded with zeros
            layer.bias.data.uniform_(0.5, 1)
    x = torch.randn(3, 96 + height, 96 + width)
    with torch.inference_mode():
        expected = net.score_map(x[None])[0].numpy()
    layers = densify(net).at_stride(stride).layers
    every, size = 16 // stride, map_size(layers, *x.shape[1:])
    top, left = (data.draw(st.integers(0, side - 1)) for side in size)
    part = data.draw(st.sampled_from((Rectangle(0, 0, *size), Rectangle(top, left, *size))))
    at_a_time = data.draw(st.lists(st.integers(1, 40), min_size=len(layers), max_size=len(layers)))
    found = compute(layers, x.permute(1, 2, 0), part, at_a_time, data.draw(st.integers(1, 70)))
    rows, columns = (
        range(-(-start // every), -(-end // every)) for start, end in ((part.top, part.bottom), (part.left, part.right))
    )
    for i in rows[: expected.shape[1] - rows.start]:
        for j in columns[: expected.shape[2] - columns.start]:
            here = found[:, i * every - part.top, j * every - part.left]
            assert np.abs(here - expected[:, i, j]).max() <= 1e-5 * np.abs(expected).max()
