"""The paper's networks: stacks of 3x3 convolutions, five pools, three fully connected layers."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from typing_extensions import Unpack

from verydeep.nets.config import STRIDE, NetworkConfig, NetworkOptions
from verydeep.nets.configurations import configuration
from verydeep.nets.hub import HubMixin
from verydeep.nets.initialization import initialize
from verydeep.nets.layers import ConvLinear, LocalResponseNorm, ViewDescriptor
from verydeep.nets.network import Network, TaskName, find_layer
from verydeep.nets.weights import read


class VGG(Network, HubMixin):
    """A very deep ConvNet, convolutional from the first layer to the scores.

    The layers stand in order under the paper's names: `conv1_1`, `relu1_1`, ..., `pool5`, `fc6`, `relu6`, `drop6`,
    `fc7`, `relu7`, `drop7`, `fc8`; with batch norm also `bn1_1` and so on, in A-LRN `norm1`. One that is cut behind a
    layer ends there, or, with classes, has a 1x1 `fc8` behind it. Where `fc8` classifies descriptors, a layer
    `descriptor` before it makes one view's map fit for it.

    Parameters
    ----------
    network : NetworkConfig
        What it is. `create` makes one from single values.

    Attributes
    ----------
    config : NetworkConfig
        What the network is.
    provenance : dict
        What is known of the weights' origin: data, scales, recipe, seed; JSON-able.
    stride : int
        As in `Network`: 32, or less where the network is cut before pool5.
    window : int
        As in `Network`: `image_size`, or the stride where the network is cut before fc6.

    Raises
    ------
    UserError
        There is no such layer to cut behind.
    """

    def __init__(self, network: NetworkConfig) -> None:
        config = network  # called so, since the hub's mix-in has a meaning of its own for `config`
        convolutions, channels = _convolutions(config)
        layers = [*convolutions, *_fully_connected(channels, config)]
        kernel = 1
        if config.trunk is not None:
            layers, channels = _cut(layers, config)
        elif config.hidden:
            channels = [*config.hidden.values()][-1]
        else:
            kernel = config.image_size // STRIDE
        if about := config.descriptor:
            if about.normalize != "none" or about.copies > 1:
                layers.append(("descriptor", ViewDescriptor(about.normalize != "none", about.copies, about.share)))
            channels *= about.copies
        if config.classes:
            layers.append(("fc8", ConvLinear(channels, config.outputs, kernel)))
        super().__init__(config, layers)


def trunk_of(net: VGG, layer: str | None = None) -> VGG:
    """Return a network cut behind a layer before fc8, by default its convolutions alone; tensors are shared.

    UserError where it has no such layer.
    """
    last = layer or net.config.trunk or "pool5"
    head = net.config.head if is_head(net.module_name(last)) else None
    with torch.device("meta"):
        trunk = VGG(replace(net.config, classes=(), trunk=last, head=head, descriptor=None))
    trunk.load_state_dict({name: net.state_dict()[name] for name in trunk.state_dict()}, assign=True)
    trunk.provenance = replace(net.provenance, multi_label=None)
    return trunk.train(net.training)


def is_head(name: str) -> bool:
    """Say whether a layer stands behind the convolutions: `fc6` to `fc8`, `relu6` and so on."""
    return re.fullmatch(r"(fc|relu|drop)[678](_\d+)?", name) is not None


def _convolutions(config: NetworkConfig) -> tuple[list[tuple[str, nn.Module]], int]:
    """Return the named layers from conv1_1 to pool5 and the channels that come out."""
    layers: list[tuple[str, nn.Module]] = []
    before = 3
    for b, block in enumerate(config.configuration.blocks, start=1):
        for i, conv in enumerate(block, start=1):
            channels = max(1, round(conv.channels * config.width))
            # The bias in front of batch norm stays: it costs nothing and keeps one set of names for all.
            layers.append((f"conv{b}_{i}", nn.Conv2d(before, channels, conv.kernel, padding=conv.kernel // 2)))
            if config.batch_norm:
                layers.append((f"bn{b}_{i}", nn.BatchNorm2d(channels)))
            layers.append((f"relu{b}_{i}", nn.ReLU(inplace=True)))
            before = channels
        if config.configuration.lrn and b == 1:
            layers.append(("norm1", LocalResponseNorm(alpha=config.lrn_alpha)))
        layers.append((f"pool{b}", nn.MaxPool2d(2)))
    return layers, before


def _fully_connected(channels: int, config: NetworkConfig) -> list[tuple[str, nn.Module]]:
    """Return the named layers from fc6 to drop7, or of another head's."""
    layers: list[tuple[str, nn.Module]] = []
    before, kernel = channels, config.image_size // STRIDE
    for name, size in config.hidden.items():
        layers += [(name, ConvLinear(before, size, kernel)), (name.replace("fc", "relu"), nn.ReLU(inplace=True))]
        layers.append((name.replace("fc", "drop"), nn.Dropout(config.dropout)))
        before, kernel = size, 1
    return layers


