"""Random weights, and the paper's pre-initialization from a shallower network (section 3.1)."""

import math
import re

import torch
from torch import nn

from verydeep.basics.errors import UserError
from verydeep.nets.architectures import Architecture
from verydeep.nets.layers import SkipScore, Upsampling
from verydeep.nets.network import Network

PAPERS_STD = 0.01

COPIED_FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
"""The layers that deeper networks take from A. The paper says "the first four convolutional layers and the last three
fully-connected layers"; only by name do the shapes fit, since A's second layer is 64 -> 128 and B's 64 -> 64."""


def standard_deviation(scheme: str, fan_in: int, fan_out: int) -> float:
    """Return the standard deviation of a layer's random weights.

    Parameters
    ----------
    scheme : str
        `normal(STD)`: the same everywhere; the paper prints "variance 10^-2", which taken literally is
        normal(0.1) and diverges at once, so that normal(0.01) is surely meant.
        `glorot`: sqrt(2 / (fan_in + fan_out)), Glorot & Bengio (2010), recommended by the camera-ready version.
        `he`: sqrt(2 / fan_in), He et al. (2015), which keeps the signal of ReLU networks constant.
        `paper`: of a network that the paper compares with what its own paper says, layer by layer, biases included
        (`verydeep.nets.architectures`); else normal(0.01).
    fan_in, fan_out : int
        Inputs and outputs of one unit: kernel area times channels.

    Examples
    --------
    >>> standard_deviation("normal(0.01)", 27, 576), standard_deviation("he", 8, 100)
    (0.01, 0.5)
    """
    if scheme == "he":
        return math.sqrt(2 / fan_in)
    if scheme == "glorot":
        return math.sqrt(2 / (fan_in + fan_out))
    if scheme == "paper":
        return PAPERS_STD
    match = re.fullmatch(r"normal\((\d+\.?\d*(?:e-?\d+)?)\)", scheme)
    if match is None:
        raise UserError(f"initialization is {scheme!r}, expected paper, normal(STD) such as normal(0.01), glorot or he")
    return float(match.group(1))


@torch.no_grad()
def initialize(net: Network, scheme: str, seed: int | None = None) -> None:
    """Draw all weights anew: zero-mean normal, biases 0, batch norm the identity, upsampling bilinear, skips 0.

    Without a seed they follow torch's global generator; schemes are `standard_deviation`'s.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    about = net.configuration
    if scheme == "paper" and about.initialization != "paper" and isinstance(about, Architecture):
        raise UserError(f"initialization paper: {about.name}'s paper says nothing of it; take glorot or he")
    table = about.rows if scheme == "paper" and isinstance(about, Architecture) else ()
    rows = {row.name: row for row in table}
    for name, layer in net.named_modules():
        if isinstance(layer, SkipScore | Upsampling):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d):
            fans = layer.weight[0].numel(), layer.weight[:, 0].numel() // layer.groups
            row = rows.get(name)
            layer.weight.normal_(0.0, row.std if row else standard_deviation(scheme, *fans), generator=generator)
            if layer.bias is not None:
                layer.bias.fill_(row.bias if row else 0.0)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.reset_parameters()


@torch.no_grad()
def copy_layers(
    source: Network, target: Network, names: tuple[str, ...] | None = None, without: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Copy layers with weights, and their batch norm, by name, by default all but `without`; return the names.

    UserError where a layer is missing in one of the two or its shape differs; nothing is copied then.
    """
    wanted = names or target.weighted
    if source.batch_norm != target.batch_norm:
        has, lacks = ("has", "has none") if source.batch_norm else ("has none", "has")
        raise UserError(f"cannot copy layers: their network {has} batch norm, the one that takes them {lacks}")
    for name in without:
        _keys(name, target.state_dict(), target.configuration.name)
    wanted = tuple(name for name in wanted if name not in without)
    available, state = source.state_dict(), target.state_dict()
    layers = [*wanted, *(norm for norm, layer in target.normalized.items() if layer in wanted)]
    keys = [key for layer in layers for key in _keys(layer, state, target.configuration.name)]
    for key in keys:
        found = tuple(available[key].shape) if key in available else "no such layer"
        if found != tuple(state[key].shape):
            raise UserError(
                f"cannot copy {key} from {source.configuration.name} to {target.configuration.name}: "
                f"expected {tuple(state[key].shape)}, found {found}"
            )
    target.load_state_dict({key: available[key] for key in keys}, strict=False)
    return wanted


def _keys(layer: str, state: dict[str, torch.Tensor], network: str) -> list[str]:
    keys = [key for key in state if key.startswith(f"{layer}.")]
    if not keys:
        raise UserError(f"cannot copy {layer}: configuration {network} has no such layer")
    return keys
