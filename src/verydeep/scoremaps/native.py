"""A network's 3x3 convolutions in the native engine, on the same rows."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property

import torch
from torch import Tensor

from verydeep.engines.stack import LANES, Kind, Stack, Step
from verydeep.scoremaps.densify import Dense
from verydeep.scoremaps.layers import Axis, Convolution, Layer

_SLIDES = Axis(kernel=3, before=1)
_FLOATS = 2  # of a pixel and channel: in the engine's layout, and its scratch


class NativeConvolution(Convolution):
    """A 3x3 convolution of stride 1 that the native library runs."""

    @cached_property
    def stack(self) -> Stack:
        """The packed weights."""
        kind = Kind.FIRST if self.inputs < LANES else Kind.WINOGRAD
        return Stack([Step(kind, self.weight, self.bias)], self.inputs)

    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Convolve with zeros around `x`, and keep what did not see them but where the image ends."""
        y = self.stack(x.permute(2, 0, 1)[None], False)[0]
        if not bool(torch.isfinite(y).all()):  # filtering spreads what is not a number
            return super().slide(x, left, right)
        return y[:, 1:-1, 1 - left : y.shape[2] - 1 + right].permute(1, 2, 0).contiguous()

    def workspace(self, rows: int, columns: int) -> int:
        """Return the bytes of input and output as the library lays them out."""
        return 4 * _FLOATS * (rows + 2) * columns * LANES * (-(-self.inputs // LANES) + -(-self.outputs // LANES))


def native(dense: Dense) -> Dense:
    """Return the network with its 3x3 convolutions of stride 1 run by the native library.

    UserError: the library was not built.
    """
    return replace(dense, layers=native_layers(dense.layers))


def native_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return layers that slide, those that the native library can run in it."""
    return tuple(_native(layer) for layer in layers)


def _native(layer: Layer) -> Layer:
    if not isinstance(layer, Convolution) or layer.groups != 1 or layer.weight.dtype != torch.float32:
        return layer
    if any(
        (axis.kernel, axis.stride, axis.dilation) != (3, 1, 1) or axis.before not in (0, 1)
        for axis in (layer.rows, layer.columns)
    ):
        return layer
    convolution = NativeConvolution(**{field.name: getattr(layer, field.name) for field in fields(layer)})
    assert convolution.stack  # packed now, so that a plan sees how much memory is left
    return convolution
