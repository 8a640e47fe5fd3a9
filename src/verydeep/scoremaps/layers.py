"""A network as a flat list of layers that slide over the image, each with the pointwise layers behind it.

Activations are rows x columns x channels in memory, so that rows of an image that is read from top to bottom are
appended and dropped without being copied around.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

Pointwise = Callable[[Tensor], Tensor]
"""Works on rows x columns x channels, each place by itself; may change its input."""

_WORKSPACE = 64 * 2**20  # bytes of windows laid out at a time for a matrix product


@dataclass(frozen=True)
class Axis:
    """How a layer slides along one axis.

    Attributes
    ----------
    kernel, stride, dilation : int
        As torch means them.
    before, after : int
        Padding, where the image ends and nowhere else.
    overhang : int
        How far the last window may reach over the padded end: above 0 where a pool's size is rounded up.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    overhang: int = 0

    @property
    def extent(self) -> int:
        """Inputs from the first to the last that one output sees."""
        return self.dilation * (self.kernel - 1) + 1

    def size(self, n: int) -> int:
        """Return how many outputs `n` inputs give; 0 where there are too few."""
        outputs = (n + self.before + self.after + self.overhang - self.extent) // self.stride + 1
        if self.overhang:  # a window must begin inside
            outputs = min(outputs, (n + self.before - 1) // self.stride + 1)
        return max(outputs, 0)

    def start(self, output: int) -> int:
        """Return the first input that output `output` sees, negative in the padding."""
        return output * self.stride - self.before

    def needs(self, start: int, stop: int, n: int) -> tuple[int, int]:
        """Return the range of the `n` inputs that the outputs from `start` to before `stop` depend on, at least one.

        Outputs that see nothing but padding need none; one is given all the same, for its size and type.
        """
        first = min(max(self.start(start), 0), n - 1)
        return first, max(min(self.start(stop - 1) + self.extent, n), first + 1)

    def ready(self, have: int) -> int:
        """Return how many outputs, from the first, see nothing from input `have` on."""
        return (have + self.before - self.extent) // self.stride + 1


@dataclass(frozen=True)
class Layer(ABC):
    """A layer that slides, and what is done to each of its outputs.

    Attributes
    ----------
    name : str
        For plans and messages.
    rows, columns : Axis
        Geometry.
    inputs, outputs : int
        Channels.
    macs : int
        Multiply-adds of one output place.
    fill : float
        What its padding holds: 0, or minus infinity before a max-pool.
    behind : tuple of callables
        Pointwise layers that follow.
    """

    name: str
    rows: Axis
    columns: Axis
    inputs: int
    outputs: int
    macs: int = 0
    fill: float = 0.0
    behind: tuple[Pointwise, ...] = ()

    def __call__(self, x: Tensor, left: int, right: int) -> Tensor:
        """Run on exactly the rows that some outputs need; rows are padded already, columns not.

        Rows x columns x channels in and out, contiguous; what comes out is no view of `x`.
        """
        x = self.slide(x, left, right)
        for pointwise in self.behind:
            x = pointwise(x)
        return x

    @abstractmethod
    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Run the layer without the pointwise ones behind it."""

    def workspace(self, rows: int, columns: int) -> int:
        """Return the bytes that `slide` takes beside input and output, for so many rows and columns of these."""
        return 0

    def padded(self, x: Tensor, left: int, right: int) -> Tensor:
        """Return `x` with columns of `fill` added, or taken away where the numbers are negative."""
        x = F.pad(x, (0, 0, max(left, 0), max(right, 0)), value=self.fill) if left > 0 or right > 0 else x
        return x[:, max(-left, 0) : x.shape[1] - max(-right, 0)].contiguous() if left < 0 or right < 0 else x


@dataclass(frozen=True)
class Convolution(Layer):
    """A convolution.

    Attributes
    ----------
    weight : Tensor
        Outputs x inputs / groups x kernel rows x kernel columns.
    bias : Tensor or None
        One an output.
    groups : int
        As torch means them.
    """

    weight: Tensor = field(kw_only=True)
    bias: Tensor | None = field(kw_only=True)
    groups: int = field(kw_only=True)

    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Convolve: by a matrix product where windows need no laying out or are a fully connected layer's."""
        if self._as_product:
            return self._product(self.padded(x, left, right))
        if left != right:
            x, left = self.padded(x, left, right), 0
        strides, dilations = (self.rows.stride, self.columns.stride), (self.rows.dilation, self.columns.dilation)
        image = x[None].permute(0, 3, 1, 2)  # stored channels last
        y = F.conv2d(image, self._weight, self.bias, strides, (0, left), dilations, self.groups)
        return y[0].permute(1, 2, 0).contiguous()

    @cached_property
    def _as_product(self) -> bool:
        one = self.groups == self.rows.stride == self.columns.stride == 1
        covers = self.rows.kernel * self.columns.kernel
        fully_connected = self.rows.before == self.columns.before == 0 and self.inputs * covers >= 1024
        return one and (covers == 1 or fully_connected)

    @cached_property
    def _weight(self) -> Tensor:
        return self.weight.contiguous(memory_format=torch.channels_last)

    def _product(self, x: Tensor) -> Tensor:
        """Convolve as a product of all windows, some rows and columns at a time, with the weights."""
        height, width, channels = x.shape
        kernel = self.weight.shape[2:]
        rows, columns = height - self.rows.extent + 1, width - self.columns.extent + 1
        weight = self.weight.flatten(1)
        if kernel.numel() == 1:
            return F.linear(x, weight, self.bias)
        down, across, _ = x.stride()
        steps = (down, across, 1, down * self.rows.dilation, across * self.columns.dilation)
        windows = x.as_strided((rows, columns, channels, *kernel), steps)
        y = x.new_empty(rows, columns, self.outputs)
        some = max(1, _WORKSPACE // (weight.shape[1] * x.element_size()))  # windows at a time
        for row in range(rows):
            for column in range(0, columns, some):
                part = windows[row, column : column + some].flatten(1)
                y[row, column : column + some] = F.linear(part, weight, self.bias)
        return y

    def workspace(self, rows: int, columns: int) -> int:
        """Return the bytes of the windows that are laid out at a time."""
        size = self.weight[0].numel() * self.weight.element_size()
        if self._as_product:
            return 0 if self.rows.kernel * self.columns.kernel == 1 else min(max(_WORKSPACE, size), columns * size)
        return 0


@dataclass(frozen=True)
class MaxPool(Layer):
    """The greatest input of each window."""

    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Pool."""
        overhangs = left == 0 and right < self.columns.stride  # torch then rounds up, without a copy
        x = x if overhangs else self.padded(x, left, right)
        kernels, strides = (self.rows.kernel, self.columns.kernel), (self.rows.stride, self.columns.stride)
        dilations = (self.rows.dilation, self.columns.dilation)
        y = F.max_pool2d(x[None].permute(0, 3, 1, 2), kernels, strides, 0, dilations, ceil_mode=True)
        return y[0].permute(1, 2, 0).contiguous()


@dataclass(frozen=True)
class MeanPool(Layer):
    """The mean of each window; never padded."""

    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Pool, as the mean of shifted views: torch's own pool knows no dilation."""
        rows = (x.shape[0] - self.rows.extent) // self.rows.stride + 1
        columns = (x.shape[1] - self.columns.extent) // self.columns.stride + 1
        y = x.new_zeros(rows, columns, x.shape[2])
        for i in range(self.rows.kernel):
            for j in range(self.columns.kernel):
                top, side = i * self.rows.dilation, j * self.columns.dilation
                y += x[top :: self.rows.stride, side :: self.columns.stride][:rows, :columns]
        return y.div_(self.rows.kernel * self.columns.kernel)
