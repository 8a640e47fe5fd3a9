"""A network whose layers run in the native library."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.engines.library import Processor
from verydeep.engines.stack import LANES, Kind, Stack, Step

Accuracy = Literal["exact", "fast"]

_POOLS_ALONE = 3
"""Up to this pool images are run one by one: until then activations are larger than weights."""


class CompiledNet(nn.Module):
    """Behaves as the network that it was made of, in evaluation mode on a CPU; other uses go to that network.

    Its weights are those of the moment it was made. Attributes that it lacks are the network's.

    Parameters
    ----------
    net : nn.Sequential
        A VGG: convolutions, ReLUs, 2x2 max-pools and fully connected layers as convolutions, with a `preprocessing`
        whose `pool_round_up` says how pools round.
    accuracy : {"exact", "fast"}
        `exact`: float32 throughout. `fast`: the weights of fully connected layers are kept in half precision, where
        the processor widens it by itself.
    processor : Processor, optional
        Kind of code; by default the fastest that this machine runs.

    Raises
    ------
    UserError
        The native library was not built.
    """

    def __init__(self, net: Any, accuracy: Accuracy = "exact", processor: Processor | None = None) -> None:
        super().__init__()
        if accuracy not in ("exact", "fast"):
            raise UserError(f"accuracy {accuracy!r}: expected exact or fast")
        self.net = net
        self.parts = _plan(net, accuracy == "fast", processor)
        self.eval()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)

    def score_map(self, x: Tensor) -> Tensor:
        """Return what the network's `score_map` returns, N x K x h x w."""
        if self.net.training or not _is_plain(x):
            return self.net.score_map(x)  # type: ignore[no-any-return]
        self.net.check_size(x.shape[2], x.shape[3])
        with torch.no_grad():
            scores, round_up = x, self.net.preprocessing.pool_round_up
            for part in self.parts:
                scores = part(scores, round_up)
        # Winograd's sums spread what is not a number over a whole tile: such an input is run as torch runs it.
        if not torch.compiler.is_compiling() and not bool(torch.isfinite(scores).all()):
            return self.net.score_map(x)  # type: ignore[no-any-return]
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of whole images, N x K: the spatial mean of the score map."""
        return self.score_map(x).mean(dim=(2, 3))


def compile_cpu(net: Any, accuracy: Accuracy = "exact", processor: Processor | None = None) -> CompiledNet:
    """Return the network with its layers in the native library; see `CompiledNet`."""
    return CompiledNet(net, accuracy, processor)


def _is_plain(x: Tensor) -> bool:
    tracked = torch.is_grad_enabled() and x.requires_grad
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and not tracked and not torch.is_autocast_enabled("cpu")
        and x.shape[0] > 0
    )  # fmt: skip


Part = Callable[[Tensor, bool], Tensor]


def _plan(net: Any, half: bool, processor: Processor | None) -> list[Part]:
    """Cut the layers into runs for the library and single layers for torch."""
    parts: list[Part] = []
    steps: list[Step] = []
    channels = entering = 3
    pools = 0

    def close() -> None:
        nonlocal steps
        if steps:
            parts.append(Stack(steps, entering, processor))
        steps = []

    layers = list(net.children())
    index = 0
    while index < len(layers):
        step, taken = _step(layers[index:], half, pools < _POOLS_ALONE)
        if step is not None:
            if not steps:
                entering = channels
            steps.append(step)
        elif not isinstance(layers[index], nn.Dropout):
            close()
            parts.append(_by_torch(layers[index : index + taken]))
        for layer in layers[index : index + taken]:
            channels = layer.out_channels if isinstance(layer, nn.Conv2d) else channels
            pools += isinstance(layer, nn.MaxPool2d)
        index += taken
    close()
    return parts


def _step(layers: Sequence[nn.Module], half: bool, alone: bool) -> tuple[Step | None, int]:
    """Return the step that the first of the layers begin, None where it is for torch, and how many it takes."""
    first = layers[0]
    if isinstance(first, nn.MaxPool2d):
        return Step(Kind.POOL, alone=alone), 1
    if not isinstance(first, nn.Conv2d):
        return None, 1
    taken, weight, bias = 1, first.weight, first.bias
    if len(layers) > taken and isinstance(layers[taken], nn.BatchNorm2d):
        weight, bias = _folded(first, layers[taken])
        taken += 1
    relu = len(layers) > taken and isinstance(layers[taken], nn.ReLU)
    kind = _kind(first)
    if kind is None:
        return None, 1
    taken += relu
    pool = kind == Kind.WINOGRAD and len(layers) > taken and isinstance(layers[taken], nn.MaxPool2d)
    return Step(kind, weight, bias, relu, pool, half and kind == Kind.WINDOW, alone), taken + pool


def _kind(layer: nn.Conv2d) -> Kind | None:
    square = layer.kernel_size[0] == layer.kernel_size[1]
    if not square or layer.stride != (1, 1) or layer.groups != 1 or layer.dilation != (1, 1):
        return None
    if layer.padding == (0, 0) and layer.in_channels >= LANES:
        return Kind.WINDOW
    if layer.kernel_size == (3, 3) and layer.padding == (1, 1):
        return Kind.FIRST if layer.in_channels < LANES else Kind.WINOGRAD
    return None


def _folded(convolution: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weights and bias of a convolution that does its batch norm, too, computed in float64."""
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = convolution.weight.double() * scale[:, None, None, None]
    before = convolution.bias.double() if convolution.bias is not None else 0.0
    return weight.float(), (norm.bias.double() + (before - norm.running_mean.double()) * scale).float()


def _by_torch(layers: Sequence[nn.Module]) -> Part:
    def run(x: Tensor, round_up: bool) -> Tensor:
        for layer in layers:
            x = F.max_pool2d(x, 2, 2, ceil_mode=round_up) if isinstance(layer, nn.MaxPool2d) else layer(x)
        return x

    return run
