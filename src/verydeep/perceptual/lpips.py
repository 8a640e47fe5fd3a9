"""LPIPS: the learned perceptual metric of Zhang et al. (2018)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.nets.network import Network
from verydeep.perceptual.comparison import Comparison
from verydeep.perceptual.features import Features
from verydeep.perceptual.fitted import installed, read_fitted
from verydeep.perceptual.pixels import PictureOptions

LAYERS = ("conv1_2.relu", "conv2_2.relu", "conv3_3.relu", "conv4_3.relu", "conv5_3.relu")
"""The last of each block of D: what DISTS sees, too."""

_EPSILON = 1e-10
"""Added to the norm at each place, as the authors' program does."""

_CACHED = 2**21
"""Bytes of a map that are worked on at a time where no tape is kept: both maps' stay in the processor's cache."""


class LPIPS(Comparison):
    """Learned perceptual image patch similarity, version 0.1, by VGG-16 (configuration D).

    At every place of five layers the channels are brought to unit norm; the squared differences of both pictures are
    weighted by channel, averaged over places and summed over layers. 0 is the same picture.

    Parameters
    ----------
    net : Network
        D, whole or its trunk. Published figures are of torchvision's (`vd.trunk("torchvision:vgg16")`).
    weights : str or Path, optional
        The `vgg.pth` of version 0.1 with the five layers' weights of channels; by default the one in the installed
        package `lpips`.
    range, channels, check, engine
        As in `verydeep.features`. The authors' own program takes (-1, 1).

    Raises
    ------
    UserError
        Another network than D, no weights, or an array that is missing, too much or misshapen.
    """

    def __init__(self, net: Network, weights: str | Path | None = None, **given: Unpack[PictureOptions]) -> None:
        check_is_d(net, "LPIPS")
        super().__init__(Features(net, LAYERS, **given))
        names = [f"lin{number}.model.1.weight" for number, _ in enumerate(LAYERS)]
        shapes = {n: (1, self.features.channels(layer), 1, 1) for n, layer in zip(names, LAYERS, strict=True)}
        self.fitted_weights = read_fitted(weights or installed("lpips", "weights/v0.1/vgg.pth", "lpips"), shapes)
        for name, layer in zip(names, LAYERS, strict=True):
            values = self.fitted_weights.arrays[name].flatten().float().clone()
            self.register_buffer(_buffer(layer), values, persistent=False)

    def averages(self, layer: str, a: Tensor, b: Tensor) -> Tensor:
        """Return the layer's distances, (N,)."""
        return self._places(layer, a, b).mean(dim=(1, 2))

    def value(self, layer: str, averages: Tensor) -> Tensor:
        """Return them as they are."""
        return averages

    def spatial(self, pictures: Tensor, references: Tensor) -> Tensor:
        """Return where pictures differ, N x 1 x H x W: the layers' distances at their places, enlarged and summed.

        They are enlarged bilinearly, so that cells' centers stay where they are. Arguments and errors are those of a
        call. Gradients take the memory that torch's tape takes.
        """
        first, second = self.unit(pictures, references)
        with torch.autocast(first.device.type, enabled=False):
            size = first.shape[2:]
            places = (self._places(*layer)[:, None] for layer in self.maps(first, second))
            return torch.stack([F.interpolate(cells, size, mode="bilinear") for cells in places]).sum(dim=0)

    def _places(self, layer: str, a: Tensor, b: Tensor) -> Tensor:
        """Return a layer's distances at its places, N x h x w."""
        return weighted_differences(a, b, self.get_buffer(_buffer(layer)))

    @property
    def provenance(self) -> dict[str, Any]:
        """What distances are of, and computed with; JSON-able."""
        return {**super().provenance, "metric": "LPIPS 0.1 (vgg)", "weights": self.fitted_weights.provenance}

    def extra_repr(self) -> str:
        """Return whose weights of channels they are."""
        return f"weights: {self.fitted_weights}"


def check_is_d(net: Network, metric: str) -> None:
    """Raise UserError where a metric that is made of D's layers is given another network."""
    if net.configuration.name != "D" or net.batch_norm:
        norm = " with batch norm" if net.batch_norm else ""
        raise UserError(
            f"{metric} is defined by configuration D (VGG-16) without batch norm, not by {net.configuration.name}{norm}"
        )


def weighted_differences(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted squared distances, N x h x w, between the unit vectors of two maps in blocks of channels."""
    weight = by_blocks(weight.to(a.dtype), a)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return ((_unit(a) - _unit(b)).square() * weight).sum(dim=(1, 4))
    rows = max(1, _CACHED // (a[:, :, 0].numel() * a.element_size()))
    parts = zip(torch.split(a, rows, dim=2), torch.split(b, rows, dim=2), strict=True)
    return torch.cat([(_unit(p).sub_(_unit(q)).square_().mul_(weight)).sum(dim=(1, 4)) for p, q in parts], dim=1)


def _unit(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=4, keepdim=True) if x.shape[1] == 1 else _norm_of_blocks(x)
    return x * (norm + _EPSILON).reciprocal()


def _norm_of_blocks(x: Tensor) -> Tensor:
    return x.square().sum(dim=(1, 4), keepdim=True).sqrt()  # over two axes, torch's own norm takes many times as long


def by_blocks(weight: Tensor, blocks: Tensor) -> Tensor:
    """Return a number for each channel, (C,), as B x 1 x 1 x L beside a map in blocks, zeros for padding."""
    padded = F.pad(weight, (0, blocks.shape[1] * blocks.shape[4] - len(weight)))
    return padded.reshape(blocks.shape[1], 1, 1, blocks.shape[4])


def _buffer(layer: str) -> str:
    return layer.replace(".", "_")
