"""DISTS: deep image structure and texture similarity (Ding et al. 2020)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from verydeep.nets.network import Network
from verydeep.perceptual.comparison import PIXELS, Comparison, moments, wide
from verydeep.perceptual.features import Features
from verydeep.perceptual.fitted import installed, read_fitted
from verydeep.perceptual.lpips import LAYERS, check_is_d
from verydeep.perceptual.pixels import PictureOptions

_C = 1e-6
"""The paper's constants c1 and c2 (equations 3 and 4)."""

L2_LEAST = 1e-12
"""Added to mean squares before their root is taken, as the authors' program does: its slope stays finite."""


class DISTS(Comparison):
    """Deep image structure and texture similarity, by VGG-16 (configuration D) with L2 pooling.

    Means of each channel say how alike textures are, correlations how alike structures are, in five layers and the
    picture itself; one minus their weighted sum is the distance. 0 is the same picture.

    Parameters
    ----------
    net : Network
        D, whole or its trunk. Published figures are of torchvision's (`vd.trunk("torchvision:vgg16")`).
    weights : str or Path, optional
        The authors' `weights.pt` (pyiqa's `DISTS_weights` are the same arrays) with `alpha` and `beta`; by default the
        one of the installed package `dists-pytorch`.
    range, channels, check, engine
        As in `verydeep.features`.

    Raises
    ------
    UserError
        Another network than D, no weights, or an array that is missing, too much or misshapen.
    """

    of_pixels = True

    def __init__(self, net: Network, weights: str | Path | None = None, **given: Unpack[PictureOptions]) -> None:
        check_is_d(net, "DISTS")
        super().__init__(Features(net, LAYERS, l2_pool, **given))
        self.layers = (PIXELS, *LAYERS)
        self.widths = [3, *(self.features.channels(layer) for layer in LAYERS)]
        shape = (1, sum(self.widths), 1, 1)
        file = weights or installed("DISTS_pytorch", "weights.pt", "dists-pytorch")
        self.fitted_weights = read_fitted(file, {"alpha": shape, "beta": shape})
        shares = torch.stack([self.fitted_weights.arrays[name].flatten().float() for name in ("alpha", "beta")])
        self.register_buffer("fitted", shares, persistent=False)

    def averages(self, layer: str, a: Tensor, b: Tensor) -> Tensor:
        """Return the moments of both maps, and of their difference, N x 3 x 2 x C."""
        means = [x.mean((2, 3), keepdim=True) for x in (a, b)]
        a, b = (x - mean for x, mean in zip((a, b), means, strict=True))
        return torch.stack([moments(means[0], a), moments(means[1], b), moments(means[0] - means[1], a - b)], dim=1)

    def value(self, layer: str, averages: Tensor) -> Tensor:
        """Return how far a layer's maps are apart, (N,): in texture by `alpha`, in structure by `beta`.

        These are one minus the paper's similarities (equations 3 and 4), one fraction each: alike maps give 0.
        """
        number = self.layers.index(layer)
        fitted = wide(self.get_buffer("fitted"))
        alpha, beta = torch.split(fitted / fitted.sum(), self.widths, dim=1)[number]
        means, squares = averages[..., : self.widths[number]].unbind(2)
        variances = (squares - means.square()).clamp_min(0)
        texture = means[:, 2].square() / (means[:, 0].square() + means[:, 1].square() + _C)
        structure = variances[:, 2] / (variances[:, 0] + variances[:, 1] + _C)
        apart: Tensor = (alpha * texture + beta * structure).sum(dim=1)
        return apart

    @property
    def provenance(self) -> dict[str, Any]:
        """What distances are of, and computed with; JSON-able."""
        return {**super().provenance, "weights": self.fitted_weights.provenance}

    def extra_repr(self) -> str:
        """Return whose weights of channels they are."""
        return f"weights: {self.fitted_weights}"


def l2_pool(x: Tensor) -> Tensor:
    """Return a map in blocks, N x B x h x w x L, at half its size: the root mean square in Hann windows of 3 x 3."""
    x = _half(_half(x.square(), 2), 3)
    return (x + L2_LEAST).sqrt()


def _half(x: Tensor, axis: int) -> Tensor:
    """Weight neighbors along an axis by 1/4, 1/2, 1/4, zeros beyond the border, and take every second place."""
    size = x.shape[axis]
    even, odd = (x[(slice(None),) * axis + (slice(start, None, 2),)] for start in (0, 1))
    before = torch.cat([torch.zeros_like(even.narrow(axis, 0, 1)), odd], dim=axis).narrow(axis, 0, even.shape[axis])
    behind = odd if size % 2 == 0 else torch.cat([odd, torch.zeros_like(even.narrow(axis, 0, 1))], dim=axis)
    return even / 2 + (before + behind) / 4
