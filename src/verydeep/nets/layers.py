"""The few layers that torch lacks or does otherwise than the paper."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class LocalResponseNorm(nn.Module):
    """Local response normalization across channels, as Krizhevsky et al. (2012) wrote it.

    `b_c = a_c / (k + alpha * sum_{c' near c} a_c'^2) ^ beta`, the sum over `size` channels centered on c.
    torch and Caffe divide `alpha` by `size`; the written formula does not, so theirs needs alpha = 5e-4 for the
    paper's 1e-4.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """Normalize N x C x H x W."""
        return F.local_response_norm(x, self.size, self.alpha * self.size, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the constants."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Dropout(nn.Dropout):
    """Dropout whose chance belongs to an image's place in the batch, so that a batch may be worked through in shares.

    `rows` are how many images the whole batch has, and which of them are given; without it, it is torch's.
    """

    rows: tuple[int, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers of N x ..., where training."""
        if not self.training or not self.p or self.rows is None:
            return super().forward(x)
        count, rows = self.rows
        return x * F.dropout(x.new_ones((count, *x.shape[1:])), self.p)[rows]


class ConvLinear(nn.Conv2d):
    """A fully connected layer: a convolution without padding that covers its window.

    It runs as one matrix product over all windows of the map: the same sum, and on a CPU several times faster than
    torch's convolution, which lays the hundred million weights of fc6 out anew for every image.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to N x C' x (H - k + 1) x (W - k + 1)."""
        weight, kernel = self.weight, self.weight.shape[2]
        if x.shape[2:] == weight.shape[2:]:
            windows = x[:, :, None, None]  # N x C x h x w x k x k, here and below a view
        else:
            windows = x.unfold(2, kernel, 1).unfold(3, kernel, 1)
        # Flatten in the order in which the weights lie in memory, so that they are viewed and not copied.
        if weight.is_contiguous():
            flat = windows.permute(0, 2, 3, 1, 4, 5).flatten(3)
        else:
            flat, weight = windows.permute(0, 2, 3, 4, 5, 1).flatten(3), weight.permute(0, 2, 3, 1)
        return _linear(flat, weight.flatten(1), cast(Tensor, self.bias)).permute(0, 3, 1, 2)


class Branches(nn.Module):
    """Layers side by side, whose outputs' channels follow one another: Szegedy et al.'s Inception."""

    def __init__(self, branches: dict[str, nn.Sequential], out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to N x `out_channels` x H x W."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Beside:
    """What a module is called that is no link of the chain of layers from the image to the scores."""


class Auxiliary(nn.Sequential, Beside):
    """A classifier beside the network, which gives its lower layers a gradient in training and is for nothing else."""


class SkipScore(nn.Conv2d, Beside):
    """Scores of a map of finer stride, which a network for each pixel adds to its own; 0 at first."""

    def __init__(self, in_channels: int, classes: int, scale: float = 1.0) -> None:
        self.scale = scale
        super().__init__(in_channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score N x C x h x w."""
        return super().forward(x * self.scale if self.scale != 1 else x)

    def reset_parameters(self) -> None:
        """Begin with scores of 0, as published: the coarser ones alone decide at first."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class Upsampling(nn.ConvTranspose2d, Beside):
    """Scores `factor` times as fine, by weights that are learned and begin as bilinear interpolation."""

    def __init__(self, classes: int, factor: int, kernel: int) -> None:
        super().__init__(classes, classes, kernel, factor, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Begin as bilinear interpolation, each class by itself."""
        side = triangle(self.kernel_size[0], self.stride[0]).to(self.weight)
        self.weight.zero_()
        self.weight[range(len(self.weight)), range(len(self.weight))] = side[:, None] * side


class Bilinear(nn.Module, Beside):
    """Scores `factor` times as fine, by bilinear interpolation with zeros around the map; nothing is learned.

    It is the transposed convolution with a `kernel` of 2 `factor` or 2 `factor` - 1 numbers along each axis: h inputs
    give (h - 1) factor + kernel outputs. Each output sees two inputs of an axis, so it is computed from these alone.
    """

    def __init__(self, factor: int, kernel: int) -> None:
        super().__init__()
        self.factor, self.kernel = factor, kernel

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate N x K x h x w."""
        return self._along(self._along(x, 2), 3)

    def _along(self, x: Tensor, axis: int) -> Tensor:
        weights = triangle(2 * self.factor, self.factor, self.kernel).to(x)
        here, before = (part.reshape(-1, *[1] * (3 - axis)) for part in weights.chunk(2))
        x = F.pad(x, (1, 1) if axis == 3 else (0, 0, 1, 1)).unsqueeze(axis + 1)
        cells = x.shape[axis] - 1
        y = torch.addcmul(x.narrow(axis, 1, cells) * here, x.narrow(axis, 0, cells), before).flatten(axis, axis + 1)
        return y.narrow(axis, 0, (cells - 2) * self.factor + self.kernel)

    def extra_repr(self) -> str:
        """Return what it does."""
        return f"factor={self.factor}, kernel={self.kernel}"


def triangle(taps: int, factor: int, kernel: int | None = None) -> Tensor:
    """Return `taps` weights of linear interpolation by `factor`: a triangle around the middle of `kernel` of them."""
    distance = torch.arange(taps) - ((kernel or taps) - 1) / 2
    return (1 - distance.abs() / factor).clamp_min(0)


class ViewDescriptor(nn.Module):
    """What fc8 sees of one view of a picture where it was made for descriptors: the view stands in for every scale.

    If `normalized`, the map is divided by the Euclidean norm of its own spatial mean, so that its spatial mean has norm
    1; then it is repeated `copies` times, for each scale that was stacked, times `factor`.
    """

    def __init__(self, normalized: bool, copies: int = 1, factor: float = 1.0) -> None:
        super().__init__()
        self.normalized, self.copies, self.factor = normalized, copies, factor

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x h x w to N x (copies C) x h x w."""
        if self.normalized:
            x = x / x.mean(dim=(2, 3), keepdim=True).norm(dim=1, keepdim=True).clamp_min(LEAST_NORM)
        return (x * self.factor).repeat(1, self.copies, 1, 1) if self.copies > 1 else x

    def extra_repr(self) -> str:
        """Return what it does."""
        return f"normalized={self.normalized}, copies={self.copies}"


LEAST_NORM = 1e-12
"""What a smaller norm is taken for: zeros stay zeros."""


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Do as F.linear; with few rows, as here, oneDNN takes half the time of the BLAS behind F.linear on a CPU."""
    tracked = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if tracked or not _ONEDNN or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return F.linear(x, weight, bias)
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # so in builds with oneDNN


class _ReLUPool(torch.autograd.Function):
    """ReLU and 2x2 max-pool as one step of the tape.

    The tape of the two layers would keep the full-size activations and 64-bit positions; all that the gradient
    needs is which of the four pixels won and whether it was positive: one byte an output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, round_up: bool) -> Tensor:
        pooled, positions = F.max_pool2d(x, 2, 2, ceil_mode=round_up, return_indices=True)
        ctx.shape = x.shape
        ctx.save_for_backward(_corners(positions, x.shape[3]).masked_fill_(pooled <= 0, _NO_CORNER))
        return pooled.relu_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        n, c, height, width = ctx.shape
        new = torch.empty if height % 2 == 0 and width % 2 == 0 else torch.zeros
        out = new((n, height, width, c), dtype=gradient.dtype, device=gradient.device).permute(0, 3, 1, 2)
        for corner in range(4):
            part = out[:, :, corner // 2 :: 2, corner % 2 :: 2]
            rows, columns = min(part.shape[2], gradient.shape[2]), min(part.shape[3], gradient.shape[3])
            won = winner[:, :, :rows, :columns] == corner
            torch.mul(gradient[:, :, :rows, :columns], won, out=part[:, :, :rows, :columns])
        return out, None


_NO_CORNER = 4


def _corners(positions: Tensor, width: int) -> Tensor:
    """Which pixel of its 2x2 window each flat position is, 0 to 3 in reading order, as uint8."""
    rows, columns = positions.shape[2:]
    first = torch.arange(rows, device=positions.device)[:, None] * (2 * width)
    offset = positions - (first + torch.arange(0, 2 * columns, 2, device=positions.device))
    return offset.sub_((offset >= width) * (width - 2)).to(torch.uint8)


def relu_pool(x: Tensor, round_up: bool) -> Tensor:
    """ReLU, then 2x2 max-pool with stride 2 of N x C x H x W; the two commute.

    With `round_up` an odd side's last row or column makes an output of its own (H' = ceil(H / 2)), else it is dropped.
    """
    # Measured on CPU: under 64 channels the short inner loops cost more time than the memory saved is worth.
    if torch.is_grad_enabled() and x.requires_grad and x.shape[1] >= 64 and not torch.compiler.is_compiling():
        return cast(Tensor, _ReLUPool.apply(x, round_up))  # type: ignore[no-untyped-call]
    return F.max_pool2d(x, 2, 2, ceil_mode=round_up).relu_()
