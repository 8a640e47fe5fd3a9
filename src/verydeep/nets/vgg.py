"""The paper's networks: stacks of 3x3 convolutions, five pools, three fully connected layers."""

import re

from torch import nn

from verydeep.nets.config import STRIDE, NetworkConfig
from verydeep.nets.configurations import Configuration
from verydeep.nets.ending import channels_of, classifier, cut
from verydeep.nets.hub import HubMixin
from verydeep.nets.layers import ConvLinear, Dropout, LocalResponseNorm
from verydeep.nets.network import Network


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
        layers = cut([*convolutions, *_fully_connected(channels, config)], config)
        kernel = 1 if config.trunk is not None or config.hidden else config.image_size // STRIDE
        super().__init__(config, [*layers, *classifier(channels_of(layers), kernel, config)])

    @property
    def configuration(self) -> Configuration:
        """Which of the paper's configurations it is."""
        assert isinstance(self.config.configuration, Configuration)
        return self.config.configuration


def is_head(name: str) -> bool:
    """Say whether a layer stands behind the convolutions: `fc6` to `fc8`, `relu6` and so on."""
    return re.fullmatch(r"(fc|relu|drop)[678](_\d+)?", name) is not None


def _convolutions(config: NetworkConfig) -> tuple[list[tuple[str, nn.Module]], int]:
    """Return the named layers from conv1_1 to pool5 and the channels that come out."""
    layers: list[tuple[str, nn.Module]] = []
    before, papers = 3, config.configuration
    assert isinstance(papers, Configuration)
    for b, block in enumerate(papers.blocks, start=1):
        for i, conv in enumerate(block, start=1):
            channels = max(1, round(conv.channels * config.width))
            # The bias in front of batch norm stays: it costs nothing and keeps one set of names for all.
            layers.append((f"conv{b}_{i}", nn.Conv2d(before, channels, conv.kernel, padding=conv.kernel // 2)))
            if config.batch_norm:
                layers.append((f"bn{b}_{i}", nn.BatchNorm2d(channels)))
            layers.append((f"relu{b}_{i}", nn.ReLU(inplace=True)))
            before = channels
        if papers.lrn and b == 1:
            layers.append(("norm1", LocalResponseNorm(alpha=config.lrn_alpha)))
        layers.append((f"pool{b}", nn.MaxPool2d(2)))
    return layers, before


def _fully_connected(channels: int, config: NetworkConfig) -> list[tuple[str, nn.Module]]:
    """Return the named layers from fc6 to drop7, or of another head's."""
    layers: list[tuple[str, nn.Module]] = []
    before, kernel = channels, config.image_size // STRIDE
    for name, size in config.hidden.items():
        layers += [(name, ConvLinear(before, size, kernel)), (name.replace("fc", "relu"), nn.ReLU(inplace=True))]
        layers.append((name.replace("fc", "drop"), Dropout(config.dropout)))
        before, kernel = size, 1
    return layers
