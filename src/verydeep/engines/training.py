"""3x3 convolutions in training, with the ReLU and the pool behind them, by the native library; batch norm between."""

import ctypes
from enum import IntEnum
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from verydeep.engines.blocks import filled, filled_up
from verydeep.engines.library import PROCESSORS, Processor, best_processor, load
from verydeep.engines.normalization import is_native_norm, normalize
from verydeep.nets.network import Network, halves, run_layers


class _Pass(IntEnum):
    FORWARD = 0
    TO_PIXELS = 1
    TO_WEIGHTS = 2


class _Convolution(ctypes.Structure):
    """What the library is told of a convolution: see native/layer.h."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("images", "inner", "out", "height", "width")),
        *((name, ctypes.c_int) for name in ("rectify", "pool", "up")),
        *((name, ctypes.c_void_p) for name in ("pixels", "weights", "bias", "result", "choice", "gradient")),
        *((name, ctypes.c_void_p) for name in ("pixel_gradient", "weight_gradient", "bias_gradient")),
    )


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rectify: bool = False,
    pool: bool = False,
    round_up: bool = False,
    processor: Processor | None = None,
) -> Tensor:
    """Return N x C' x H x W of a 3x3 convolution with padding 1, as torch would; its gradients are native, too.

    A ReLU may follow, and behind that a 2x2 max-pool of stride 2, H' = H // 2, or (H + 1) // 2 where `round_up`; so may
    the pool alone only behind a ReLU. All are float32 on the CPU.
    """
    return cast(Tensor, _Convolve.apply(x, weight, bias, (rectify, pool, round_up), processor))  # type: ignore[no-untyped-call]


class _Convolve(torch.autograd.Function):
    """Keeps its input, and its output for the ReLU's gradient: the next layer's input; of a pool a byte an output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[bool, bool, bool], kind: Processor | None
    ) -> Tensor:
        _, pool, round_up = how
        images, channels, height, width = x.shape
        out = weight.shape[0]
        if pool:
            height, width = (height + round_up) // 2, (width + round_up) // 2
        pixels, weights = x.permute(0, 2, 3, 1).contiguous(), weight.contiguous()
        result = pixels.new_empty(images, height, width, filled(out))
        choice = torch.empty(result.shape if pool else 0, dtype=torch.uint8)
        ctx.kind, ctx.how, ctx.shape = kind, how, (images, channels, out, *x.shape[2:])
        _run(ctx, _Pass.FORWARD, pixels=pixels, weights=weights, bias=bias, result=result, choice=choice)
        kept = result if how[0] and not pool else None
        ctx.save_for_backward(pixels, weight, kept, choice)
        return result.permute(0, 3, 1, 2)[:, :out]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight, result, choice = ctx.saved_tensors
        images, channels, out, height, width = ctx.shape
        given = {"gradient": filled_up(gradient), "result": result, "choice": choice}
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_pixels = pixels.new_empty(images, height, width, filled(channels))
            _run(ctx, _Pass.TO_PIXELS, weights=weight.contiguous(), pixel_gradient=to_pixels, **given)
            to_x = to_pixels.permute(0, 3, 1, 2)[:, :channels]
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            to_weight = torch.empty(weight.shape)
            sums = torch.empty(filled(out))
            _run(ctx, _Pass.TO_WEIGHTS, pixels=pixels, weight_gradient=to_weight, bias_gradient=sums, **given)
            to_bias = sums[:out] if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None, None


def _run(ctx: Any, which: _Pass, **tensors: Tensor | None) -> None:
    rectify, pool, round_up = map(int, ctx.how)
    places = {name: tensor.data_ptr() if tensor is not None else None for name, tensor in tensors.items()}
    told = _Convolution(*ctx.shape, rectify, pool, round_up, **places)
    processor = PROCESSORS.index(ctx.kind or best_processor())
    if load().vd_train(processor, ctypes.byref(told), which, torch.get_num_threads()):
        raise MemoryError(f"no memory to train a layer of {ctx.shape[1]} to {ctx.shape[2]} channels")


def run_natively(net: Network, x: Tensor, layer: str, after: str | None = None) -> Tensor:
    """Do what `net.activations` does, with gradients, 3x3 convolutions in the native library."""
    round_up = bool(net.preprocessing.pool_round_up)
    modules = [module for _, module in net.between(after, layer)]
    while modules:
        first, rectify = modules[0], len(modules) > 1 and isinstance(modules[1], nn.ReLU)
        pool = rectify and len(modules) > 2 and halves(modules[2])
        taken = 1 + rectify + pool
        if _is_native(first):
            x = convolve(x, first.weight, first.bias, rectify, pool, round_up)
        elif is_native_norm(first) and rectify and x.numel() > x.shape[1]:
            x = normalize(x, first, pool, round_up)
        else:
            native = (_is_native(module) or is_native_norm(module) for module in modules[1:])
            taken = 1 + next((i for i, starts in enumerate(native) if starts), len(modules) - 1)
            x = run_layers(modules[:taken], x, round_up)
        modules = modules[taken:]
    return x


def _is_native(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not isinstance(module, nn.Conv2d):
        return False
    shape = module.kernel_size, module.stride, module.padding, module.dilation, module.groups
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
