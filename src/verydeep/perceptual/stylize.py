"""The content of one picture in the style of another (Gatys et al. 2016)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.images.files import open_picture
from verydeep.images.rescale import rescale, rescaled_size
from verydeep.inference.memory import beyond, tape_bytes
from verydeep.nets.network import Network
from verydeep.perceptual.features import Features
from verydeep.perceptual.losses import CONTENT, STYLE, gram

Picture = NDArray[np.uint8]

STYLE_WEIGHT = 20.0

COARSEST = 64
"""Least side of the first, smallest picture."""

NOISE = 0.1
"""Share of noise in what the search begins with. From noise alone it takes longer, and grain remains of it."""

_MEMORY = 20  # pairs of gradients and steps that L-BFGS remembers
_LEAST = 1e-6  # mean activation of a layer that is not dead


def stylize(
    net: Network,
    content: Any,
    style: Any,
    size: int = 384,
    steps: int = 200,
    style_weight: float = STYLE_WEIGHT,
    seed: int = 0,
    on_step: Callable[[Picture], None] | None = None,
) -> Picture:
    """Paint what is in one picture in the style of another, as Gatys, Ecker and Bethge did (2016).

    A picture is sought whose map `conv4_2.relu` is the content picture's, and whose Gram matrices of `conv1_1.relu` to
    `conv5_1.relu` are those of the style picture (equations 1 to 7 there): by L-BFGS-B, from the content picture with a
    little noise on. It is sought at a small size first, and what is found begins the search at twice that size. In
    place of a network with rescaled weights, each layer's maps are divided by their mean over the given picture; pools
    stay maxima.

    Parameters
    ----------
    net : Network
        A trunk or a whole network, on the device that is to do the work.
    content, style : path, bytes, PIL image or uint8 array of shape (H, W, 3)
        The pictures. Both are rescaled so that their smallest side is that of the picture sought.
    size : int, default 384
        Smallest side of the result in pixels; its proportions are the content's.
    steps : int, default 200
        Of L-BFGS-B at each size. Time is in proportion.
    style_weight : float, default 20
        Above 0; more gives up more of the content.
    seed : int, default 0
        Of the noise. The same seed, machine and threads give the same picture.
    on_step : callable, optional
        Given the picture so far, uint8 (h, w, 3), behind every step; what it raises ends the work.

    Returns
    -------
    NDArray
        uint8, (H, W, 3), RGB.

    Raises
    ------
    UserError
        A picture that cannot be read, or a number that is none.
    """
    if size < net.least_size or steps < 1 or not 0 < style_weight < float("inf") or seed < 0:
        raise UserError(
            f"size {size}, steps {steps}, style_weight {style_weight}, seed {seed}: expected a size of at least "
            f"{net.least_size}, steps of at least 1, a weight above 0 and no negative seed"
        )
    pictures = [open_picture(content, "the content"), open_picture(style, "the style")]
    features = Features(net, sorted({*CONTENT, *STYLE}))
    device = next(net.parameters()).device
    found: Tensor | None = None
    for side in sides(size):
        content_, style_ = (_unit(rescale(picture, side)).to(device) for picture in pictures)
        aim = Aim.of(features, content_, style_, style_weight)
        if found is None:
            noise = torch.from_numpy(generator(seed).random(content_.shape, np.float32)).to(device)
            found = torch.lerp(content_, noise, NOISE)
        else:
            found = F.interpolate(found, content_.shape[2:], mode="bicubic", antialias=True).clamp(0, 1)
        found = _search(aim.value, found, steps, on_step)
    assert found is not None
    return _bytes(found)


def check_memory(net: Network, content: Picture, size: int, memory: int) -> None:
    """Raise UserError where the steps at full size would take more than `memory` bytes."""
    height, width = rescaled_size(content.shape[0], content.shape[1], size)
    needs = tape_bytes(net, height, width)
    needs += 8 * 3 * height * width * (2 * _MEMORY + 10)  # L-BFGS-B's own, in float64
    if reason := beyond(memory, needs, f"{width} x {height} pixels", "give more, or a smaller --size"):
        raise UserError(reason)


def sides(size: int) -> list[int]:
    """Return the smallest sides of the pictures, from the coarsest to `size`, each half of the next."""
    found = [size]
    while found[0] // 2 >= COARSEST:
        found.insert(0, found[0] // 2)
    return found


@dataclass(frozen=True)
class Aim:
    """What is sought: maps of the content, Gram matrices over places of the style, and each layer's weight."""

    features: Features
    content: Mapping[str, Tensor]
    style: Mapping[str, Tensor]
    weights: Mapping[str, float]

    @classmethod
    def of(cls, features: Features, content: Tensor, style: Tensor, style_weight: float) -> "Aim":
        """Return the aim that pictures, RGB from 0 to 1, 1 x 3 x h x w, set."""
        # With gradients, as the search goes: so maps are laid out alike.
        maps = {layer: x.detach() for layer, x in _maps(features, content.clone().requires_grad_()) if layer in CONTENT}
        styles = {layer: x.detach() for layer, x in _maps(features, style.clone().requires_grad_()) if layer in STYLE}
        means = {layer: max(float(x.mean()), _LEAST) for layer, x in {**maps, **styles}.items()}
        weights = {
            **{layer: weight / means[layer] ** 2 for layer, weight in CONTENT.items()},
            **{layer: style_weight * weight / means[layer] ** 4 for layer, weight in STYLE.items()},
        }
        return cls(features, maps, {layer: _statistic(x) for layer, x in styles.items()}, weights)

    def value(self, picture: Tensor) -> Tensor:
        """Return how far a picture is from the aim."""
        total = picture.new_zeros(())
        for layer, x in _maps(self.features, picture):
            if layer in self.content:
                total = total + self.weights[layer] * (x - self.content[layer]).square().mean()
            if layer in self.style:
                total = total + self.weights[layer] * (_statistic(x) - self.style[layer]).square().mean() / 4
        return total


def _maps(features: Features, unit: Tensor) -> Any:
    return zip(features.in_order, features.walk(features.input(unit)), strict=True)


def _statistic(blocks: Tensor) -> Tensor:
    return gram(blocks) / (blocks.shape[2] * blocks.shape[3])


def _search(
    value: Callable[[Tensor], Tensor], start: Tensor, steps: int, on_step: Callable[[Picture], None] | None
) -> Tensor:
    """Return the picture, all of whose numbers are from 0 to 1, that so many steps of L-BFGS-B come to."""

    def as_picture(x: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(x).to(start).reshape(start.shape)

    def slope(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        picture = as_picture(x).requires_grad_()
        found = value(picture)
        (gradient,) = torch.autograd.grad(found, picture)
        return float(found.detach()), gradient.double().cpu().numpy().ravel()

    def after(x: NDArray[np.float64]) -> None:
        if on_step:
            on_step(_bytes(as_picture(x)))

    options = {"maxiter": steps, "maxfun": 10 * steps, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
    x = start.double().cpu().numpy().ravel()
    found = minimize(slope, x, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * x.size, callback=after, options=options)
    return as_picture(found.x)


def _unit(picture: Picture) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None] / 255


def _bytes(unit: Tensor) -> Picture:
    array: Picture = (unit[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
    return array
