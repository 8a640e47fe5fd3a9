"""Networks of every family: made, cut, read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from typing_extensions import Unpack

from verydeep.nets.chain import Chain
from verydeep.nets.config import NetworkConfig, NetworkOptions
from verydeep.nets.configurations import Configuration, configuration
from verydeep.nets.fcn import FCN
from verydeep.nets.googlenet import GoogLeNet
from verydeep.nets.initialization import initialize
from verydeep.nets.network import Network, TaskName
from verydeep.nets.vgg import VGG, is_head
from verydeep.nets.weights import read


def make(config: NetworkConfig) -> Network:
    """Return the network that `config` describes, its weights torch's own random ones; of its family's class."""
    if config.segmentation:
        return FCN(config, make(replace(config, segmentation=None, auxiliary=False)))
    if isinstance(config.configuration, Configuration):
        return VGG(config)
    return GoogLeNet(config) if config.configuration.auxiliary else Chain(config)


def make_on_meta(config: NetworkConfig) -> Network:
    """Return the network that `config` describes, its weights on the meta device: shapes and no memory."""
    with torch.device("meta"):
        return make(config)


def default_config(name: str, classes: Sequence[str], **network: Unpack[NetworkOptions]) -> NetworkConfig:
    """Return what a network of this name is, in what `network` does not say as its paper has it."""
    known = configuration(name)
    options: NetworkOptions = {"image_size": known.image_size, "dropout": known.dropout}
    options.update(network)
    return NetworkConfig(known, tuple(classes), **options)


def trunk_of(net: Network, layer: str | None = None) -> Network:
    """Return a network cut behind a layer before its classifier, by default its convolutions alone; tensors are shared.

    UserError where it has no such layer.
    """
    config = net.config
    last = layer or config.trunk or config.configuration.trunk
    head = config.head if is_head(net.module_name(last)) else None
    trunk = make_on_meta(replace(config, classes=(), trunk=last, head=head, descriptor=None, segmentation=None))
    trunk.load_state_dict({name: net.state_dict()[name] for name in trunk.state_dict()}, assign=True)
    trunk.provenance = replace(net.provenance, multi_label=None)
    return trunk.train(net.training)


def create(
    configuration_name: str,
    classes: int | Sequence[str] = 1000,
    *,
    initialization: str | None = None,
    seed: int | None = None,
    **network: Unpack[NetworkOptions],
) -> Network:
    """Make a network with random weights.

    Parameters
    ----------
    configuration_name : str
        The paper's `A`, `A-LRN`, `B`, `C`, `D`, `E` or `B-5x5`; or a network that the paper compares with: `alexnet`,
        `zfnet`, `overfeat-fast`, `overfeat-accurate`, `nin`, `googlenet`.
    classes : int or sequence of str
        Their number (they are then named `0`, `1`, ...) or their names in order.
    initialization : str, optional
        `glorot`, `he`, `normal(STD)`, or `paper`; see `verydeep.nets.initialization`. The default for the paper's
        networks is `glorot`, which its camera-ready version recommends, because it starts networks of any depth; for
        the others `paper`: what theirs say, or where they are silent (`googlenet`) `glorot`, too.
    seed : int, optional
        Makes the weights a function of the seed; without it they follow torch's global generator.
    **network
        Fields of `NetworkConfig` that are to be other than the paper's: width, batch_norm, image_size, fc_width,
        dropout, lrn_alpha (where alpha is divided by 5, as in torch, give a fifth), preprocessing, regression, trunk,
        auxiliary.

    Returns
    -------
    Network
        A `VGG`, or another family's. In training mode, float32.

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
    return with_random_weights(default_config(configuration_name, names, **network), initialization, seed)


def with_random_weights(config: NetworkConfig, initialization: str | None = None, seed: int | None = None) -> Network:
    """Make the network that `config` describes; the other parameters are those of `create`."""
    net = make_on_meta(config)  # no time lost on torch's own initialization
    net.to_empty(device="cpu")
    initialize(net, initialization or config.configuration.initialization, seed)
    return net


def load(path: str | Path, task: TaskName | None = None) -> Network:
    """Read a network from a file that `save` wrote.

    Parameters
    ----------
    path : str or Path
        The file.
    task : {"classify", "localize", "describe"}, optional
        What it must have been made for; by default either will do.

    Returns
    -------
    Network
        On the CPU, in evaluation mode, with `classes`, `preprocessing` and `provenance` as saved.

    Raises
    ------
    UserError
        No such file, not a weights file of this project, made for another task, or tensors that do not fit the
        configuration.
    """
    return read(path, make, task)
