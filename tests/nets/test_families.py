"""What every network of every family promises; the networks of other papers against torch's own layers."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import verydeep as vd
from tests.evaluation.conftest import ArrayDataset
from tests.nets.classic import SIZES, classic, with_weights_of
from verydeep.basics.errors import UserError
from verydeep.engines import library
from verydeep.exports.export_module import Contract, ExportModule
from verydeep.inference.options import Options
from verydeep.inference.runtime import pick_engine
from verydeep.nets.architectures import ARCHITECTURES
from verydeep.nets.families import default_config, make_on_meta, trunk_of
from verydeep.nets.geometry import macs, receptive_field, score_map_size, summarize, window
from verydeep.nets.layers import Branches
from verydeep.nets.network import Network
from verydeep.nets.plain import Conv, sides
from verydeep.perceptual.explain import explain
from verydeep.perceptual.trunk import describe_trunk

OTHERS = tuple(ARCHITECTURES)
FAMILIES = ("A", "A-LRN", "D", *OTHERS)
CLASSES = ("ape", "bee", "cat", "dog")


def small(name: str, seed: int | None = None, **options: object) -> Network:
    """A narrow network whose every layer matters to its scores."""
    about = {"width": 1 / 16, "fc_width": 64, "initialization": "he", "seed": seed, **options}
    if name not in OTHERS:
        about = {"image_size": 64, **about}
    net = vd.create(name, CLASSES, **about)  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                layer.bias.normal_(0.1, 0.1)
            elif isinstance(layer, nn.BatchNorm2d):
                for value, low, high in (
                    (layer.running_mean, -1, 1),
                    (layer.running_var, 0.5, 2),
                    (layer.weight, 0.5, 2),
                ):
                    value.uniform_(low, high)  # type: ignore[union-attr]
    return net.eval()


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found.double() - expected.double()).norm() / expected.double().norm()) < tolerance


# Parameters: biases included, 1,000 classes. Multiply-adds of one window, in millions, biases not counted.
PUBLISHED = {
    # Caffe's bvlc_alexnet.caffemodel holds 60,965,224 numbers (233 MiB); 724 M multiply-adds: Canziani, Paszke &
    # Culurciello 2016 give 0.7 G, and convnet-burden (Albanie) 233 MB and 727 M operations at 227.
    "alexnet": (60_965_224, 727, 0.005),
    # No total is published; the layers' sizes of the paper's figure 3, added up by hand.
    "zfnet": (62_357_608, None, 0.0),
    # Sermanet et al. 2013, table 4: 145 and 144 million parameters, 2,810 and 5,369 million connections.
    "overfeat-fast": (145_920_872, 2810, 0.005),
    "overfeat-accurate": (144_656_488, 5369, 0.005),
    # The authors' nin_imagenet.caffemodel: 29 MiB; 1.1 G multiply-adds.
    "nin": (7_595_176, 1100, 0.005),
    # Szegedy et al. 2014: a budget of 1.5 billion multiply-adds, and parameters that add up to 6.8 million;
    # Caffe's bvlc_googlenet has 6,998,552 without auxiliary classifiers, and 1.58 G multiply-adds in common counts.
    "googlenet": (6_998_552, 1580, 0.01),
}


@pytest.mark.parametrize("name", OTHERS)
def test_sizes_are_the_published_ones(name: str) -> None:
    net = make_on_meta(default_config(name, [str(number) for number in range(1000)]))
    with torch.device("meta"):
        model = classic(name, 1000)
    parameters, millions, tolerance = PUBLISHED[name]
    side = SIZES[name]
    assert (net.image_size, net.window) == (side, side)
    assert sum(value.numel() for value in net.parameters()) == parameters
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert sum(layer.parameters for layer in summarize(net, side, side)) == parameters
    assert macs(net, side, side) == _multiply_adds(model, side)
    if millions:
        assert macs(net, side, side) / 1e6 == pytest.approx(millions, rel=tolerance)


def _multiply_adds(model: nn.Sequential, side: int) -> int:
    """Multiply-adds of one image, counted from what torch's layers take and give."""
    total, x = 0, torch.zeros(1, 3, side, side, device="meta")

    def count(layer: nn.Module, _: object, y: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * y[0].numel() // y.shape[1]  # type: ignore[union-attr, operator]

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(x)
    return total


@pytest.mark.parametrize("name", OTHERS)
def test_on_one_window_it_is_the_classic_network(name: str) -> None:
    net = small(name)
    model = with_weights_of(net, classic(name, len(CLASSES), 1 / 16, 64))
    x = torch.randn(2, 3, net.image_size, net.image_size) * 50
    with torch.no_grad():
        assert net.score_map(x).shape[2:] == (1, 1)
        close(net(x), model(x.double()))


def _sliding(net: nn.Module, x: torch.Tensor, up: bool) -> torch.Tensor:
    """The whole image in float64, every layer by torch's own function, from the table's numbers."""
    for name, layer in net.named_children():
        if isinstance(layer, Branches):
            x = torch.cat([_sliding(branch, x, up) for branch in layer.children()], 1)
            continue
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight.double(), layer.bias.double()  # type: ignore[union-attr]
            x = F.conv2d(x, weight, bias, layer.stride, layer.padding, groups=layer.groups)
        elif isinstance(layer, nn.BatchNorm2d):
            mean, variance, scale, offset = (
                value.double()[:, None, None]  # type: ignore[union-attr]
                for value in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
            )
            x = scale * (x - mean) / (variance + 1e-5).sqrt() + offset
        elif name.startswith("relu"):
            x = x.clamp(min=0)
        elif isinstance(layer, nn.MaxPool2d):
            x = F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, ceil_mode=up)
        elif isinstance(layer, nn.AvgPool2d):
            x = F.avg_pool2d(x, layer.kernel_size, 1)
        elif name.startswith("norm"):
            squares = F.pad(x**2, (0, 0, 0, 0, 2, 2))
            x = x / (2 + 1e-4 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75
    return x


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_size_by_torch_by_the_engine_and_exported(name: str, batch_norm: bool) -> None:
    net = small(name, batch_norm=batch_norm)
    fast, exported = vd.compile_cpu(net), ExportModule(net, Contract())
    for more in ((0, 0), (33, 71), (64, 5)):
        x = torch.randn(2, 3, net.image_size + more[0], net.image_size + more[1]) * 50
        with torch.no_grad():
            expected = _sliding(net, x.double(), net.preprocessing.pool_round_up)
            close(net.score_map(x), expected)
            close(fast.score_map(x), expected)
            close(fast(x), expected.mean(dim=(2, 3)))
            close(exported(x)["score_map"], expected)
        assert tuple(expected.shape[2:]) == score_map_size(net, *x.shape[2:])


@pytest.mark.parametrize("name", ["overfeat-fast", "overfeat-accurate"])
def test_every_cell_is_its_window_where_padding_plays_no_part(name: str) -> None:
    net = small(name)
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d) and layer.padding[0]:
                middle = torch.zeros_like(layer.weight)
                middle[:, :, 1, 1] = layer.weight[:, :, 1, 1] * 3  # filters of one pixel see no border
                layer.weight.copy_(middle)
    x = torch.randn(1, 3, net.image_size + 2 * net.stride, net.image_size + net.stride)
    with torch.no_grad():
        scores = net.score_map(x)
        assert scores.shape[2:] == (3, 2)
        for i in range(3):
            for j in range(2):
                w = window(net, i, j)
                close(net(x[:, :, w.top : w.bottom, w.left : w.right]), scores[:, :, i, j])


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8)
@given(st.data())
def test_geometry_is_torchs_at_any_size(name: str, data: st.DataObject) -> None:
    net = make_on_meta(default_config(name, CLASSES, width=1 / 32, fc_width=32))
    height, width = (data.draw(st.integers(net.least_size, net.least_size + 130)) for _ in range(2))
    plain, x = net.plain_layers(), torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad():
        for layer, *found in zip(plain, sides(plain, height), sides(plain, width), strict=True):
            if isinstance(layer, Conv):
                assert list(net.activations(x, layer.name).shape[2:]) == found
        assert tuple(net.score_map(x).shape[2:]) == score_map_size(net, height, width)
        assert min(score_map_size(net, net.least_size, net.least_size)) == 1
    with pytest.raises(UserError, match="too small"):
        net.check_size(net.least_size - 1, height)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_receptive_field_is_where_the_gradient_is(name: str) -> None:
    net = small(name)
    with torch.no_grad():
        for value in net.parameters():
            value.abs_()  # nothing cancels and no unit is dead
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                layer.weight.fill_(1 / layer.weight[0].numel())
    wide = 3 if name in OTHERS else 9
    x = torch.rand(8, 3, net.window + wide * net.stride, net.window + wide * net.stride, requires_grad=True)
    cell = wide // 2
    net.score_map(x)[:, 0, cell, cell].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1)) > 0
    field = receptive_field(net, cell, cell)
    rows = torch.nonzero(seen.any(1)).flatten()
    # Max-pools pass the gradient of one pixel of each window alone, so that the outermost may be missing.
    assert max(0, field.top) <= int(rows[0]) <= max(0, field.top) + net.stride
    assert min(x.shape[2], field.bottom) - net.stride <= int(rows[-1]) + 1 <= min(x.shape[2], field.bottom)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded(name: str, tmp_path) -> None:
    net = small(name, batch_norm=True, preprocessing=vd.Preprocessing(pool_round_up=False))
    vd.save(net, tmp_path / "n.safetensors")
    again = vd.load(tmp_path / "n.safetensors")
    x = torch.randn(1, 3, net.image_size, net.image_size)
    with torch.no_grad():
        assert torch.equal(again(x), net(x))
    assert (type(again), again.config, again.window) == (type(net), net.config, net.window)
    trunk = vd.load(tmp_path / "n.safetensors", trunk=True)
    behind = net.configuration.trunk
    assert trunk.task == "describe"
    assert trunk.provenance.more["left_out"][-1] == net.config.classifier
    with torch.no_grad():
        assert torch.equal(trunk.activations(x, behind), net.activations(x, behind))


