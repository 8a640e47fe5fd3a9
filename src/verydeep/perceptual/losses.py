"""Losses by layers of a network: content and style (Gatys et al. 2016), and any layers, weighted."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.nets.network import Network
from verydeep.perceptual.comparison import Comparison, moments
from verydeep.perceptual.features import Features
from verydeep.perceptual.pixels import PictureOptions

Norm = Literal["l1", "l2"]
Statistic = Literal["gram", "mean-variance"]
Weights = Mapping[str, float]

CONTENT: Weights = {"conv4_2.relu": 1.0}
STYLE: Weights = {f"conv{block}_1.relu": 0.2 for block in range(1, 6)}

_LEAST_VARIANCE = 1e-12
"""A smaller one, beside the mean's square, is taken for zero: the root's slope grows without limit there."""


class _Weighted(Comparison):
    """A sum over layers of one kind of difference of maps, each layer's by its weight."""

    def __init__(self, net: Network, layers: Weights, **given: Unpack[PictureOptions]) -> None:
        if not isinstance(layers, Mapping) or not all(0 < weight < float("inf") for weight in layers.values()):
            raise UserError(f"layers {layers!r}: expected layers' names with weights above 0, as in {dict(CONTENT)}")
        super().__init__(Features(net, tuple(layers), **given))
        self.weights = dict(layers)

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

    def averages(self, layer: str, a: Tensor, b: Tensor) -> Tensor:
        """Return the mean difference, (N,), over places and channels."""
        apart = (a - b).abs() if self.norm == "l1" else (a - b).square()
        return apart.sum(dim=(1, 2, 3, 4)) / (self.features.channels(layer) * a.shape[2] * a.shape[3])

    def value(self, layer: str, averages: Tensor) -> Tensor:
        """Return it by its weight."""
        return self.weights[layer] * averages


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

    def averages(self, layer: str, a: Tensor, b: Tensor) -> Tensor:
        """Return both maps' Gram matrices over their places, N x 2 x C x C, or moments, N x 2 x 2 x C."""
        if self.statistic == "gram":
            return torch.stack([gram(x) / (x.shape[2] * x.shape[3]) for x in (a, b)], dim=1)
        means = [x.mean((2, 3), keepdim=True) for x in (a, b)]
        return torch.stack([moments(mean, x - mean) for mean, x in zip(means, (a, b), strict=True)], dim=1)

    def value(self, layer: str, averages: Tensor) -> Tensor:
        """Return the difference of both, (N,), by its weight."""
        channels = self.features.channels(layer)
        if self.statistic == "gram":
            apart = averages[:, 0] - averages[:, 1]
            return self.weights[layer] * apart.square().sum(dim=(1, 2)) / (4 * channels**2)
        means, spreads = averages[:, :, 0], _deviation(averages)
        apart = (means[:, 0] - means[:, 1]).square() + (spreads[:, 0] - spreads[:, 1]).square()
        return self.weights[layer] * apart.sum(dim=1) / channels


def _deviation(moments: Tensor) -> Tensor:
    """Return standard deviations, N x 2 x C, from both pictures' moments."""
    means, squares = moments.unbind(2)
    variance, least = squares - means.square(), _LEAST_VARIANCE * (1 + means.detach().square())
    return torch.where(variance > least, variance, least).sqrt() * (variance > least)


def gram(blocks: Tensor) -> Tensor:
    """Return the Gram matrices, N x C x C, of maps in blocks of channels; of padding they are 0."""
    rows = blocks.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)
    return rows @ rows.transpose(1, 2)
