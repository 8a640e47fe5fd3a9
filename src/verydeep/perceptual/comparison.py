"""What all metrics and losses here share: two batches in, a number for each pair out, gradients for little memory."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from verydeep.basics.errors import UserError
from verydeep.perceptual.features import Features
from verydeep.perceptual.trunk import TrunkInfo

Pairs = Callable[[Tensor, Tensor], Tensor]

PIXELS = "pixels"
"""What the pictures themselves are called where they are compared as a layer is."""

AT_ONCE = {"cpu": 2**16, "cuda": 2**20}
"""Pixels of a group of pictures: what keeps the device (of a CPU one thread) busy, and activations small."""


class Comparison(nn.Module):
    """Pictures compared by layers of a frozen network.

    Pairs are independent of one another, so they are run in groups, and where a gradient is needed it is computed group
    by group with the values: none of a network's activations waits for the backward pass, which only multiplies. So
    there are no gradients of gradients. All is float32 (or float64, where the pictures are), in autocast too.
    """

    of_pixels = False
    """Whether the pictures themselves are compared, before all layers."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, pictures: Tensor, references: Tensor) -> Tensor:
        """Return the distance of each picture from its reference, float (N,): `.mean()` is a batch's loss.

        Parameters
        ----------
        pictures, references : Tensor
            N x 3 x H x W each, as range and channels say. Gradients go to whichever wants them.

        Raises
        ------
        UserError
            Values outside the range, shapes that differ, or pictures smaller than the network takes.
        """
        values: Tensor = self._forward(pictures, references)
        return values

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _forward(self, pictures: Tensor, references: Tensor) -> Tensor:
        first, second = self.unit(pictures, references)
        with torch.autocast(first.device.type, enabled=False):
            if torch.is_grad_enabled() and (first.requires_grad or second.requires_grad):
                values: Tensor = _InGroups.apply(self.compare, first, second)  # type: ignore[no-untyped-call]
                return values
            with torch.no_grad():
                return torch.cat([self.compare(*group) for group in _groups(first, second)])

    def unit(self, pictures: Tensor, references: Tensor) -> list[Tensor]:
        """Return both as RGB from 0 to 1; UserError where they are none, or their shapes differ."""
        unit = self.features.unit([pictures, references], ["the pictures", "the references"])
        if unit[0].shape != unit[1].shape:
            shapes = " and ".join(" x ".join(map(str, x.shape)) for x in unit)
            raise UserError(f"pictures and references: {shapes}; expected one shape")
        return unit

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances, (N,), of RGB pictures from 0 to 1."""
        values = [self.value(layer, self.averages(layer, a, b)) for layer, a, b in self.maps(first, second)]
        return torch.stack(values).sum(dim=0).to(first.dtype)

    def averages(self, layer: str, a: Tensor, b: Tensor) -> Tensor:
        """Return all that is needed of both maps of a layer, in blocks: means over their places, N x anything."""
        raise NotImplementedError

    def value(self, layer: str, averages: Tensor) -> Tensor:
        """Return a layer's part of the distances, (N,), from the means over its places."""
        raise NotImplementedError

    def maps(self, first: Tensor, second: Tensor) -> Iterable[tuple[str, Tensor, Tensor]]:
        """Yield each layer's name and both maps, in the network's order; each pair is there for its turn alone."""
        if self.of_pixels:
            yield PIXELS, first.permute(0, 2, 3, 1)[:, None], second.permute(0, 2, 3, 1)[:, None]
        walks = [self.features.walk(self.features.input(x)) for x in (first, second)]
        for layer, a, b in zip(self.features.in_order, *walks, strict=True):
            width = self.features.channels(layer)
            yield (
                (layer, a, b) if a.shape[4] == b.shape[4] else (layer, _in_one_block(a, width), _in_one_block(b, width))
            )

    @property
    def trunk(self) -> TrunkInfo:
        """Which trunk pictures are compared by."""
        return self.features.trunk

    @property
    def provenance(self) -> dict[str, Any]:
        """What distances are of, and computed with; JSON-able."""
        return {"metric": type(self).__name__, **self.features.provenance}


class _InGroups(torch.autograd.Function):
    """Values of pairs, their gradients computed with them."""

    @staticmethod
    def forward(ctx: Any, compare: Pairs, first: Tensor, second: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[1:]
        values, gradients = [], []
        for group in _groups(first, second):
            with torch.enable_grad():
                inputs = [x.detach().requires_grad_(want) for x, want in zip(group, wanted, strict=True)]
                value = compare(*inputs)
                gradients.append(torch.autograd.grad(value.sum(), [x for x in inputs if x.requires_grad]))
            values.append(value.detach())
            del value
        ctx.save_for_backward(*(torch.cat(parts) for parts in zip(*gradients, strict=True)))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        factor = upstream[:, None, None, None]
        return None, *(factor * next(saved) if want else None for want in ctx.needs_input_grad[1:])


def moments(mean: Tensor, centered: Tensor) -> Tensor:
    """Return the means of a map's values and of their squares, N x 2 x C, in float64, where they can be averaged.

    `mean` is that of places, N x B x 1 x 1 x L, and `centered` the map without it: squares of float32 would lose the
    variance where the mean is large.
    """
    means, variances = (wide(x).flatten(1) for x in (mean, centered.square().mean(dim=(2, 3))))
    return torch.stack([means, variances + means.square()], dim=1)


def wide(x: Tensor) -> Tensor:
    """Return numbers in float64, where the device has it."""
    return x if x.device.type == "mps" else x.double()


def _in_one_block(blocks: Tensor, channels: int) -> Tensor:
    """Lay a map of the native engine out as torch's, whose tape the other map is on."""
    return (
        blocks
        if blocks.shape[1] == 1 and blocks.shape[4] == channels
        else blocks.permute(0, 2, 3, 1, 4).flatten(3)[:, None, ..., :channels]
    )


def _groups(first: Tensor, second: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    pixels = AT_ONCE.get(first.device.type, 2**18)
    if (
        first.device.type == "cpu"
    ):  # a single picture's backward pass keeps one of torch's threads waiting for the other
        pixels *= min(2, torch.get_num_threads())
    size = max(1, pixels // (first.shape[2] * first.shape[3]))
    return zip(torch.split(first, size), torch.split(second, size), strict=True)
