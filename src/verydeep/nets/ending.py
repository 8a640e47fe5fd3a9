"""Where a network ends: cut behind a layer, and with a classifier of its own."""

from collections.abc import Sequence

from torch import nn

from verydeep.nets.config import NetworkConfig
from verydeep.nets.layers import Branches, ConvLinear, ViewDescriptor
from verydeep.nets.network import find_layer

Named = tuple[str, nn.Module]


def cut(layers: Sequence[Named], config: NetworkConfig) -> list[Named]:
    """Return the layers up to the one that the network is cut behind: all where it is whole."""
    if config.trunk is None:
        return list(layers)
    last = find_layer(config.trunk, layers, config.configuration.name)
    return list(layers[: [name for name, _ in layers].index(last) + 1])


def channels_of(layers: Sequence[Named]) -> int:
    """Return the channels that come out."""
    return next((layer.out_channels for _, layer in reversed(layers) if isinstance(layer, nn.Conv2d | Branches)), 3)


def classifier(channels: int, kernel: int, config: NetworkConfig) -> list[Named]:
    """Return the layers that make classes of so many channels: none where there are no classes."""
    layers: list[Named] = []
    if about := config.descriptor:
        if about.normalize != "none" or about.copies > 1:
            layers.append(("descriptor", ViewDescriptor(about.normalize != "none", about.copies, about.share)))
        channels *= about.copies
    if config.classes:
        layers.append((config.classifier, ConvLinear(channels, config.outputs, kernel)))
    return layers
