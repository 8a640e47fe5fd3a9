"""What the numbers of a picture mean, said and checked."""

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor

from verydeep.basics.errors import UserError

Channels = Literal["rgb", "bgr"]
Check = Literal["first", "always", "never"]

RANGES: tuple[tuple[float, float], ...] = ((0, 1), (-1, 1), (0, 255))


class PictureOptions(TypedDict, total=False):
    """What functions for users take as keywords: how tensors of pictures are to be read, and what runs the layers."""

    range: tuple[float, float]
    channels: Channels
    check: Check
    engine: str


@dataclass(frozen=True)
class Pixels:
    """How tensors of pictures are to be read; UserError for a word or a range that is none."""

    range: tuple[float, float]
    channels: Channels
    check: Check

    def __post_init__(self) -> None:
        if self.range not in RANGES:
            raise UserError(f"range is {self.range!r}, expected (0, 1), (-1, 1) or (0, 255)")
        for name, value, words in (
            ("channels", self.channels, get_args(Channels)),
            ("check", self.check, get_args(Check)),
        ):
            if value not in words:
                raise UserError(f"{name} is {value!r}, expected {', '.join(words[:-1])} or {words[-1]}")

    def unit(self, x: Tensor, what: str, check_values: bool) -> Tensor:
        """Return pictures, N x 3 x H x W, as RGB from 0 to 1; UserError, by `what` they are, for anything else."""
        if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] != 3 or not x.shape[0]:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise UserError(f"{what}: found {shape}; expected a tensor of N x 3 x H x W with at least one picture")
        low, high = self.range
        if not x.is_floating_point() and (x.dtype != torch.uint8 or high != 255):
            raise UserError(
                f"{what}: {x.dtype} with range={self.range}; expected floating point, or uint8 with range=(0, 255)"
            )
        if check_values and x.is_floating_point():
            self._check_values(x.detach(), what)
        x = x if x.dtype == torch.float64 else x.float()  # float32 in autocast, too: sums of squares overflow half's
        if (low, high) != (0, 1):
            x = (x - low) / (high - low)
        return x.flip(1) if self.channels == "bgr" else x

    def _check_values(self, x: Tensor, what: str) -> None:
        least, most = (float(value) for value in torch.aminmax(x))
        low, high = self.range
        fractions = high == 255 and 0 < most <= 1 and bool((x != x.round()).any())
        if low <= least and most <= high and not fractions:  # no comparison holds of what is not a number
            return
        fits = [words for words in RANGES if words[0] <= least and most <= words[1] and words != self.range]
        advice = f"say range={fits[0]}" if fits else "clamp them"
        raise UserError(
            f"{what} have values from {least:.4g} to {most:.4g}; expected from {low} to {high}, as range={self.range} "
            f'says: {advice}, or check="never" where they are meant so'
        )
