"""Losses by layers of a network: content and style (Gatys et al. 2016), and any layers, weighted."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.nets.network import Network
from verydeep.perceptual.comparison import Comparison
from verydeep.perceptual.features import Features
from verydeep.perceptual.pixels import PictureOptions

Norm = Literal["l1", "l2"]
Statistic = Literal["gram", "mean-variance"]
Weights = Mapping[str, float]

CONTENT: Weights = {"conv4_2.relu": 1.0}
STYLE: Weights = {f"conv{block}_1.relu": 0.2 for block in range(1, 6)}

_LEAST_VARIANCE = 1e-12
"""A smaller one is taken for zero: the root's slope grows without limit there."""


class _Weighted(Comparison):
    """A sum over layers of one kind of difference of maps, each layer's by its weight."""

    difference: Callable[[Tensor, Tensor, int], Tensor]

    def __init__(self, net: Network, layers: Weights, **given: Unpack[PictureOptions]) -> None:
        if not isinstance(layers, Mapping) or not all(0 < weight < float("inf") for weight in layers.values()):
            raise UserError(f"layers {layers!r}: expected layers' names with weights above 0, as in {dict(CONTENT)}")
        super().__init__(Features(net, tuple(layers), **given))
        self.weights = dict(layers)

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the weighted distances, (N,), of RGB pictures from 0 to 1."""
        maps = self.maps(first, second)
        values = [self.weights[n] * self.difference(a, b, self.features.channels(n)) for n, a, b in maps]
        return torch.stack(values).sum(dim=0)

    @property
    def provenance(self) -> dict[str, Any]:
        """What distances are of, and computed with; JSON-able."""
        return {**super().provenance, "kind": self.kind, "layers": self.weights}

    @property
    def kind(self) -> str:
        """What is compared, in a word."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return what is compared in which layers."""
        return f"{self.kind}, {', '.join(f'{layer} x {weight:g}' for layer, weight in self.weights.items())}"


class PerceptualLoss(_Weighted):
    """A weighted sum over layers of the mean absolute or squared difference of their maps.

    Parameters
    ----------
    net : Network
        The network.
    layers : mapping of str to float
        Weights above 0 by names of layers: `conv5_4` is before the ReLU, `conv5_4.relu` after it.
    norm : {"l1", "l2"}
        The mean over channels and places of absolute, or of squared differences (Johnson et al. 2016).
    range, channels, check, engine
        As in `verydeep.features`.

    Raises
    ------
    UserError
        No such layer, or a weight or word that is none.
    """

    def __init__(self, net: Network, layers: Weights, norm: Norm = "l1", **given: Unpack[PictureOptions]) -> None:
        if norm not in get_args(Norm):
            raise UserError(f"norm is {norm!r}, expected l1 or l2")
        super().__init__(net, layers, **given)
        self.norm = norm

    @property
    def kind(self) -> str:
        """What is compared, in a word."""
        return self.norm

    def difference(self, a: Tensor, b: Tensor, channels: int) -> Tensor:
        """Return the mean difference, (N,), of maps in blocks with so many channels."""
        apart = (a - b).abs() if self.norm == "l1" else (a - b).square()
        return apart.sum(dim=(1, 2, 3, 4)) / (channels * a.shape[2] * a.shape[3])


class ContentLoss(PerceptualLoss):
    """The mean squared difference of maps: by default of `conv4_2` after its ReLU, the layer of Gatys et al. (2016).

    Their equation 1 is half the sum: this times C h w / 2. Parameters are those of `PerceptualLoss`.
    """

    def __init__(self, net: Network, layers: Weights = CONTENT, **given: Unpack[PictureOptions]) -> None:
        super().__init__(net, layers, "l2", **given)


class StyleLoss(_Weighted):
    """The difference of what stays of maps when places are forgotten.

    Parameters
    ----------
    net : Network
        The network.
    layers : mapping of str to float
        Weights above 0 by names of layers; by default the first of each block after its ReLU, 1/5 each, as in Gatys et
        al. (2016).
    statistic : {"gram", "mean-variance"}
        `gram`: the sum of squared differences of the Gram matrices over 4 C^2 M^2, for C channels and M places
        (equations 3 to 5 there). `mean-variance`: the mean over channels of the squared differences of means and of
        standard deviations (Li et al. 2017).
    range, channels, check, engine
        As in `verydeep.features`.

    Raises
    ------
    UserError
        No such layer, or a weight or word that is none.
    """

    def __init__(
        self,
        net: Network,
        layers: Weights = STYLE,
        statistic: Statistic = "gram",
        **given: Unpack[PictureOptions],
    ) -> None:
        if statistic not in get_args(Statistic):
            raise UserError(f"statistic is {statistic!r}, expected gram or mean-variance")
        super().__init__(net, layers, **given)
        self.statistic = statistic

    @property
    def kind(self) -> str:
        """What is compared, in a word."""
        return self.statistic

    def difference(self, a: Tensor, b: Tensor, channels: int) -> Tensor:
        """Return the difference of statistics, (N,), of maps in blocks with so many channels."""
        if self.statistic == "gram":
            places = a.shape[2] * a.shape[3]
            apart = (gram(a) - gram(b)) / places
            return apart.square().sum(dim=(1, 2)) / (4 * channels**2)
        over = (2, 3)
        means = a.mean(over) - b.mean(over)
        spreads = _deviation(a) - _deviation(b)
        return (means.square() + spreads.square()).sum(dim=(1, 2)) / channels


def _deviation(blocks: Tensor) -> Tensor:
    variance = blocks.var((2, 3), correction=0)
    return torch.where(variance > _LEAST_VARIANCE, variance.clamp_min(_LEAST_VARIANCE).sqrt(), 0)


def gram(blocks: Tensor) -> Tensor:
    """Return the Gram matrices, N x C x C, of maps in blocks of channels; of padding they are 0."""
    rows = blocks.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)
    return rows @ rows.transpose(1, 2)
