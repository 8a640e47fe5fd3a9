"""A network as plain layers: convolutions with their batch norm folded in, ReLUs, max-pools, normalizations.

Engines, exported files and the geometry all start from these records, whatever modules a family is written with.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verydeep.nets.layers import LocalResponseNorm, ViewDescriptor


@dataclass(frozen=True)
class Conv:
    """A convolution of stride 1 and the batch norm behind it; a fully connected layer is one without padding."""

    name: str
    module: nn.Conv2d
    norm: nn.BatchNorm2d | None = None

    @property
    def kernel(self) -> int:
        """Side of the square kernel."""
        return self.module.kernel_size[0]

    @property
    def padding(self) -> int:
        """Zeros around the map."""
        return int(self.module.padding[0])

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights, out x in x k x k, and biases of the one convolution that does both, without gradients."""
        weight, bias = self.module.weight.detach(), self.module.bias
        before = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias.detach()
        return (weight, before) if self.norm is None else fold(weight, before, self.norm)

    def side(self, side: int) -> int:
        """Return the outputs along an axis that `side` inputs give."""
        return side - self.kernel + 1 + 2 * self.padding

    def least(self, side: int) -> int:
        """Return how few inputs along an axis give `side` outputs."""
        return side + self.kernel - 1 - 2 * self.padding


@dataclass(frozen=True)
class Relu:
    """A ReLU."""

    name: str


@dataclass(frozen=True)
class MaxPool:
    """A 2x2 max-pool of stride 2; an odd side's last line makes an output of its own where it rounds up."""

    name: str
    round_up: bool

    def side(self, side: int) -> int:
        """Return the outputs along an axis that `side` inputs give."""
        return (side + self.round_up) // 2

    def least(self, side: int) -> int:
        """Return how few inputs along an axis give `side` outputs."""
        return 2 * side - self.round_up


@dataclass(frozen=True)
class Normalization:
    """What divides a map by something of its own: local response normalization, or a descriptor's norm."""

    name: str
    module: LocalResponseNorm | ViewDescriptor


Plain = Conv | Relu | MaxPool | Normalization


def plain_layers(modules: Iterable[tuple[str, nn.Module]], round_up: bool) -> list[Plain]:
    """Return named modules as plain layers, in the order in which they run; dropout, nothing in testing, is left out.

    Batch norm stands behind its convolution; `round_up` is of the pools' outputs. TypeError for a module that no record
    stands for.
    """
    layers: list[Plain] = []
    for name, module in modules:
        if isinstance(module, nn.Conv2d):
            layers.append(Conv(name, module))
        elif isinstance(module, nn.BatchNorm2d) and layers and isinstance(last := layers[-1], Conv) and not last.norm:
            layers[-1] = Conv(last.name, last.module, module)
        elif isinstance(module, nn.ReLU):
            layers.append(Relu(name))
        elif isinstance(module, nn.MaxPool2d):
            layers.append(MaxPool(name, round_up))
        elif isinstance(module, LocalResponseNorm | ViewDescriptor):
            layers.append(Normalization(name, module))
        elif not isinstance(module, nn.Dropout):
            raise TypeError(f"layer {name}: a {type(module).__name__} is none of the plain layers")
    return layers


def fold(weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weights and biases of the convolution that does its batch norm, too.

    `g (W x + b - m) / s + h` is a convolution with weights `g W / s` and biases `g (b - m) / s + h`; computed in
    float64, so that only the rounding to the weights' own type remains.
    """
    scale, mean, offset = statistics(norm)
    shifted = (bias.double() - mean) * scale + offset
    return (weight.double() * scale[:, None, None, None]).to(weight.dtype), shifted.to(weight.dtype)


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, m and h of what batch norm does in testing, a (x - m) + h, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, deviation = norm.running_mean.double(), torch.sqrt(norm.running_var.double() + norm.eps)
    if not norm.affine:
        return 1 / deviation, mean, torch.zeros_like(mean)
    return norm.weight.detach().double() / deviation, mean, norm.bias.detach().double()


def stride(layers: Sequence[Plain]) -> int:
    """Return the pixels between neighboring cells of the last layer's map."""
    return int(2 ** sum(isinstance(layer, MaxPool) for layer in layers))


def sides(layers: Sequence[Plain], side: int) -> list[int]:
    """Return the outputs along an axis that each layer gives for `side` pixels."""
    found = []
    for layer in layers:
        if isinstance(layer, Conv | MaxPool):
            side = layer.side(side)
        found.append(side)
    return found


def least_size(layers: Sequence[Plain]) -> int:
    """Return the side in pixels of the smallest image that gives a map."""
    side = 1
    for layer in reversed(layers):
        if isinstance(layer, Conv | MaxPool):
            side = layer.least(side)
    return side
