"""A network whose layers run in the native library."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.engines.library import Processor
from verydeep.engines.stack import LANES, Kind, Stack, Step, from_blocks, to_blocks
from verydeep.nets.layers import ConvLinear
from verydeep.nets.network import Network
from verydeep.nets.plain import Concatenation, Conv, MaxPool, MeanPool, Normalization, Plain, Relu, channels_out

Accuracy = Literal["exact", "fast", "fixed16"]

_POOLS_ALONE = 3
"""Up to this pool images are run one by one: until then activations are larger than weights."""


class NativeLayers:
    """A network's layers, after `after` or from the image, up to `layer` or the last, packed for the native library.

    Weights are those of the moment. `exact` is float32 throughout; `fast` keeps the weights of fully connected layers
    in half precision where the processor widens it by itself, as those with AVX2 do; `fixed16` also multiplies 16-bit
    integers in 3x3 convolutions. UserError where the native library
    was not built, or this machine does not run the `processor`'s kind of code.
    """

    def __init__(
        self,
        net: Network,
        layer: str | None = None,
        accuracy: Accuracy = "exact",
        processor: Processor | None = None,
        after: str | None = None,
    ) -> None:
        if accuracy not in get_args(Accuracy):
            raise UserError(f"accuracy {accuracy!r}: expected one of {', '.join(get_args(Accuracy))}")
        self.net, self.layer, self.after = net, layer or net.layer_names[-1], after
        before = net.plain_layers(None, after) if after else []
        self.channels = channels_out(before)
        layers = net.one_view().plain_layers(after, self.layer)
        pools = sum(isinstance(one, MaxPool) for one in before)
        self.parts = _parts(plan(layers, accuracy, pools), self.channels, processor)

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the network's `activations` returns for the layer, N x C x h x w.

        What the library does not run - a network in training, gradients, other types than float32, other devices than
        the CPU - goes to the network itself. UserError for images of another number of channels, or smaller than the
        network takes.
        """
        if x.dim() != 4 or x.shape[0] < 1 or x.shape[1] != self.channels:
            raise UserError(
                f"input of shape {tuple(x.shape)}: expected N x {self.channels} x H x W with at least one image"
            )
        if self.after is None:
            self.net.check_size(x.shape[2], x.shape[3])
        if self.net.training or not is_plain(x):
            return self.net.activations(x, self.layer, self.after)
        with torch.no_grad():
            y, round_up = x, bool(self.net.preprocessing.pool_round_up)
            for part in self.parts:
                y = part(y, round_up)
        # Winograd's sums spread what is not a number over a whole tile: such an input is run as torch runs it.
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(y).all()):
            return self.net.activations(x, self.layer, self.after)
        return y

    def blocks(self, x: Tensor) -> Tensor:
        """Return the layer's map in blocks of channels, N x C / 16 x h x w x 16, without laying it out anew.

        `x` is as for a call, or a map of `after` in such blocks; it must be what `is_plain` says.
        """
        channels, round_up = self.channels, bool(self.net.preprocessing.pool_round_up)
        for part in self.parts:
            if isinstance(part, Stack):
                channels = part.shape(x.shape[2], x.shape[3], round_up)[0]
                x = part.run_blocks(x, round_up)
            else:
                x = part(x if x.dim() == 4 else from_blocks(x, channels), round_up)
                channels = x.shape[1]
        return x if x.dim() == 5 else to_blocks(x)


