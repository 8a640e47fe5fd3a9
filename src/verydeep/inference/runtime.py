"""Where and how a network runs in testing, chosen once and handed through as one value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.engines import library
from verydeep.engines.compiled import NativeLayers
from verydeep.nets.configurations import Configuration
from verydeep.nets.network import Network

Engine = Literal["native", "torch"]
Precision = Literal["float32", "bf16", "fixed16"]
Run = Callable[[Tensor], Tensor]

DEFAULT_MEMORY = 2 * 2**30

FEW = 16
"""Fewer images than these are not worth packing the weights for: that takes as long as some ten images gain."""


@dataclass(frozen=True)
class Runtime:
    """Where and how a network runs; nothing of it is meant to change a result by more than rounding.

    UserError for a precision that there is not.

    Attributes
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        Where the network runs; it is moved there.
    engine : {"auto", "native", "torch"}
        What runs its layers; `auto` is the native engine on a CPU, see `pick_engine`.
    memory : int
        Bytes that pictures and activations may take together, beside weights and posteriors; a picture that alone
        takes more is refused.
    precision : {"float32", "bf16", "fixed16"}
        Of the network's arithmetic, recorded with its results; soft-max and means are float32 at least. `fixed16`,
        16-bit integers with scales, is the native engine's.
    """

    device: str = "auto"
    engine: str = "auto"
    memory: int = DEFAULT_MEMORY
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise UserError(f"precision {self.precision!r}: expected one of {', '.join(get_args(Precision))}")

    @property
    def memory_for_layers(self) -> int:
        """Bytes for what the network computes; a quarter is for originals while they are decoded."""
        return self.memory - self.memory // 4


class RuntimeOptions(TypedDict, total=False):
    """The fields of `Runtime` as keywords of functions for users."""

    device: str
    engine: str
    memory: int
    precision: Precision


def pick_engine(
    name: str, device: torch.device, precision: str = "float32", images: int | None = None, net: Network | None = None
) -> Engine:
    """Return the engine called `name`; `auto` is the native one where it is sure to be faster, else torch.

    That is: on a CPU with AVX2 or AVX-512, in float32, for at least `FEW` images or an unknown number, where the
    library was built; and for the paper's networks: the large, strided and grouped kernels of others are torch's in
    either case, and the rest gains nothing. Nothing is measured. UserError for no such engine, or one that does not run
    on this device, in this precision, or on this machine.
    """
    if name not in ("auto", *get_args(Engine)):
        raise UserError(f"engine {name!r}: expected one of auto, {', '.join(get_args(Engine))}")
    fits = device.type == "cpu" and precision != "bf16"
    if precision == "fixed16":
        if name == "torch" or not fits:
            raise UserError(f"precision fixed16 is the native engine's, on the CPU, not {name}'s on {device}")
        name = "native"
    if name == "auto":
        many = images is None or images >= FEW
        stacks = net is None or isinstance(net.configuration, Configuration)
        fast = fits and many and stacks and library.find() is not None and library.best_processor() != "portable"
        return "native" if fast else "torch"
    if name == "torch":
        return "torch"
    if not fits:
        raise UserError(f"engine {name} runs on the CPU in float32, not on {device} in {precision}; take engine torch")
    library.load()
    return "native"


def layers_by(
    engine: Engine, net: Network, layer: str | None = None, after: str | None = None, precision: str = "float32"
) -> Run:
    """Return what maps preprocessed images, N x 3 x H x W, or the values of `after`, to a layer's, or the last.

    The network is set to testing; the native engine keeps the weights and the rounding of pools that it has now.
    """
    if engine == "native":
        return NativeLayers(net, layer, "fixed16" if precision == "fixed16" else "exact", after=after)
    last = layer or net.layer_names[-1]
    return lambda x: net.activations(x, last, after)
