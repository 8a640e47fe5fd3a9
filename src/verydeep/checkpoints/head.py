"""The fully connected layers of a file, of any number and size: means and batch norm among them folded into weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.checkpoints.layers import Affine, Array, BatchNorm, Conv, Dense, Flatten, Layer, Mean, Relu, with_bias

Shift = BatchNorm | Affine
"""What makes a x + b of each channel."""


def _numbers(layer: Shift, channels: int) -> tuple[Tensor, Tensor]:
    """Return a and b of each channel, float64."""
    if isinstance(layer, Affine):
        numbers = (torch.tensor(values, dtype=torch.float64) for values in (layer.scale, layer.shift))
        scale, shift = (values.expand(channels) if len(values) == 1 else values for values in numbers)
        return scale, shift
    parts = {part: array.read().double() for part, array in layer.arrays.items() if array.shape}
    scale = parts.get("weight", torch.ones(channels)) / (parts["running_var"] + layer.epsilon).sqrt()
    return scale, parts.get("bias", torch.zeros(channels)) - scale * parts["running_mean"]


def plain_head(layers: Sequence[Layer], channels: int, cells: int, path: Path) -> list[Layer]:
    """Return what stands behind the convolutions as matrices and ReLUs alone, where it is a chain of such.

    A mean over the map and a matrix behind it are one convolution of `cells` x `cells`, with equal weights in every
    place; batch norm goes into the matrix before it or, behind a ReLU, into the one after it.
    """
    done: list[Layer] = []
    averaged, flat = False, False
    shifts: list[Shift] = []  # behind a ReLU, for the next matrix
    for layer in layers:
        if isinstance(layer, Mean) and not any(isinstance(one, Dense | Conv) for one in done):
            averaged = True
        elif isinstance(layer, Flatten):
            if not flat:
                done.append(layer)
            flat = True
        elif isinstance(layer, BatchNorm | Affine) and any(isinstance(one, Dense | Conv | Relu) for one in done):
            if isinstance(done[-1], Dense):
                done[-1] = _scaled_outputs(done[-1], layer)
            elif isinstance(done[-1], Relu):
                shifts.append(layer)
            else:
                done.append(layer)
        elif isinstance(layer, Dense):
            if "weight" not in layer.arrays:
                raise UserError(f"{path}: {layer.name}: is {layer.what} without weights; is the file cut off?")
            layer = with_bias(layer)
            while shifts:  # the last one is next to it
                layer = _scaled_inputs(layer, shifts.pop())
            if averaged and not any(isinstance(one, Dense) for one in done):
                if layer.shape[1] != channels:
                    raise UserError(
                        f"{path}: {layer.name}: has {layer.shape[1]} inputs, and the mean of the map before it "
                        f"{channels} channels"
                    )
                layer = _over_map(layer, cells)
                if not flat:
                    done.append(Flatten(f"{layer.name}, flattened"))
            done.append(layer)
        else:
            done.append(layer)
    if shifts:
        raise UserError(f"{path}: {shifts[0].name}: is {shifts[0].what} behind the last fully connected layer's ReLU")
    return done


def _pair(layer: Dense) -> tuple[Array, Array]:
    return layer.arrays["weight"], layer.arrays["bias"]


def _with(layer: Dense, weight: Array, bias: Array) -> Dense:
    return replace(layer, arrays={"weight": weight, "bias": bias})


def _scaled_outputs(layer: Dense, shift: Shift) -> Dense:
    weight, bias = _pair(layer)
    count = weight.shape[0]

    def scaled() -> Tensor:
        return (weight.read().double() * _numbers(shift, count)[0][:, None]).float()

    def shifted() -> Tensor:
        a, b = _numbers(shift, count)
        return (a * bias.read().double() + b).float()

    return _with(layer, replace(weight, read=scaled), replace(bias, read=shifted))


def _scaled_inputs(layer: Dense, shift: Shift) -> Dense:
    weight, bias = _pair(layer)
    count = weight.shape[1]

    def scaled() -> Tensor:
        return (weight.read().double() * _numbers(shift, count)[0]).float()

    def shifted() -> Tensor:
        return (bias.read().double() + weight.read().double() @ _numbers(shift, count)[1]).float()

    return _with(layer, replace(weight, read=scaled), replace(bias, read=shifted))


def _over_map(layer: Dense, cells: int) -> Dense:
    weight, bias = _pair(layer)
    outputs, channels = weight.shape

    def spread() -> Tensor:
        return (weight.read() / cells**2)[:, :, None, None].expand(outputs, channels, cells, cells)

    return _with(layer, Array(weight.name, (outputs, channels, cells, cells), spread), bias)
