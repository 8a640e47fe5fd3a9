"""Networks that are chains of layers, built from the tables of other papers."""

from collections import OrderedDict
from typing import cast

from torch import nn

from verydeep.basics.errors import UserError
from verydeep.nets.architectures import Architecture, Row
from verydeep.nets.config import NetworkConfig
from verydeep.nets.ending import Named, channels_of, classifier, cut
from verydeep.nets.layers import Branches, ConvLinear, Dropout, LocalResponseNorm
from verydeep.nets.network import Network
from verydeep.nets.plain import plain_layers, sides

PAPERS_FC_WIDTH = 4096


class Chain(Network):
    """A network whose layers are those of a table (`verydeep.nets.architectures`), under its names.

    A fully connected layer, or a mean over the map, covers the map of an image of `image_size`, and slides over larger
    ones. UserError where nothing would be left of the map, or there is no such layer to cut behind.
    """

    def __init__(self, network: NetworkConfig) -> None:
        layers = cut(_layers(network), network)
        if network.trunk is not None:
            layers += classifier(channels_of(layers), 1, network)
        super().__init__(network, layers)
        if network.trunk is None:
            self.window = network.image_size


def _layers(config: NetworkConfig) -> list[Named]:
    """Return all layers, or those before the classifier up to the row that the network is cut in."""
    layers: list[Named] = []
    for row in _architecture(config).rows:
        if config.trunk is not None and row.name == config.classifier:
            break
        layers += _behind(_module(row, layers, config), row, config)
        if config.trunk is not None and row.name == config.trunk.removesuffix(".relu"):
            break
    return layers


def _architecture(config: NetworkConfig) -> Architecture:
    return cast(Architecture, config.configuration)


def _module(row: Row, before: list[Named], config: NetworkConfig) -> list[Named]:
    """Return the row's own layer, and a descriptor before the classifier where that is one on descriptors."""
    inputs = channels_of(before)
    side = _side(row, before, config) if row.kind in ("fc", "mean") else 1
    if row.name == config.classifier:
        return classifier(inputs, side, config)
    if row.kind == "conv":
        outputs = _channels(row.channels * config.width, _architecture(config).common_groups)
        return [(row.name, nn.Conv2d(inputs, outputs, row.kernel, row.stride, row.padding, groups=row.groups))]
    if row.kind == "inception":
        return [(row.name, _inception(row, inputs, config))]
    if row.kind == "fc":
        return [(row.name, ConvLinear(inputs, _channels(row.channels * config.fc_width / PAPERS_FC_WIDTH), side))]
    return [(row.name, _without_weights(row, side, config))]


def _inception(row: Row, inputs: int, config: NetworkConfig) -> Branches:
    one, before_three, three, before_five, five, behind_pool = (_channels(n * config.width) for n in row.branches)
    branches = {
        "1x1": {"conv": (one, 1)},
        "3x3": {"reduce": (before_three, 1), "conv": (three, 3)},
        "5x5": {"reduce": (before_five, 1), "conv": (five, 5)},
        "pool": {"conv": (behind_pool, 1)},
    }
    built = {name: _branch(convolutions, inputs, config) for name, convolutions in branches.items()}
    built["pool"] = nn.Sequential(OrderedDict([("max", nn.MaxPool2d(3, 1, 1)), *built["pool"].named_children()]))
    return Branches(built, one + three + five + behind_pool)


def _branch(convolutions: dict[str, tuple[int, int]], inputs: int, config: NetworkConfig) -> nn.Sequential:
    """Return convolutions of so many channels and such kernels that keep the map's size, a ReLU behind each."""
    layers: list[Named] = []
    for name, (outputs, kernel) in convolutions.items():
        layers.append((name, nn.Conv2d(channels_of(layers) if layers else inputs, outputs, kernel, 1, kernel // 2)))
        if config.batch_norm:
            layers.append((f"bn_{name}", nn.BatchNorm2d(outputs)))
        layers.append((f"relu_{name}", nn.ReLU(inplace=True)))
    return nn.Sequential(OrderedDict(layers))


def _without_weights(row: Row, side: int, config: NetworkConfig) -> nn.Module:
    if row.kind == "pool":
        return nn.MaxPool2d(row.kernel, row.stride, row.padding, ceil_mode=config.preprocessing.pool_round_up)
    if row.kind == "mean":
        return nn.AvgPool2d(side, 1)
    return Dropout(config.dropout) if row.kind == "drop" else LocalResponseNorm(alpha=config.lrn_alpha)


def _behind(layers: list[Named], row: Row, config: NetworkConfig) -> list[Named]:
    """Return a row's layer with the batch norm and the ReLU that follow it."""
    name, module = layers[-1]
    if row.kind == "conv" and config.batch_norm and name != config.classifier:
        layers = [*layers, (beside(name, "bn"), nn.BatchNorm2d(cast(nn.Conv2d, module).out_channels))]
    relu = row.kind in ("conv", "fc") and row.relu
    return [*layers, (beside(name, "relu"), nn.ReLU(inplace=True))] if relu else layers


def beside(name: str, kind: str) -> str:
    """Return the name of what stands behind a layer: `bn1` behind `conv1`, `relu6` behind `fc6`, else `relu_cccp1`."""
    prefix = next((known for known in ("conv", "fc") if name.startswith(known)), "")
    return name.replace(prefix, kind, 1) if prefix else f"{kind}_{name}"


def _channels(wanted: float, groups: int = 1) -> int:
    return groups * max(1, round(wanted / groups))


def _side(row: Row, before: list[Named], config: NetworkConfig) -> int:
    """Return the side of the map that comes to a row from an image as large as the network's window."""
    found = [config.image_size, *sides(plain_layers(before, config.preprocessing.pool_round_up), config.image_size)]
    if min(found) < 1:
        raise UserError(
            f"image_size is {config.image_size}: nothing of it is left before {row.name} of {config.configuration.name}"
            f", which is made for {config.configuration.image_size}; give more"
        )
    return found[-1]
