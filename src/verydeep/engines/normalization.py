"""Batch norm in training, with the ReLU and the pool behind it, by the native library."""

import ctypes
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from verydeep.engines.blocks import filled, filled_up
from verydeep.engines.library import PROCESSORS, Processor, best_processor, load


class _Norm(ctypes.Structure):
    """What the library is told of a batch norm: see native/layer.h."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("images", "channels", "height", "width")),
        *((name, ctypes.c_int) for name in ("pool", "up")),
        ("epsilon", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("input", "weights", "bias", "mean", "variance", "factor", "added")),
        *((name, ctypes.c_void_p) for name in ("result", "choice", "gradient")),
        *((name, ctypes.c_void_p) for name in ("input_gradient", "weight_gradient", "bias_gradient")),
    )


def is_native_norm(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Say whether a module is a batch norm that takes its statistics from the batch, and has weights."""
    return type(module) is nn.BatchNorm2d and module.training and module.affine


def normalize(
    x: Tensor, norm: nn.BatchNorm2d, pool: bool = False, round_up: bool = False, processor: Processor | None = None
) -> Tensor:
    """Return N x C x H' x W' of a batch norm in training and a ReLU, with native gradients; running statistics follow.

    A 2x2 max-pool of stride 2 may follow, H' = H // 2, or (H + 1) // 2 where `round_up`. `x` is float32 on the CPU,
    N x C x H x W with more than one number a channel. What is kept for the gradients is `x`, and of a pool a byte an
    output.
    """
    how = (norm.eps, pool, round_up)
    result, mean, variance = _Normalize.apply(x, norm.weight, norm.bias, how, processor)  # type: ignore[no-untyped-call]
    if norm.track_running_stats:
        _follow(norm, mean, variance, x.numel() // x.shape[1])
    return cast(Tensor, result)


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update running statistics as torch does: by the variance divided by the count less 1."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / (count - 1)), share)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, how: tuple[float, bool, bool], kind: Processor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        _, pool, round_up = how
        images, channels, height, width = x.shape
        given = filled_up(x)
        if pool:
            height, width = (height + round_up) // 2, (width + round_up) // 2
        result = given.new_empty(images, height, width, filled(channels))
        choice = torch.empty(result.shape if pool else 0, dtype=torch.uint8)
        found = torch.empty(4, filled(channels))
        ctx.kind, ctx.how, ctx.shape = kind, how, x.shape
        of_channels = {"weights": _wide(weight), "bias": _wide(bias)}
        _run(ctx, False, input=given, **of_channels, found=found, result=result, choice=choice)
        ctx.save_for_backward(given, found, choice)
        mean, variance = found[0, :channels], found[1, :channels]
        ctx.mark_non_differentiable(mean, variance)
        return result.permute(0, 3, 1, 2)[:, :channels], mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        given, found, choice = ctx.saved_tensors
        channels = ctx.shape[1]
        to_input, to_weight, to_bias = torch.empty_like(given), torch.empty_like(found[0]), torch.empty_like(found[0])
        _run(
            ctx, True, input=given, found=found, choice=choice, gradient=filled_up(gradient),
            input_gradient=to_input, weight_gradient=to_weight, bias_gradient=to_bias,
        )  # fmt: skip
        return to_input.permute(0, 3, 1, 2)[:, :channels], to_weight[:channels], to_bias[:channels], None, None


def _run(ctx: Any, back: bool, found: Tensor, **tensors: Tensor) -> None:
    epsilon, pool, round_up = ctx.how
    tensors |= dict(zip(("mean", "variance", "factor", "added"), found, strict=True))
    places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    told = _Norm(*ctx.shape, int(pool), int(round_up), epsilon, **places)
    processor = PROCESSORS.index(ctx.kind or best_processor())
    if load().vd_normalize(processor, ctypes.byref(told), back, torch.get_num_threads()):
        raise MemoryError(f"no memory to normalize {ctx.shape[1]} channels")


def _wide(values: Tensor) -> Tensor:
    """Return numbers of channels with zeros behind the last one, as whole blocks."""
    return nn.functional.pad(values, (0, -len(values) % (filled(1))))