def _cut(layers: list[tuple[str, nn.Module]], config: NetworkConfig) -> tuple[list[tuple[str, nn.Module]], int]:
    """Return the layers up to the one that the network is cut behind, and the channels that come out there."""
    assert config.trunk is not None
    last = find_layer(config.trunk, layers, config.configuration.name)
    kept = layers[: [name for name, _ in layers].index(last) + 1]
    return kept, next(layer.out_channels for _, layer in reversed(kept) if isinstance(layer, nn.Conv2d))


def create(
    configuration_name: str,
    classes: int | Sequence[str] = 1000,
    *,
    initialization: str = "glorot",
    seed: int | None = None,
    **network: Unpack[NetworkOptions],
) -> VGG:
    """Make a network with random weights.

    Parameters
    ----------
    configuration_name : str
        `A`, `A-LRN`, `B`, `C`, `D`, `E` or `B-5x5`.
    classes : int or sequence of str
        Their number (they are then named `0`, `1`, ...) or their names in order.
    initialization : str
        `glorot`, `he`, or `normal(STD)`; see `verydeep.nets.initialization`. The default is the one that the
        paper's camera-ready version recommends, because it starts networks of any depth.
    seed : int, optional
        Makes the weights a function of the seed; without it they follow torch's global generator.
    **network
        Fields of `NetworkConfig` that are to be other than the paper's: width, batch_norm, image_size, fc_width,
        dropout, lrn_alpha (where alpha is divided by 5, as in torch, give a fifth), preprocessing, regression, trunk.

    Returns
    -------
    VGG
        In training mode, float32.

    Raises
    ------
    UserError
        Unknown configuration or initialization, or a size that makes no network.

    Examples
    --------
    >>> net = create("A", classes=10, width=1 / 16, image_size=64, fc_width=32)
    >>> net(torch.zeros(2, 3, 64, 96)).shape, net.score_map(torch.zeros(2, 3, 64, 96)).shape
    (torch.Size([2, 10]), torch.Size([2, 10, 1, 2]))
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    config = NetworkConfig(configuration(configuration_name), tuple(names), **network)
    return with_random_weights(config, initialization, seed)


def with_random_weights(config: NetworkConfig, initialization: str = "glorot", seed: int | None = None) -> VGG:
    """Make the network that `config` describes; the other parameters are those of `create`."""
    with torch.device("meta"):  # no time lost on torch's own initialization
        net = VGG(config)
    net.to_empty(device="cpu")
    initialize(net, initialization, seed)
    return net


def load(path: str | Path, task: TaskName | None = None) -> VGG:
    """Read a network from a file that `save` wrote.

    Parameters
    ----------
    path : str or Path
        The file.
    task : {"classify", "localize", "describe"}, optional
        What it must have been made for; by default either will do.

    Returns
    -------
    VGG
        On the CPU, in evaluation mode, with `classes`, `preprocessing` and `provenance` as saved.

    Raises
    ------
    UserError
        No such file, not a weights file of this project, made for another task, or tensors that do not fit the
        configuration.
    """
    return read(path, VGG, task)
