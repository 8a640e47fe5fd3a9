"""Where scores lie: published crops, an implementation of its own, padding either way, shifts, any size."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import verydeep as vd
from tests.segmentation.conftest import network
from verydeep.basics.errors import UserError
from verydeep.nets.config import SegmentationConfig
from verydeep.nets.fcn import FCN

HEADS = ["32s", "16s", "8s"]
# Crop layers of voc-fcn32s, -16s and -8s: of the pools' scores, and of the pixels.
PUBLISHED = {"32s": ([], 19), "16s": ([5], 27), "8s": ([5, 9], 31)}


def deconvolution(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the transposed convolution as a sum of shifted copies, one input at a time."""
    n, _, h, w = x.shape
    k = weight.shape[2]
    y = x.new_zeros(n, weight.shape[1], (h - 1) * stride + k, (w - 1) * stride + k)
    for i in range(h):
        for j in range(w):
            y[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += torch.einsum(
                "nc,cdab->ndab", x[:, :, i, j], weight
            )
    return y


def as_published(net: FCN, x: torch.Tensor, head: str) -> torch.Tensor:
    """Return what the published network gives: conv1_1 padded by 100, pools rounded up, crops as printed."""
    state, found = net.state_dict(), {}
    side = x.shape[2:]
    for name, module in net.chain:
        if isinstance(module, torch.nn.MaxPool2d):
            x = found[name] = F.max_pool2d(x, 2, 2, ceil_mode=True)
        elif isinstance(module, torch.nn.ReLU):
            x = x.relu()
        elif isinstance(module, torch.nn.Conv2d):
            padding = 100 if name == "conv1_1" else module.padding
            x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)
    crops, offset = PUBLISHED[head]
    for crop, pool, up in zip(crops, ("pool4", "pool3"), ("upscore2", "upscore_pool4"), strict=False):
        x = deconvolution(x, state[f"{up}.weight"], 2)
        skip = F.conv2d(found[pool], state[f"score_{pool}.weight"], state[f"score_{pool}.bias"])
        x = x + skip[:, :, crop : crop + x.shape[2], crop : crop + x.shape[3]]
    factor = {"32s": 32, "16s": 16, "8s": 8}[head]
    middle = factor - 0.5
    ramp = torch.tensor([1 - abs(i - middle) / factor for i in range(2 * factor)], dtype=x.dtype)
    weight = torch.einsum("cd,a,b->cdab", torch.eye(x.shape[1], dtype=x.dtype), ramp, ramp)
    x = deconvolution(x, weight, factor)
    return x[:, :, offset : offset + side[0], offset : offset + side[1]]


@pytest.mark.parametrize("head", HEADS)
def test_scores_are_those_of_the_published_network(head: str, rng: np.random.Generator) -> None:
    net = network(head, "image", image_size=224, width=1 / 64, fc_width=4).double()
    assert ([step.lag for step in net.steps], -net.last.lag) == PUBLISHED[head]
    height, width = rng.integers(20, 90, 2).tolist()
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = as_published(net, x, head)
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(("head", "side"), [("32s", 64), ("16s", 96), ("8s", 64), ("8s", 32)])
def test_both_paddings_agree_far_from_the_edges(head: str, side: int, monkeypatch) -> None:
    """Where no padding is seen the two networks are one, so each must put it in the same place.

    By 96 pixels instead of 99 all pools' windows are the same.
    """
    monkeypatch.setattr("verydeep.nets.fcn.IMAGE_PADDING", 96)
    net = network(head, "image", image_size=side, width=1 / 64, fc_width=4).double()
    other = network(head, "map", image_size=side, width=1 / 64, fc_width=4).double()
    other.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 600, 608, dtype=torch.float64)
    # A's pool5 sees 150 pixels, and fc6 and upsampling some cells of 32 beyond.
    torch.testing.assert_close(other(x)[..., 230:370, 230:370], net(x)[..., 230:370, 230:370])


@pytest.mark.parametrize("padding", ["image", "map"])
@pytest.mark.parametrize("name", ["A", "alexnet"])
def test_a_shifted_image_has_shifted_scores(name: str, padding: str) -> None:
    if name == "alexnet" and padding == "map":
        with pytest.raises(UserError, match="take image"):
            network("8s", padding, name, image_size=227)
        return
    size = {"image_size": 227} if name == "alexnet" else {}
    net = network("8s", padding, name, **size).double()
    x = torch.randn(1, 3, 640, 640, dtype=torch.float64)
    here, there = net(x), net(x[..., 32:, 64:])
    torch.testing.assert_close(there[..., 240:330, 240:300], here[..., 272:362, 304:364])


@pytest.mark.parametrize("padding", ["image", "map"])
@pytest.mark.parametrize("round_up", [True, False])
def test_every_size_has_a_score_for_each_pixel(padding: str, round_up: bool, rng: np.random.Generator) -> None:
    net = network("8s", padding, round_up=round_up)
    for height, width in [(1, 1), (31, 33), *rng.integers(2, 140, (3, 2)).tolist()]:
        assert net(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)


def test_a_new_head_begins_with_the_coarser_ones_answers() -> None:
    """Skips score 0 and upsampling is bilinear at first, so 16s and 8s differ from 32s only by interpolating twice."""
    nets = {
        head: vd.create("A", 3, width=1 / 64, fc_width=4, image_size=64, segmentation=SegmentationConfig(head, "map"))
        for head in HEADS
    }
    for head in ("16s", "8s"):
        assert not any(p.any() for n, p in nets[head].named_parameters() if n.startswith("score_"))
        for layer, module in nets[head].named_children():
            if layer in ("upscore2", "upscore_pool4"):
                ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
                assert torch.equal(module.weight, torch.einsum("cd,a,b->cdab", torch.eye(3), ramp, ramp))


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("zfnet", "8s", "needs a pool of stride 8"),
        ("overfeat-accurate", "32s", "stride is 36"),
    ],
)
def test_networks_whose_strides_do_not_allow_it_are_refused(name: str, head: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        vd.create(name, 3, width=1 / 64, fc_width=4, segmentation=SegmentationConfig(head))


def test_files_hold_the_head(tmp_path) -> None:
    net = network("16s", "image", name="B")
    vd.save(net, tmp_path / "w.safetensors")
    again = vd.load(tmp_path / "w.safetensors")
    assert again.config == net.config
    assert again.task == "segment"
    x = torch.randn(1, 3, 50, 40)
    assert torch.equal(again(x), net(x))
    plain = vd.create("B", 3, width=1 / 64, fc_width=4)
    assert "segmentation" not in plain.config.to_dict(), "files of other networks stay as they were"
    for call in (lambda: vd.predict(again, np.zeros((64, 64, 3), np.uint8)), lambda: vd.densify(again)):
        with pytest.raises(UserError, match="verydeep segment"):
            call()
