"""What happens to pixels between decoding and the first convolution; it travels with the weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from verydeep.basics.errors import UserError

INTERPOLATIONS = ("bilinear", "bicubic", "box", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """Immutable description of the network's input, written into every weights file.

    Attributes
    ----------
    channel_order : {"RGB", "BGR"}
        Order of the network's three input channels.
    value_range : float
        Value of a white pixel before the mean is subtracted: 255 (the paper's) or 1.
    mean, std : tuple of float
        Subtracted, then divided by; for red, green, blue in this order whatever `channel_order` is, in units of
        `value_range`. The paper subtracts the training set's mean RGB and does not divide (section 2.1).
    interpolation : {"bilinear", "bicubic", "box", "lanczos"}
        How images are rescaled; always antialiased.
    pool_round_up : bool
        Whether a pool's output size is rounded up, as in the paper's Caffe, or down. It matters only to images
        whose sides are no multiple of 32. Networks of other papers round as these say.
    """

    channel_order: str = "RGB"
    value_range: float = 255.0
    mean: tuple[float, float, float] = (123.68, 116.779, 103.939)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"
    pool_round_up: bool = True

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "BGR"):
            raise UserError(f"preprocessing: channel_order is {self.channel_order!r}, expected RGB or BGR")
        if self.value_range not in (1.0, 255.0):
            raise UserError(f"preprocessing: value_range is {self.value_range}, expected 255 or 1")
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f"preprocessing: interpolation is {self.interpolation!r}, expected one of {', '.join(INTERPOLATIONS)}"
            )
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3:
                raise UserError(f"preprocessing: {name} has {len(values)} values, expected 3 (R, G, B)")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise UserError(f"preprocessing: std is {self.std}, expected three values above 0")

    def __call__(self, images: Tensor, shifts: Tensor | None = None) -> Tensor:
        """Turn decoded images into the network's input, on the device they are on.

        Parameters
        ----------
        images : Tensor
            uint8, N x H x W x 3, RGB.
        shifts : Tensor, optional
            float32, N x 3: color shift added to every pixel of an image, R, G, B in grey levels of 255. It is
            not clipped, as in Krizhevsky et al. (2012).

        Returns
        -------
        Tensor
            float32, N x 3 x H x W, stored channels last.
        """
        scale = images.new_tensor([self.value_range / 255.0 / s for s in self.std], dtype=torch.float32)
        offset = images.new_tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)], dtype=torch.float32)
        bias = offset.expand(images.shape[0], 3) if shifts is None else offset + shifts * scale
        pixels = torch.addcmul(bias[:, None, None, :], images.float(), scale)
        if self.channel_order == "BGR":
            pixels = pixels.flip(3)
        return pixels.permute(0, 3, 1, 2)

    def of_unit(self, pictures: Tensor) -> Tensor:
        """Turn RGB pictures from 0 to 1, N x 3 x H x W, floating point, into the network's input: differentiable."""
        mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        x = (pictures * self.value_range - mean) / std
        x = x.flip(1) if self.channel_order == "BGR" else x
        return x.contiguous(memory_format=torch.channels_last)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Make the object from `to_dict`'s values, refusing unknown keys."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise UserError(f"preprocessing: unknown key {sorted(unknown)[0]!r}; written by a newer version?")
        return cls(**values)
