"""Small networks of every kind, and what they compute, written down a second time in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

import verydeep as vd
from verydeep.nets.run_info import RunInfo
from verydeep.nets.vgg import VGG

# Configuration, batch norm, preprocessing: every layer, both roundings of the pools, both channel orders, division.
KINDS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "A-LRN": ("A-LRN", False, {}),
    "C with batch norm": (
        "C",
        True,
        {
            "channel_order": "BGR",
            "value_range": 1.0,
            "mean": (0.5, 0.4, 0.3),
            "std": (0.2, 0.3, 0.4),
            "pool_round_up": False,
        },
    ),
}


def make_net(kind: str = "A-LRN") -> VGG:
    """Return a small network with random weights, in evaluation mode."""
    name, batch_norm, preprocessing = KINDS[kind]
    net = vd.create(
        name,
        [f"class {i}" for i in range(7)],
        width=1 / 16,
        image_size=64,
        fc_width=16,
        batch_norm=batch_norm,
        initialization="he",
        preprocessing=vd.Preprocessing(**preprocessing),
    )
    for layer_name, layer in net.named_children():
        if layer_name.startswith("bn"):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_()
        elif hasattr(layer, "bias"):
            layer.bias.data.normal_(std=0.1)
    net.provenance = RunInfo(data="made up")
    net.eval()
    with torch.no_grad():  # posteriors that are neither flat nor certain
        scores = net(net.preprocessing(torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8)))
        net.get_submodule("fc8").weight.data /= float(scores.std())
    return net


def make_pictures(folder: Path, rng: np.random.Generator) -> Path:
    """Write seven pictures of smooth random color, of several sizes, into a new folder; return it."""
    folder.mkdir()
    for i in range(7):
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((90 + 10 * i, 150 - 10 * i), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def pixels64(net: VGG, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What goes into the network for uint8 N x H x W x 3: N x 3 x H x W, by numpy in float64."""
    about = net.preprocessing
    values = (images.astype(np.float64) / 255 * about.value_range - np.array(about.mean)) / np.array(about.std)
    return (values[..., ::-1] if about.channel_order == "BGR" else values).transpose(0, 3, 1, 2).copy()


def score_map64(net: VGG, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The score map, N x K x h x w, from the weights file's tensors alone, in float64."""
    state = {name: tensor.detach().double() for name, tensor in net.state_dict().items()}
    x = torch.tensor(pixels64(net, images))
    for b, block in enumerate(net.configuration.blocks, start=1):
        for i, conv in enumerate(block, start=1):
            x = F.conv2d(x, state[f"conv{b}_{i}.weight"], state[f"conv{b}_{i}.bias"], padding=conv.kernel // 2)
            if net.batch_norm:
                mean, var, g, c = (
                    state[f"bn{b}_{i}.{key}"][:, None, None]
                    for key in ("running_mean", "running_var", "weight", "bias")
                )
                x = (x - mean) / (var + 1e-5).sqrt() * g + c
            x = x.clamp(min=0)
        if net.configuration.lrn and b == 1:
            padded = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
            x = x / (2 + net.config.lrn_alpha * sum(padded[:, i : i + x.shape[1]] for i in range(5))) ** 0.75
        if net.preprocessing.pool_round_up:  # what is pooled is not negative: a border of zeros never wins
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        h, w = x.shape[2] // 2, x.shape[3] // 2
        x = x[:, :, : 2 * h, : 2 * w].reshape(*x.shape[:2], h, 2, w, 2).amax(dim=(3, 5))
    for name in ("fc6", "fc7", "fc8"):
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])
        x = x if name == "fc8" else x.clamp(min=0)
    return x.numpy()


def softmax64(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result