@pytest.mark.parametrize("name", OTHERS)
def test_cut_behind_any_layer(name: str) -> None:
    whole = small(name, seed=1)
    names = whole.layer_names
    x = torch.randn(1, 3, whole.image_size + 40, whole.image_size)
    for layer in names[: names.index(whole.config.classifier)]:
        trunk = vd.create(name, 0, width=1 / 16, fc_width=64, trunk=layer).eval()
        trunk.load_state_dict({key: whole.state_dict()[key] for key in trunk.state_dict()})
        assert trunk.layer_names == names[: names.index(layer) + 1]
        with torch.no_grad():
            assert torch.equal(trunk.activations(x, layer), whole.activations(x, layer))
        classifier = make_on_meta(default_config(name, CLASSES, width=1 / 16, fc_width=64, trunk=layer))
        assert classifier.layer_names[-1] == whole.config.classifier
        assert score_map_size(classifier, *x.shape[2:]) == score_map_size(trunk, *x.shape[2:])
    assert trunk_of(whole).layer_names[-1] == whole.configuration.trunk
    with pytest.raises(UserError, match=f"{name} has no layer 'conv9'"):
        vd.create(name, 0, trunk="conv9")


@pytest.mark.parametrize("name", FAMILIES)
def test_training_lessens_the_loss(name: str) -> None:
    net = small(name, dropout=0.0, batch_norm=True).train()
    x, labels = torch.randn(8, 3, net.image_size, net.image_size), torch.arange(8) % 4
    optimizer = torch.optim.SGD(net.parameters(), 0.003)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_protocol_gives_posteriors(name: str, rng: np.random.Generator) -> None:
    net = small(name)
    scale = net.image_size + 20
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((scale, scale + 31, 3), (scale + 9, scale, 3))]
    data = ArrayDataset(pictures, [0, 3], CLASSES)
    protocols = [f"center@{scale}", f"dense@{scale},{scale + 40}", f"crops@{scale}", f"dense+crops@{scale}"]
    protocols += [f"ten-crops@{scale}", f"square-crops@{scale},{scale + 10}"]
    for engine in ("native", "torch"):
        for protocol in protocols:
            result = vd.evaluate(net, data, protocol, engine=engine)
            np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, atol=1e-5)
            assert np.isfinite(result.probabilities).all()
    with torch.no_grad():
        x = net.preprocessing(torch.from_numpy(pictures[0][None]))
        both = torch.stack([net(x), net(x.flip(3))]).softmax(2).mean(0)
    dense = vd.evaluate(net, data, f"dense@{scale}", engine="torch")
    np.testing.assert_allclose(dense.probabilities[0], both[0].numpy(), atol=1e-4)


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "googlenet"])
def test_weights_begin_as_the_paper_says(name: str) -> None:
    net = vd.create(name, 1000, width=0.5, fc_width=1024, seed=2)
    biases = {
        layer: float(module.bias.detach()[0]) for layer, module in net.named_children() if isinstance(module, nn.Conv2d)
    }  # type: ignore[index]
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"} if name == "alexnet" else set()
    assert {layer for layer, bias in biases.items() if bias} == ones
    assert {bias for bias in biases.values() if bias} <= {1.0}
    for layer, module in net.named_children():
        if isinstance(module, nn.Conv2d):
            wide = name == "nin" and layer not in ("conv1", "conv3", "cccp8")
            assert float(module.weight.detach().std()) == pytest.approx(0.05 if wide else 0.01, rel=0.1)
    he = vd.create(name, 10, width=0.5, fc_width=256, seed=2, initialization="he")
    conv = he.get_submodule("conv4")
    assert isinstance(conv, nn.Conv2d)
    assert float(conv.weight.detach().std()) == pytest.approx((2 / conv.weight[0].numel()) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 20}, "image_size is 20: nothing of it is left before fc6 of alexnet, which is made for 227"),
        ({"image_size": 0, "trunk": "conv3"}, "image_size is 0, expected 227, or some other above 0"),
        ({"regression": "scr"}, "alexnet: learns no boxes"),
        ({"head": (8,)}, "alexnet: has no other head"),
    ],
)
def test_what_no_such_network_has(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        vd.create("alexnet", 3, **options)  # type: ignore[arg-type]


def test_the_halves_of_alexnet_see_nothing_of_each_other() -> None:
    net = small("alexnet", width=0.1)  # 10 and 26 channels: each group has as many
    conv = net.get_submodule("conv2")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.groups, conv.in_channels % 2, conv.out_channels % 2) == (2, 0, 0)
    x = torch.randn(1, conv.in_channels, 9, 9)
    other = x.clone()
    other[:, conv.in_channels // 2 :] += 1
    with torch.no_grad():
        a, b = conv(x).chunk(2, 1), conv(other).chunk(2, 1)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[1], b[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_engine_of_its_own_accord_is_for_stacks_of_small_kernels(name: str) -> None:
    net, cpu = make_on_meta(default_config(name, CLASSES, width=1 / 16)), torch.device("cpu")
    usual = pick_engine("auto", cpu)
    assert pick_engine("auto", cpu, net=net) == ("torch" if name in OTHERS else usual)


def test_pools_of_other_papers_round_their_own_way(rng: np.random.Generator) -> None:
    data = ArrayDataset([rng.integers(0, 256, (240, 240, 3), np.uint8)], [0], CLASSES)
    with pytest.raises(UserError, match="pool-rounding down: the pools of nin round up"):
        vd.evaluate(small("nin"), data, "center@240", options=Options(pool_rounding="down"))


def test_auxiliary_classifiers_are_there_in_training_alone() -> None:
    whole = make_on_meta(default_config("googlenet", [str(number) for number in range(1000)], auxiliary=True))
    beside = sum(value.numel() for name, value in whole.named_parameters() if name.startswith("auxiliary"))
    assert beside == 3_188_840 + 3_190_888  # 512 and 528 maps to 128, 4 x 4 of these to 1024, these to 1,000; biases
    assert sum(layer.parameters for layer in summarize(whole, 224, 224)) == 6_998_552

    net, plain = small("googlenet", auxiliary=True, dropout=0.0), small("googlenet")
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if "auxiliary" not in name})
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(net(x), plain(x))
        scores, *others = net.in_training(x)
        close(scores, plain(x))
        for found, letter in zip(others, "ad", strict=True):
            y = net.activations(x, f"inception_4{letter}")
            head = net.get_submodule(f"auxiliary_4{letter}")
            y = F.conv2d(F.avg_pool2d(y, 5, 3), head.conv.weight, head.conv.bias).relu()  # type: ignore[union-attr, arg-type]
            y = F.linear(y.flatten(1), head.fc.weight.flatten(1), head.fc.bias).relu()  # type: ignore[union-attr, operator, arg-type]
            close(found, F.linear(y, head.classifier.weight.flatten(1), head.classifier.bias))  # type: ignore[union-attr, operator, arg-type]
    assert net.layer_names == plain.layer_names
    assert trunk_of(net).config.auxiliary is False
    with pytest.raises(UserError, match="nin: has no auxiliary classifiers"):
        small("nin", auxiliary=True)


