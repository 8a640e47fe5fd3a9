"""A run of consecutive layers in the native library, as one operator of torch."""

import ctypes
import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.engines.library import PROCESSORS, Processor, best_processor, load

LANES = 16
"""Channels of a block in the library's layout."""


class Kind(IntEnum):
    """How a layer is run."""

    FIRST = 0  # 3x3 on few channels, directly; at the beginning of a stack
    WINOGRAD = 1  # 3x3, by Winograd's filtering
    WINDOW = 2  # without padding, as a matrix product: fully connected and 1x1 layers
    POOL = 3  # 2x2 max-pool by itself


@dataclass(frozen=True)
class Step:
    """A layer, with the ReLU and the pool that follow it.

    Attributes
    ----------
    kind : Kind
        How it is run.
    weight : Tensor or None
        float32, out x in x k x k; None for a pool.
    bias : Tensor or None
        float32, out.
    relu, pool : bool
        What follows; a pool only after WINOGRAD.
    low : bool
        Whether in less precision: WINDOW keeps its weights in half, WINOGRAD multiplies 16-bit integers.
    alone : bool
        Whether the layers up to this one are run image by image: their activations are larger than their weights.
    """

    kind: Kind
    weight: Tensor | None = None
    bias: Tensor | None = None
    relu: bool = False
    pool: bool = False
    low: bool = False
    alone: bool = False

    def shape(self, channels: int, height: int, width: int, round_up: bool) -> tuple[int, int, int]:
        """Return channels, height and width of the output."""
        if self.weight is not None:
            channels = self.weight.shape[0]
            less = self.weight.shape[2] - 1 if self.kind == Kind.WINDOW else 0
            height, width = height - less, width - less
        if self.pool or self.kind == Kind.POOL:
            height, width = (height + round_up) // 2, (width + round_up) // 2
        return channels, height, width


_stacks: "weakref.WeakValueDictionary[int, Stack]" = weakref.WeakValueDictionary()
_numbers = itertools.count()


class Stack:
    """Layers whose weights are packed for the native library; `channels` come in.

    UserError where the library was not built, or this machine does not run the `processor`'s kind of code.
    """

    def __init__(self, steps: Sequence[Step], channels: int, processor: Processor | None = None) -> None:
        self.library, self.steps, self.channels = load(), tuple(steps), channels
        usable = PROCESSORS[: PROCESSORS.index(best_processor()) + 1]
        chosen = processor or usable[-1]
        if chosen not in usable:
            raise UserError(f"processor {chosen!r}: this machine runs {', '.join(usable)}")
        self.handle = ctypes.c_void_p(self.library.vd_new(PROCESSORS.index(chosen)))
        weakref.finalize(self, self.library.vd_delete, self.handle)
        for step in self.steps:
            self._add(step)
        self.steps = tuple(replace(step, weight=_shape_of(step.weight), bias=None) for step in self.steps)
        self.number = next(_numbers)
        _stacks[self.number] = self

    def _add(self, step: Step) -> None:
        weight, bias = step.weight, step.bias
        if weight is not None:
            weight = weight.detach().cpu().float().contiguous()
            bias = torch.zeros(len(weight)) if bias is None else bias.detach().cpu().float().contiguous()
        out, inner, kernel = (weight.shape[0], weight.shape[1], weight.shape[2]) if weight is not None else (0, 0, 0)
        places = [t.data_ptr() if t is not None else None for t in (weight, bias)]
        options = (step.relu, step.pool, step.low, step.alone)
        if self.library.vd_add(self.handle, step.kind, inner, out, kernel, *places, *map(int, options)):
            raise MemoryError(f"no memory to pack a layer of {inner} to {out} channels")

    def shape(self, height: int, width: int, round_up: bool) -> tuple[int, int, int]:
        """Return channels, height and width of the output for an input of this size."""
        shape = self.channels, height, width
        for step in self.steps:
            shape = step.shape(*shape, round_up)
        return shape

    def __call__(self, x: Tensor, round_up: bool) -> Tensor:
        """Run float32 N x C x H x W on the CPU; pools make an output of an odd side's last line where `round_up`."""
        return torch.ops.verydeep.stack(x, self.number, round_up)  # type: ignore[no-any-return]

    def run(self, x: Tensor, round_up: bool) -> Tensor:
        """Do what the operator does; ValueError where the library would read or write beyond the input."""
        return from_blocks(self.run_blocks(x, round_up), self.shape(x.shape[2], x.shape[3], round_up)[0])

    def run_blocks(self, x: Tensor, round_up: bool) -> Tensor:
        """Do as `run`, and leave the output in blocks, N x C / 16 x H x W x 16; one of another stack is taken, too."""
        first = self.steps[0].kind == Kind.FIRST
        if x.dim() == 5 and first:
            x = from_blocks(x, self.channels)
        images, given, height, width = x.shape[:4]
        if x.dim() == 5:  # the blocks do not say how many of the last one's channels are padding
            given = self.channels if given == -(-self.channels // LANES) else given * LANES
        channels, rows, columns = self.shape(height, width, round_up)
        if given != self.channels or x.dtype != torch.float32 or min(images, height, width, rows, columns) < 1:
            raise ValueError(
                f"{x.dtype} input of shape {tuple(x.shape)}: expected float32 with {self.channels} channels, large "
                "enough for every layer"
            )
        laid_out = _to_pixels(x) if first else to_blocks(x) if x.dim() == 4 else x.contiguous()
        out = torch.empty(images, -(-channels // LANES), rows, columns, LANES, dtype=torch.float32)
        self.run_laid_out(laid_out, (images, given, height, width), round_up, out)
        return out

    def run_laid_out(self, pixels: Tensor, shape: Sequence[int], round_up: bool, out: Tensor) -> None:
        """Run the library on an input of N x C x H x W that has its layout already, and leave the output in it."""
        sizes = (ctypes.c_long * 4)(*shape)
        threads = torch.get_num_threads()
        if self.library.vd_run(self.handle, pixels.data_ptr(), sizes, int(round_up), out.data_ptr(), threads):
            raise MemoryError(f"no memory to run an input of shape {tuple(shape)}; use smaller batches")


def _shape_of(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.to("meta")


def _to_pixels(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def to_blocks(x: Tensor) -> Tensor:
    """Lay N x C x H x W out as N x C / 16 x H x W x 16, with zeros behind the last channel."""
    if x.shape[1] % LANES:
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % LANES))
    return x.reshape(x.shape[0], -1, LANES, *x.shape[2:]).permute(0, 1, 3, 4, 2).contiguous()


def from_blocks(x: Tensor, channels: int) -> Tensor:
    """Return N x C x H x W of what stands in blocks of channels."""
    return x.permute(0, 1, 4, 2, 3).flatten(1, 2)[:, :channels]


@torch.library.custom_op("verydeep::stack", mutates_args=(), device_types="cpu")
def _stack(x: Tensor, number: int, round_up: bool) -> Tensor:
    return _stacks[number].run(x, round_up).contiguous()


@_stack.register_fake
def _(x: Tensor, number: int, round_up: bool) -> Tensor:
    return x.new_empty(x.shape[0], *_stacks[number].shape(x.shape[2], x.shape[3], round_up))
