"""What every reader of another project's file gives: the network's layers in order, as the file has them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from verydeep.nets.preprocessing import Preprocessing

Sides = tuple[int, int, int, int]
"""Zeros around a map: above, to the left, below, to the right."""


@dataclass(frozen=True)
class Array:
    """One array of a file, not read yet.

    Attributes
    ----------
    name : str
        What the file calls it.
    shape : tuple of int
        Its shape as `read` gives it: convolutions are outputs x inputs x height x width, fully connected layers
        outputs x inputs.
    read : callable
        Returns the values as a tensor; called once, after the shape was found to be right.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Layer:
    """A layer; `name` is what the file calls it, `what` what it is, in words."""

    what: ClassVar[str]
    name: str


@dataclass(frozen=True)
class Weighted(Layer):
    """A layer with weights.

    Attributes
    ----------
    arrays : mapping of str to Array
        `weight`, `bias` and so on, as torch calls them.
    ours : str, optional
        The paper's name, `conv3_2` or `fc6`, where the file's own name tells it.
    """

    arrays: Mapping[str, Array]
    ours: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights; (0,) where there are none."""
        weight = self.arrays.get("weight")
        return (weight.shape if weight else ()) or (0,)

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width of the kernel; (1,) of a matrix."""
        return self.shape[2:] or (1,)


@dataclass(frozen=True)
class Conv(Weighted):
    """A convolution; padding that the file does not state is None."""

    what = "a convolution"
    padding: Sides | None = None
    stride: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


@dataclass(frozen=True)
class Dense(Weighted):
    """A fully connected layer."""

    what = "a fully connected layer"


W = TypeVar("W", bound=Weighted)


def zeros(name: str, count: int) -> Array:
    """Return an array of zeros."""
    return Array(name, (count,), lambda: torch.zeros(count))


def with_bias(layer: W) -> W:
    """Return the layer, with a bias of zeros where it has none."""
    weight = layer.arrays["weight"]
    if "bias" in layer.arrays or not weight.shape:
        return layer
    return replace(layer, arrays={**layer.arrays, "bias": zeros(f"{weight.name}, bias", weight.shape[0])})


@dataclass(frozen=True)
class BatchNorm(Weighted):
    """Batch norm."""

    what = "batch norm"
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Relu(Layer):
    """A ReLU."""

    what = "a ReLU"


@dataclass(frozen=True)
class MaxPool(Layer):
    """A max-pool, which rounds the sizes of its outputs up or down."""

    what = "a max-pool"
    kernel: tuple[int, ...] = (2, 2)
    stride: tuple[int, ...] = (2, 2)
    round_up: bool = False


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """Local response normalization; `alpha` is divided by the window's size, as Caffe and ONNX have it."""

    what = "local response normalization"
    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class Affine(Layer):
    """A product and a sum: of one number each for all channels, or of three in the channels' order."""

    what = "a product and a sum"
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class SwapChannels(Layer):
    """A reversal of the channels."""

    what = "a reversal of the channels"


@dataclass(frozen=True)
class Pad(Layer):
    """A border of zeros."""

    what = "a border of zeros"
    padding: Sides


@dataclass(frozen=True)
class Flatten(Layer):
    """A flattening, of channels x height x width or, channels last, of height x width x channels."""

    what = "a flattening"
    channels_last: bool = False


@dataclass(frozen=True)
class Mean(Layer):
    """A mean over the whole map."""

    what = "a mean over the whole map"


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout, or whatever else does nothing in testing."""

    what = "dropout"


@dataclass(frozen=True)
class Softmax(Layer):
    """A soft-max."""

    what = "a soft-max"


@dataclass(frozen=True)
class Sigmoid(Layer):
    """A sigmoid."""

    what = "a sigmoid"


@dataclass(frozen=True)
class Other(Layer):
    """Anything else: `kind` is the file's word for it, `facts` what it says of it."""

    kind: str
    facts: str = ""

    @property
    def what(self) -> str:  # type: ignore[override]
        """What it is, in words."""
        return f"{self.kind} ({self.facts})" if self.facts else self.kind


@dataclass(frozen=True)
class Checkpoint:
    """The content of another project's file.

    Attributes
    ----------
    kind : str
        The format, as users call it.
    layers : tuple of Layer
        In the order in which they run.
    preprocessing : Preprocessing
        What the file's own software does to pictures.
    graph : bool
        Whether `layers` are all that runs. Otherwise the file has arrays, batch norm behind its convolution, and
        perhaps a few layers without: what is missing between them is as the paper has it.
    classes : tuple of str, optional
        Class names in order, where the file has them.
    image_size : int, optional
        Side of the square pictures that the file is made for, in pixels, where it says so.
    description : dict, optional
        What `verydeep convert --to` wrote beside the weights: all that such a file does not hold by itself.
    names : mapping of str to str
        The file's names of our tensors, where its project always calls them so: for messages.
    """

    kind: str
    layers: tuple[Layer, ...]
    preprocessing: Preprocessing
    graph: bool = True
    classes: tuple[str, ...] | None = None
    image_size: int | None = None
    description: dict[str, Any] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
