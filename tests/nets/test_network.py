import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.nets.geometry import receptive_field, score_map_size, window
from verydeep.nets.run_info import RunInfo
from verydeep.nets.vgg import VGG


def small(name: str = "B", image_size: int = 64, **options: object) -> VGG:
    options = {"classes": 5, "width": 1 / 16, "fc_width": 12, **options}
    net = vd.create(name, image_size=image_size, initialization="he", **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                layer.bias.normal_(0, 0.1)
    return net.eval()


def classic(net: VGG, x: torch.Tensor) -> torch.Tensor:
    """The network as everyone writes it, in float64: convolutions, floor pools, flatten, linear layers."""
    for name, layer in net.named_children():
        if isinstance(layer, nn.Conv2d):
            weight, bias = layer.weight.double(), layer.bias.double()  # type: ignore[union-attr]
            if name == "fc6":
                x = x.flatten(1)
            x = (
                F.linear(x, weight.flatten(1), bias)
                if name[:2] == "fc"
                else F.conv2d(x, weight, bias, padding=layer.padding)
            )
        elif name.startswith("bn"):
            x = F.batch_norm(
                x, *(t.double() for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
            )  # type: ignore[union-attr,operator]
        elif name.startswith("relu"):
            x = x.clamp(min=0)
        elif name.startswith("pool"):
            x = F.max_pool2d(x, 2)
        elif name.startswith("norm"):
            squares = F.pad(x**2, (0, 0, 0, 0, 2, 2))
            total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
            x = x / (2 + 1e-4 * total) ** 0.75
    return x


@pytest.mark.parametrize("name", ["A", "A-LRN", "B", "C", "D", "E", "B-5x5"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_on_one_window_it_is_the_classic_network(name: str, memory_format: torch.memory_format) -> None:
    net = small(name, batch_norm=name == "D").to(memory_format=memory_format)  # type: ignore[call-overload]
    x = torch.randn(3, 3, 64, 64) * 50
    expected = classic(net, x.double())
    for gradients in (True, False):  # without, fully connected layers take another way on a CPU
        with torch.set_grad_enabled(gradients):
            scores = net(x).double()
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("image_size", [32, 64, 96])
def test_every_cell_is_its_window_where_padding_plays_no_part(image_size: int) -> None:
    net = small("B", image_size)
    for layer in net:
        if isinstance(layer, nn.Conv2d) and layer.padding[0]:
            middle = torch.zeros_like(layer.weight)
            k = layer.kernel_size[0] // 2
            middle[:, :, k, k] = layer.weight[:, :, k, k] * 3  # filters of one pixel see no border
            layer.weight = nn.Parameter(middle)
    x = torch.randn(1, 3, image_size + 32 * 3, image_size + 32)
    scores = net.score_map(x)
    assert scores.shape[2:] == (4, 2) == score_map_size(net, *x.shape[2:])
    for i in range(4):
        for j in range(2):
            w = window(net, i, j)
            crop = x[:, :, w.top : w.bottom, w.left : w.right]
            torch.testing.assert_close(net(crop), scores[:, :, i, j], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x), scores.mean(dim=(2, 3)))


def test_receptive_field_is_where_the_gradient_is() -> None:
    net = vd.create("A", classes=1, width=1 / 16, fc_width=4, image_size=32, initialization="he").eval()
    with torch.no_grad():
        for p in net.parameters():
            p.abs_()  # nothing cancels and no unit is dead: every pixel of the field counts
    x = torch.rand(16, 3, 32 * 9, 32 * 7, requires_grad=True)
    net.score_map(x)[:, 0, 4, 3].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1)) > 0
    field = receptive_field(net, 4, 3)
    rows, columns = (torch.nonzero(seen.any(dim)).flatten() for dim in (1, 0))
    # A max-pool passes the gradient of one pixel of four only, so the outermost may be missing even in 16 pictures.
    for found, bounds in ((rows, (field.top, field.bottom)), (columns, (field.left, field.right))):
        assert bounds[0] <= int(found[0]) <= bounds[0] + 16
        assert bounds[1] - 16 <= int(found[-1]) + 1 <= bounds[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(33, 150), st.integers(33, 150), st.booleans(), st.sampled_from([32, 64]))
def test_score_map_size_matches_for_any_image(height: int, width: int, round_up: bool, image_size: int) -> None:
    net = small("A", image_size, preprocessing=vd.Preprocessing(pool_round_up=round_up))
    x = torch.zeros(1, 3, height, width)
    if min(height, width) < net.least_size:
        with pytest.raises(UserError, match=f"least side is {net.least_size}"):
            net(x)
    else:
        assert tuple(net.score_map(x).shape[2:]) == score_map_size(net, height, width)


@pytest.mark.parametrize(("round_up", "least"), [(True, 193), (False, 224)])
def test_least_size(round_up: bool, least: int) -> None:
    net = small("A", 224, preprocessing=vd.Preprocessing(pool_round_up=round_up))
    assert net.least_size == least
    assert net.score_map(torch.zeros(1, 3, least, least)).shape[2:] == (1, 1)
    with pytest.raises(ValueError, match=str(least)):
        net(torch.zeros(1, 3, least - 1, 300))


def test_gradients_equal_those_of_plain_layers() -> None:
    # 64 channels in block 1, so that the byte-wise tape of ReLU and pool is used.
    for size, round_up in ((64, True), (71, True), (71, False)):
        net = small("A", 64, width=1.0, fc_width=4, preprocessing=vd.Preprocessing(pool_round_up=round_up)).double()
        x = torch.randn(2, 3, size, size, dtype=torch.float64, requires_grad=True)
        net(x).square().sum().backward()
        mine = [x.grad, *(p.grad for p in net.parameters())]
        y, plain = x.detach().clone().requires_grad_(), x.new_zeros(0)
        plain = y
        for name, layer in net.named_children():
            layer.zero_grad()
            plain = F.max_pool2d(plain, 2, ceil_mode=round_up) if name.startswith("pool") else layer(plain.clone())
        plain.mean(dim=(2, 3)).square().sum().backward()
        for a, b in zip(mine, [y.grad, *(p.grad for p in net.parameters())], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_dropout_is_half_on_fc6_and_fc7_only() -> None:
    net = vd.create("A", width=1 / 16, fc_width=16)
    rates = {name: layer.p for name, layer in net.named_children() if isinstance(layer, nn.Dropout)}
    assert rates == {"drop6": 0.5, "drop7": 0.5}


def test_seed_decides_the_weights() -> None:
    nets = [vd.create("B", classes=4, width=1 / 16, fc_width=8, image_size=32, seed=seed) for seed in (1, 1, 2)]
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "options", [{"image_size": 100}, {"image_size": 0}, {"width": 0}, {"classes": 0}, {"dropout": 1.0}, {"fc_width": 0}]
)
def test_impossible_networks_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="expected"):
        vd.create("A", **options)  # type: ignore[arg-type]


