"""The paper's seven configurations as data (Tables 1 and 2, section 4.1 for the shallow variant of B)."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from verydeep.basics.errors import UserError
from verydeep.nets.architectures import ARCHITECTURES, Architecture


@dataclass(frozen=True)
class Conv:
    """One convolution of a configuration: stride 1, padded so that the resolution is preserved.

    Attributes
    ----------
    kernel : int
        Side of the square filter: 3, in places 1 (C) or 5 (the shallow variant of B).
    channels : int
        Output channels at full width.
    """

    kernel: int
    channels: int


@dataclass(frozen=True)
class Configuration:
    """Five blocks of convolutions, each followed by a 2x2 max-pool; three fully connected layers follow.

    Attributes
    ----------
    name : str
        The paper's letter, `A-LRN`, or `B-5x5`.
    blocks : tuple of tuple of Conv
        The convolutions of each block, in order.
    lrn : bool
        Whether local response normalization stands between the first block's ReLU and its pool.
    """

    name: str
    blocks: tuple[tuple[Conv, ...], ...]
    lrn: bool = False

    image_size: ClassVar[int] = 224
    dropout: ClassVar[float] = 0.5
    classifier: ClassVar[str] = "fc8"
    described: ClassVar[str] = "fc7.relu"
    trunk: ClassVar[str] = "pool5"
    initialization: ClassVar[str] = "glorot"
    auxiliary: ClassVar[tuple[str, ...]] = ()

    @property
    def weight_layers(self) -> int:
        """Layers with weights: the convolutions and fc6, fc7, fc8."""
        return sum(map(len, self.blocks)) + 3


CHANNELS = (64, 128, 256, 512, 512)


def _configuration(name: str, *kernels: tuple[int, ...], lrn: bool = False) -> Configuration:
    blocks = (tuple(Conv(k, channels) for k in block) for block, channels in zip(kernels, CHANNELS, strict=True))
    return Configuration(name, tuple(blocks), lrn)


# The kernels of each block; all convolutions of a block have the same width.
CONFIGURATIONS: dict[str, Configuration] = {
    configuration.name: configuration
    for configuration in (
        _configuration("A", (3,), (3,), (3, 3), (3, 3), (3, 3)),
        _configuration("A-LRN", (3,), (3,), (3, 3), (3, 3), (3, 3), lrn=True),
        _configuration("B", (3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
        _configuration("C", (3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
        _configuration("D", (3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        _configuration("E", (3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
        # "replacing each pair of 3x3 layers in B with a single 5x5": same receptive field, 7 % worse top-1.
        _configuration("B-5x5", (5,), (5,), (5,), (5,), (5,)),
    )
}


NAMES = (*CONFIGURATIONS, *ARCHITECTURES)
"""Of all networks that `configuration` knows."""


def configuration(name: str) -> Configuration | Architecture:
    """Return the configuration called `name`: one of the paper's, or of the networks that it compares with.

    UserError: no configuration has this name; the message lists them.

    Examples
    --------
    >>> configuration("D").weight_layers
    16
    """
    every: dict[str, Configuration | Architecture] = {**CONFIGURATIONS, **ARCHITECTURES}
    found = {known.upper(): configuration for known, configuration in every.items()}.get(name.upper())
    if found is None:
        popular = {"VGG11": "A", "VGG13": "B", "VGG16": "D", "VGG19": "E"}
        nearest = popular.get(name.upper().replace("-", "")) or next(
            iter([*get_close_matches(name.upper(), CONFIGURATIONS, n=1), *get_close_matches(name.lower(), every, n=1)]),
            "D",
        )
        known, others = ", ".join(CONFIGURATIONS), ", ".join(ARCHITECTURES)
        raise UserError(
            f"no configuration {name!r}: the paper's are {known}, other papers' {others} (did you mean {nearest}?)"
        )
    return found
