"""How far a distance is off where pictures are given otherwise than the weights want them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from verydeep.checkpoints.inputs import CONVENTIONS
from verydeep.nets.families import trunk_of
from verydeep.nets.network import Network
from verydeep.perceptual.pictures import MetricName, make_metric, on_tensors

Change = Callable[[Tensor], Tensor]

_MISTAKES: dict[str, tuple[Change, dict[str, Any]]] = {
    "pictures from 0 to 1, taken for -1 to 1": (lambda x: x, {"range": (-1, 1)}),
    "pictures from -1 to 1, taken for 0 to 1": (lambda x: 2 * x - 1, {"range": (0, 1)}),
    "pictures from 0 to 255, taken for 0 to 1": (lambda x: 255 * x, {"range": (0, 1)}),
    "pictures in BGR, taken for RGB": (lambda x: x.flip(1), {"range": (0, 1)}),
    "at half the size": (lambda x: _resized(x, x.shape[2] // 2, x.shape[3] // 2), {"range": (0, 1)}),
    "squeezed to 224 x 224": (lambda x: _resized(x, 224, 224), {"range": (0, 1)}),
}


def audit(
    name: MetricName, net: Network, pair: list[Tensor], fitted: Path | None = None
) -> Iterator[tuple[str, float]]:
    """Yield each way of giving a pair of pictures (uint8, 1 x 3 x H x W), and the distance; the right one first."""
    unit = [x / 255 for x in pair]
    own = net.preprocessing

    def distance(trunk: Network, change: Change, words: dict[str, Any]) -> float:
        metric = make_metric(name, trunk, fitted, check="never", **words).to(unit[0].device)
        return float(on_tensors(metric, [change(x) for x in unit]))

    yield "as these weights want them", distance(net, lambda x: x, {"range": (0, 1)})
    for words, given in CONVENTIONS.items():
        given = replace(given, pool_round_up=own.pool_round_up, interpolation=own.interpolation)
        if given != own:
            other = trunk_of(net)
            other.preprocessing = given
            yield f"the network fed {words}", distance(other, lambda x: x, {"range": (0, 1)})
    least = net.least_size
    for words, (change, said) in _MISTAKES.items():
        if min(change(unit[0]).shape[2:]) >= least:
            yield words, distance(net, change, said)


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    if min(height, width) < 1:
        return torch.empty(0, 3, 0, 0)
    return F.interpolate(x, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