def test_preprocessing_by_hand(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    shifts = rng.normal(0, 10, (2, 3)).astype(np.float32)
    p = vd.Preprocessing(channel_order="BGR", value_range=1.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.5))
    found = p(torch.from_numpy(images), torch.from_numpy(shifts)).numpy()
    rgb = ((images + shifts[:, None, None, :].astype(np.float64)) / 255 - p.mean) / p.std
    np.testing.assert_allclose(found, rgb[..., ::-1].transpose(0, 3, 1, 2), atol=1e-5)
    assert vd.Preprocessing.from_dict(p.to_dict()) == p


@pytest.mark.parametrize(
    "layer", ["conv1_2", "conv3_2.relu", "pool4", "conv5_2.relu", "pool5", "fc6", "fc6.relu", "fc7"]
)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("round_up", [False, True])
def test_a_network_cut_behind_a_layer(layer, batch_norm, round_up, rng, tmp_path):
    like = {"width": 1 / 32, "fc_width": 8, "image_size": 64, "batch_norm": batch_norm}
    pre = vd.Preprocessing(pool_round_up=round_up)
    whole = vd.create("B", 3, **like, preprocessing=pre, seed=1).eval()
    trunk = vd.create("B", 0, **like, preprocessing=pre, seed=1, trunk=layer).eval()
    x = torch.from_numpy(rng.normal(size=(2, 3, 97, 130)).astype(np.float32))
    with torch.no_grad():
        map_ = whole.activations(x, layer)
        assert torch.equal(trunk.activations(x, layer), map_)
    assert trunk.layer_names == whole.layer_names[: whole.layer_names.index(layer) + 1]
    assert score_map_size(trunk, 97, 130) == tuple(map_.shape[2:])
    vd.save(trunk, tmp_path / "trunk.safetensors")
    assert vd.load(tmp_path / "trunk.safetensors").config == trunk.config
    with pytest.raises(UserError, match="gives features and no scores"):
        trunk(x)

    classifier = vd.create("B", 5, **like, preprocessing=pre, seed=1, trunk=layer).eval()
    with torch.no_grad():
        expected = torch.einsum("kc,nchw->nkhw", classifier.fc8.weight[:, :, 0, 0], map_)
        torch.testing.assert_close(classifier.score_map(x), expected)
    assert (classifier.stride, classifier.window) == (trunk.stride, trunk.window)
    side = classifier.least_size
    assert score_map_size(classifier, side, side) == (1, 1)
    with pytest.raises(UserError, match="too small"):
        classifier.check_size(side - 1, side)


def test_there_must_be_such_a_layer_to_cut_behind():
    with pytest.raises(UserError, match=r"B has no layer 'conv5_3': .*did you mean conv5_2\?"):
        vd.create("B", 0, trunk="conv5_3")


def test_scores_of_random_numbers_are_refused(tmp_path):
    net = vd.create("A", 3, width=1 / 64, fc_width=4)
    net.provenance = RunInfo(untrained_layers=("fc6", "fc7", "fc8"))  # as earlier versions wrote of a trunk
    with pytest.raises(UserError, match="whose fc6, fc7, fc8 are random numbers"):
        vd.predict(net, np.zeros((224, 224, 3), np.uint8))


def test_what_a_layer_gave_stays_as_it_is() -> None:
    """ReLUs work in place, but not on a map that somebody holds."""
    net = vd.create("A", 2, width=1 / 16, image_size=32, fc_width=8).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = net.activations(x, "conv3_1")
        kept = before.clone()
        after = net.activations(before, "conv3_2", after="conv3_1")
        torch.testing.assert_close(after, net.activations(x, "conv3_2"))
    torch.testing.assert_close(before, kept, rtol=0, atol=0)