class CompiledNet(nn.Module):
    """Behaves as the network that it was made of; in testing, on a CPU, in float32, its layers run natively.

    Its weights are those of the moment it was made. Attributes that it lacks are the network's. It can be copied and
    pickled, which makes it anew. Parameters are those of `compile_cpu`.
    """

    def __init__(self, net: Network, accuracy: Accuracy = "exact", processor: Processor | None = None) -> None:
        super().__init__()
        self.made_of = net, accuracy, processor
        self.native = NativeLayers(net, None, accuracy, processor)
        self.net = net
        self.training = net.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledNet, self.made_of

    def score_map(self, x: Tensor) -> Tensor:
        """Return what the network's `score_map` returns, N x K x h x w."""
        return self.native(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of whole images, N x K: the spatial mean of the score map."""
        return self.score_map(x).mean(dim=(2, 3))


def compile_cpu(net: Network, accuracy: Accuracy = "exact", processor: Processor | None = None) -> CompiledNet:
    """Return the network with its layers in the native library: 3x3 convolutions by Winograd's filtering.

    Parameters
    ----------
    net : Network
        The network. In testing (`net.eval()`) its layers run natively, in training as they always did.
    accuracy : {"exact", "fast", "fixed16"}
        `exact`: float32 throughout, scores within 1e-4 relative (norm) of those in float64. `fast`: weights of fully
        connected layers in half precision, within 1e-3; faster for one image at a time. `fixed16`: besides, 3x3
        convolutions in 16-bit integers, within 3e-3 of the last convolution's outputs (docs/engine.md); fastest.
    processor : {"avx512", "avx2", "portable"}, optional
        Kind of code; by default the fastest that this machine runs.

    Returns
    -------
    CompiledNet
        Takes any batch and size that the network takes; threads are torch's (`torch.set_num_threads`).

    Raises
    ------
    UserError
        The native library was not built, or this machine does not run that kind of code.
    """
    return CompiledNet(net, accuracy, processor)


def is_plain(x: Tensor) -> bool:
    """Say whether the library may run an input: on the CPU, in float32, no gradient asked for."""
    return is_trainable(x) and not (torch.is_grad_enabled() and x.requires_grad)


def is_trainable(x: Tensor) -> bool:
    """Say whether the library may run an input with its gradients: on the CPU, in float32."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


_LOW: dict[Accuracy, tuple[Kind, ...]] = {"exact": (), "fast": (Kind.WINDOW,), "fixed16": (Kind.WINDOW, Kind.WINOGRAD)}
"""Kinds of layers in less precision."""


def plan(layers: Sequence[Plain], accuracy: Accuracy = "exact", pools: int = 0) -> list[Step | Plain]:
    """Return layers as steps for the native library, and as they are where torch has to run them.

    `pools` are passed before.
    """
    planned: list[Step | Plain] = []
    index = 0
    while index < len(layers):
        begins = not planned or not isinstance(planned[-1], Step)
        step, taken = _step(layers[index:], _LOW[accuracy], pools < _POOLS_ALONE, begins)
        planned.append(step or layers[index])
        pools += sum(isinstance(layer, MaxPool) for layer in layers[index : index + taken])
        index += taken
    return planned


Part = Callable[[Tensor, bool], Tensor]


def _parts(planned: Sequence[Step | Plain], channels: int, processor: Processor | None) -> list[Part]:
    """Pack each run of steps for the library."""
    parts: list[Part] = []
    for native, group in groupby(planned, key=lambda part: isinstance(part, Step)):
        members = list(group)
        if native:
            steps = cast(list[Step], members)
            parts.append(Stack(steps, channels, processor))
            channels = next((len(step.weight) for step in reversed(steps) if step.weight is not None), channels)
        else:
            layers = cast(list[Plain], members)
            parts += [_by_torch(layer) for layer in layers]
            channels = channels_out(layers, channels)
    return parts


def _step(layers: Sequence[Plain], low: Sequence[Kind], alone: bool, begins: bool) -> tuple[Step | None, int]:
    """Return the step that the first of the layers begin, None where it is for torch, and how many it takes."""
    first, *following = layers
    if isinstance(first, MaxPool) and first.halves:
        return Step(Kind.POOL, alone=alone), 1
    kind = _kind(first, begins) if isinstance(first, Conv) else None
    if kind is None or not isinstance(first, Conv):
        return None, 1
    relu = bool(following) and isinstance(following[0], Relu)
    behind = following[relu : relu + 1]
    pool = kind == Kind.WINOGRAD and any(isinstance(layer, MaxPool) and layer.halves for layer in behind)
    return Step(kind, *first.folded(), relu, pool, kind in low, alone), 1 + relu + pool


def _kind(layer: Conv, begins: bool) -> Kind | None:
    if layer.stride > 1 or layer.groups > 1:
        return None
    if layer.padding == 0 and (layer.kernel == 1 or isinstance(layer.module, ConvLinear)):
        return Kind.WINDOW
    if (layer.kernel, layer.padding) == (3, 1):
        return Kind.FIRST if begins and layer.module.in_channels < LANES else Kind.WINOGRAD
    return None


def _by_torch(layer: Plain) -> Part:
    folded = layer.folded() if isinstance(layer, Conv) else None

    def run(x: Tensor, round_up: bool) -> Tensor:
        if isinstance(layer, MaxPool):
            return F.max_pool2d(x, layer.kernel, layer.stride, layer.padding, ceil_mode=round_up)
        if isinstance(layer, MeanPool):
            return F.avg_pool2d(x, layer.kernel, layer.stride)
        if isinstance(layer, Relu):  # not in place: the tensor may be the caller's
            return F.relu(x)
        if isinstance(layer, Conv) and folded:
            return F.conv2d(x, *folded, layer.stride, layer.padding, groups=layer.groups)
        y: Tensor = cast(Normalization | Concatenation, layer).module(x)
        return y

    return run
