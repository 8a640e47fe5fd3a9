"""Batch norm's statistics of a network that is to be tested."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from verydeep.datasets.loader import Batch
from verydeep.nets.network import Network
from verydeep.training.step import arithmetic, set_training


def trained_batch_norm(net: Network) -> dict[str, nn.BatchNorm2d]:
    """Return the batch norm whose statistics follow the data: all but that of layers that are not trained."""
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    return {name: layer for name, layer in layers.items() if layer.weight.requires_grad}


@torch.no_grad()
def measure_statistics(
    net: Network, batches: Iterable[Batch], parts: Callable[[Batch], Iterable[Tensor]], precision: str
) -> None:
    """Replace a copy's running statistics by the means of those of some batches of training views.

    Running statistics are of weights that have changed since, and after a few steps still mostly what they began with,
    mean 0 and variance 1; an average of several steps' weights has none of its own at all. `parts`, which says what
    images go through the network together, and `precision` are training's.
    """
    layers = trained_batch_norm(net)
    if not layers:
        return
    device = next(net.parameters()).device
    set_training(net)
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of all batches
    last = list(layers)[-1].partition(".")[0]
    last = net.normalized.get(last, last)
    with arithmetic(device, precision):
        for batch in batches:
            for part in parts(batch):
                x = net.preprocessing(batch.images[part].to(device), batch.shifts[part].to(device))
                net.activations(x, last)
