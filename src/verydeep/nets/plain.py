"""A network as plain layers: convolutions with their batch norm folded in, ReLUs, pools, normalizations, branches.

Engines, exported files and the geometry all start from these records, whatever modules a family is written with.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from verydeep.nets.layers import Branches, LocalResponseNorm, ViewDescriptor


@dataclass(frozen=True)
class Conv:
    """A convolution and the batch norm behind it; a fully connected layer is one without stride or padding."""

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

    @property
    def stride(self) -> int:
        """Inputs from one output to the next."""
        return self.module.stride[0]

    @property
    def groups(self) -> int:
        """Parts of the channels that see nothing of each other: two in Krizhevsky's network."""
        return self.module.groups

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights, out x in x k x k, and biases of the one convolution that does both, without gradients."""
        weight, bias = self.module.weight.detach(), self.module.bias
        before = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias.detach()
        return (weight, before) if self.norm is None else fold(weight, before, self.norm)

    def side(self, side: int) -> int:
        """Return the outputs along an axis that `side` inputs give."""
        return (side + 2 * self.padding - self.kernel) // self.stride + 1

    def least(self, side: int) -> int:
        """Return how few inputs along an axis give `side` outputs."""
        return max(1, (side - 1) * self.stride + self.kernel - 2 * self.padding)


@dataclass(frozen=True)
class Relu:
    """A ReLU."""

    name: str


@dataclass(frozen=True)
class MaxPool:
    """A max-pool; where it rounds up, inputs left over at the end make an output of their own."""

    name: str
    round_up: bool
    kernel: int = 2
    stride: int = 2
    padding: int = 0

    @property
    def halves(self) -> bool:
        """Whether it is the 2x2 pool of stride 2."""
        return (self.kernel, self.stride, self.padding) == (2, 2, 0)

    def side(self, side: int) -> int:
        """Return the outputs along an axis that `side` inputs give."""
        left_over = self.stride - 1 if self.round_up else 0
        outputs = (side + 2 * self.padding - self.kernel + left_over) // self.stride + 1
        return min(outputs, (side + self.padding - 1) // self.stride + 1)  # a window begins inside

    def least(self, side: int) -> int:
        """Return how few inputs along an axis give `side` outputs."""
        left_over = self.stride - 1 if self.round_up else 0
        begins = (side - 1) * self.stride + 1 - self.padding
        return max(1, begins, (side - 1) * self.stride + self.kernel - 2 * self.padding - left_over)


@dataclass(frozen=True)
class MeanPool:
    """The mean of a window that slides over the map, without padding."""

    name: str
    kernel: int
    stride: int = 1

    def side(self, side: int) -> int:
        """Return the outputs along an axis that `side` inputs give."""
        return (side - self.kernel) // self.stride + 1

    def least(self, side: int) -> int:
        """Return how few inputs along an axis give `side` outputs."""
        return (side - 1) * self.stride + self.kernel


@dataclass(frozen=True)
class Normalization:
    """What divides a map by something of its own: local response normalization, or a descriptor's norm."""

    name: str
    module: LocalResponseNorm | ViewDescriptor


@dataclass(frozen=True)
class Branch:
    """Layers beside others, none of which changes the map's size."""

    layers: "tuple[Plain, ...]"

    @property
    def kernel(self) -> int:
        """Side of the window that one output sees."""
        return 1 + sum(layer.kernel - 1 for layer in self.layers if isinstance(layer, Slides))


@dataclass(frozen=True)
class Concatenation:
    """Branches that see the same map, and whose outputs' channels follow one another."""

    name: str
    module: Branches
    branches: tuple[Branch, ...]

    stride = 1

    @property
    def kernel(self) -> int:
        """Side of the window that one output sees."""
        return max(branch.kernel for branch in self.branches)

    @property
    def padding(self) -> int:
        """How far that window reaches over the map's edge."""
        return self.kernel // 2

    def side(self, side: int) -> int:
        """Return the outputs along an axis that `side` inputs give."""
        return side

    least = side


Plain = Conv | Relu | MaxPool | MeanPool | Normalization | Concatenation
Slides = Conv | MaxPool | MeanPool | Concatenation
"""Layers whose outputs see more than one place."""


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
            layers.append(_max_pool(name, module, round_up))
        elif isinstance(module, nn.AvgPool2d) and not (_one(module.padding) or module.ceil_mode):
            layers.append(MeanPool(name, _one(module.kernel_size), _one(module.stride)))
        elif isinstance(module, LocalResponseNorm | ViewDescriptor):
            layers.append(Normalization(name, module))
        elif isinstance(module, Branches):
            layers.append(Concatenation(name, module, _branches(name, module, round_up)))
        elif not isinstance(module, nn.Dropout):
            raise TypeError(f"layer {name}: a {type(module).__name__} is none of the plain layers")
    return layers


def _branches(name: str, module: Branches, round_up: bool) -> tuple[Branch, ...]:
    """Return each branch's layers, under their names behind the module's and the branch's."""
    return tuple(
        Branch(tuple(plain_layers(((f"{name}_{part}_{n}", m) for n, m in branch.named_children()), round_up)))
        for part, branch in module.named_children()
    )


def channels_out(layers: Sequence[Plain], before: int = 3) -> int:
    """Return how many channels come out, where `before` come in."""
    known = (layer for layer in reversed(layers) if isinstance(layer, Conv | Concatenation))
    return next((layer.module.out_channels for layer in known), before)


def convolutions(layers: Iterable[Plain]) -> Iterator[Conv]:
    """Yield the convolutions, those of branches among them."""
    for layer in layers:
        if isinstance(layer, Conv):
            yield layer
        elif isinstance(layer, Concatenation):
            for branch in layer.branches:
                yield from convolutions(branch.layers)


def _max_pool(name: str, module: nn.MaxPool2d, round_up: bool) -> MaxPool:
    return MaxPool(name, round_up, *(_one(value) for value in (module.kernel_size, module.stride, module.padding)))


def _one(value: int | tuple[int, ...]) -> int:
    """Return the number of a square window."""
    return value if isinstance(value, int) else value[0]


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
    return prod(layer.stride for layer in layers if isinstance(layer, Slides))


def sides(layers: Sequence[Plain], side: int) -> list[int]:
    """Return the outputs along an axis that each layer gives for `side` pixels."""
    found = []
    for layer in layers:
        if isinstance(layer, Slides):
            side = layer.side(side)
        found.append(side)
    return found


def least_size(layers: Sequence[Plain]) -> int:
    """Return the side in pixels of the smallest image that gives a map."""
    side = 1
    for layer in reversed(layers):
        if isinstance(layer, Slides):
            side = layer.least(side)
    return side