def test_glorot_where_the_paper_is_silent() -> None:
    net = vd.create("googlenet", 10, width=0.5, seed=1)
    conv = net.get_submodule("inception_4a.3x3.conv")
    assert isinstance(conv, nn.Conv2d)
    fans = conv.weight[0].numel() + conv.weight[:, 0].numel()
    assert float(conv.weight.detach().std()) == pytest.approx((2 / fans) ** 0.5, rel=0.05)
    with pytest.raises(UserError, match="googlenet's paper says nothing of it"):
        vd.create("googlenet", 10, width=0.1, initialization="paper")


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_layers_of_every_family(name):
    net = small(name)
    side = net.image_size + 5
    x = torch.rand(1, 3, side, side + 20)
    layers = [layer for layer in net.layer_names if layer.split(".")[0] != net.config.classifier][:-1]
    if name in OTHERS:  # NIN's mean stands behind its classifier
        layers = layers[: net.layer_names.index(net.configuration.trunk) + 1]
    for engine in ("torch", "native") if library.find() else ("torch",):
        found = vd.features(net, layers, engine=engine)(x)
        for layer, values in found.items():
            close(values, net.activations(net.preprocessing.of_unit(x), layer))
    with pytest.raises(UserError, match=f"before {net.config.classifier}"):
        vd.features(net, [net.config.classifier])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_and_its_trunk_have_the_same_hash(name):
    net = small(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(other.get_submodule(other.config.classifier).parameters()).add_(1)
    hashes = {describe_trunk(each).sha256 for each in (net, vd.trunk(net), other)}
    assert len(hashes) == 1
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert describe_trunk(other).sha256 not in hashes
    assert vd.trunk(name, seed=0).layer_names[-1] == net.configuration.trunk


@pytest.mark.parametrize("name", FAMILIES)
def test_grad_cam_is_of_the_last_map_of_the_convolutions(name):
    pytest.importorskip("captum", reason="captum is not installed (make test installs it)")
    net = small(name)
    scale = net.image_size + 32
    picture = np.random.default_rng(0).integers(0, 256, (scale, scale + 9, 3), dtype=np.uint8)
    shown, label, places = explain(net, picture, scale, "grad-cam")
    assert places.shape == shown.shape[:2]
    assert label in CLASSES
    last = net.configuration.trunk
    if last.startswith("pool"):
        last = net.layer_names[net.layer_names.index(last) - 1]
    x = net.preprocessing(torch.from_numpy(picture)[None])
    maps = net.activations(x, last).detach().requires_grad_()
    score = net.activations(maps, net.layer_names[-1], after=last).mean(dim=(2, 3))[0, CLASSES.index(label)]
    (slope,) = torch.autograd.grad(score, maps)
    cam = F.relu((slope.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True))
    expected = F.interpolate(cam, places.shape, mode="bilinear")[0, 0].detach()
    torch.testing.assert_close(torch.from_numpy(places), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
