"""The networks that the paper compares with, as tables of their layers, from their own papers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import lcm
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One layer of a table; a ReLU follows `conv` and `fc`.

    Attributes
    ----------
    kind : str
        `conv`; `fc`, which covers the map that comes to it from an image as large as the network's window; `pool`, the
        maximum; `mean`, of a window that covers that map; `lrn`; `drop`; `inception`, four branches.
    name : str
        Of the layer.
    channels : int
        Outputs at full width; of the classifier the classes decide.
    kernel, stride, padding, groups : int
        As torch means them.
    std, bias : float
        Standard deviation of the random weights, and the biases, that training begins with.
    relu : bool
        Whether a ReLU follows.
    branches : tuple of int
        Of `inception` the channels of 1x1; before 3x3, and 3x3; before 5x5, and 5x5; behind the pool.
    """

    kind: Literal["conv", "fc", "pool", "mean", "lrn", "drop", "inception"]
    name: str
    channels: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = field(default=1, kw_only=True)
    std: float = field(default=0.01, kw_only=True)
    bias: float = field(default=0.0, kw_only=True)
    relu: bool = field(default=True, kw_only=True)
    branches: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def ends_with(self) -> str:
        """Name of what the row gives, as `Network.layer_names` has it."""
        return f"{self.name}.relu" if self.kind in ("conv", "fc") and self.relu else self.name


@dataclass(frozen=True)
class Architecture:
    """A network as a table.

    Attributes
    ----------
    name : str
        As the paper calls it, in small letters.
    source : str
        Where the table comes from.
    image_size : int
        Side of its window in pixels.
    round_up : bool
        Whether its pools round up.
    classifier : str
        The layer whose outputs are the classes.
    rows : tuple of Row
        The layers.
    dropout : float
        Rate.
    initialization : str
        How random weights are drawn by default: as the table has them, or, of a paper that is silent, `glorot`.
    auxiliary : tuple of str
        Layers behind which auxiliary classifiers stand in training.
    """

    name: str
    source: str
    image_size: int
    round_up: bool
    classifier: str
    rows: tuple[Row, ...]
    dropout: float = 0.5
    initialization: str = "paper"
    auxiliary: tuple[str, ...] = ()

    @cached_property
    def described(self) -> str:
        """The layer that the classifier sees."""
        return _last_before(self.rows, lambda row: row.name == self.classifier)

    @cached_property
    def trunk(self) -> str:
        """The layer that the convolutions end with."""
        return _last_before(self.rows, lambda row: row.kind in ("fc", "mean") or row.name == self.classifier)

    @cached_property
    def common_groups(self) -> int:
        """What the channels of each convolution must be a multiple of."""
        return lcm(*(row.groups for row in self.rows))


def _last_before(rows: Iterable[Row], found: Callable[[Row], bool]) -> str:
    last = ""
    for row in rows:
        if found(row):
            break
        last = last if row.kind == "drop" else row.ends_with
    return last


def _alexnet() -> Iterable[Row]:
    # Biases of 1 give the second, fourth and fifth convolution and the hidden layers something to learn from at once.
    yield Row("conv", "conv1", 96, 11, 4)
    yield from (Row("lrn", "norm1"), Row("pool", "pool1", 0, 3, 2))
    yield Row("conv", "conv2", 256, 5, 1, 2, groups=2, bias=1)
    yield from (Row("lrn", "norm2"), Row("pool", "pool2", 0, 3, 2))
    yield Row("conv", "conv3", 384, 3, 1, 1)
    yield Row("conv", "conv4", 384, 3, 1, 1, groups=2, bias=1)
    yield Row("conv", "conv5", 256, 3, 1, 1, groups=2, bias=1)
    yield Row("pool", "pool5", 0, 3, 2)
    yield from _fully_connected((6, 4096), (7, 4096), (8, 0), bias=1)


def _zfnet() -> Iterable[Row]:
    yield from (Row("conv", "conv1", 96, 7, 2, 1), Row("pool", "pool1", 0, 3, 2), Row("lrn", "norm1"))
    yield from (Row("conv", "conv2", 256, 5, 2), Row("pool", "pool2", 0, 3, 2), Row("lrn", "norm2"))
    yield from _three_by_three((3, 384), (4, 384), (5, 256))
    yield Row("pool", "pool5", 0, 3, 2)
    yield from _fully_connected((6, 4096), (7, 4096), (8, 0))


def _overfeat_fast() -> Iterable[Row]:
    yield from (Row("conv", "conv1", 96, 11, 4), Row("pool", "pool1", 0, 2, 2))
    yield from (Row("conv", "conv2", 256, 5), Row("pool", "pool2", 0, 2, 2))
    yield from _three_by_three((3, 512), (4, 1024), (5, 1024))
    yield Row("pool", "pool5", 0, 2, 2)
    yield from _fully_connected((6, 3072), (7, 4096), (8, 0))


def _overfeat_accurate() -> Iterable[Row]:
    yield from (Row("conv", "conv1", 96, 7, 2), Row("pool", "pool1", 0, 3, 3))
    yield from (Row("conv", "conv2", 256, 7), Row("pool", "pool2", 0, 2, 2))
    yield from _three_by_three((3, 512), (4, 512), (5, 1024), (6, 1024))
    yield Row("pool", "pool6", 0, 3, 3)
    yield from _fully_connected((7, 4096), (8, 4096), (9, 0))


def _nin() -> Iterable[Row]:
    # cccp: cascaded cross-channel parametric pooling, the paper's name of its 1x1 convolutions.
    for block, (channels, kernel, stride, padding, std) in enumerate(
        ((96, 11, 4, 0, 0.01), (256, 5, 1, 2, 0.05), (384, 3, 1, 1, 0.01)), start=1
    ):
        yield Row("conv", f"conv{block}", channels, kernel, stride, padding, std=std)
        yield from (Row("conv", f"cccp{2 * block - 1 + i}", channels, std=0.05) for i in range(2))
        yield Row("pool", f"pool{block}", 0, 3, 2)
    yield from (Row("drop", "drop3"), Row("conv", "conv4", 1024, 3, 1, 1, std=0.05))
    yield from (Row("conv", "cccp7", 1024, std=0.05), Row("conv", "cccp8"), Row("mean", "pool4"))


def _googlenet() -> Iterable[Row]:
    yield from (Row("conv", "conv1", 64, 7, 2, 3), Row("pool", "pool1", 0, 3, 2), Row("lrn", "norm1"))
    yield from (Row("conv", "conv2_reduce", 64), Row("conv", "conv2", 192, 3, 1, 1), Row("lrn", "norm2"))
    stages = {
        2: (),
        3: ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
        4: (
            *((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64)),
            *((112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128)),
        ),
        5: ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
    }
    for stage, modules in stages.items():
        yield from (
            Row("inception", f"inception_{stage}{letter}", branches=branches)
            for letter, branches in zip("abcde", modules, strict=False)
        )
        yield Row("pool", f"pool{stage}", 0, 3, 2) if stage < 5 else Row("mean", "pool5")
    yield from (Row("drop", "drop"), Row("fc", "fc", relu=False))


def _three_by_three(*layers: tuple[int, int]) -> Iterable[Row]:
    return (Row("conv", f"conv{number}", channels, 3, 1, 1) for number, channels in layers)


def _fully_connected(*layers: tuple[int, int], bias: float = 0.0) -> Iterable[Row]:
    """Yield fully connected layers, dropout behind each, and the classifier."""
    *hidden, (last, _) = layers
    for number, channels in hidden:
        yield from (Row("fc", f"fc{number}", channels, bias=bias), Row("drop", f"drop{number}"))
    yield Row("fc", f"fc{last}", relu=False)


ARCHITECTURES: dict[str, Architecture] = {
    each.name: each
    for each in (
        Architecture(
            "alexnet",
            "Krizhevsky, Sutskever & Hinton 2012, section 3.5 (224 there; 227 is what its sizes need)",
            *(227, True, "fc8", tuple(_alexnet())),
        ),
        Architecture(
            "zfnet",
            "Zeiler & Fergus 2013, figure 3; its contrast normalization taken for Krizhevsky's",
            *(224, True, "fc8", tuple(_zfnet())),
        ),
        Architecture(
            "overfeat-fast",
            "Sermanet et al. 2013, table 1",
            *(231, False, "fc8", tuple(_overfeat_fast())),
        ),
        Architecture(
            "overfeat-accurate",
            "Sermanet et al. 2013, table 3",
            *(221, False, "fc9", tuple(_overfeat_accurate())),
        ),
        Architecture(
            "nin",
            "Lin, Chen & Yan 2013, the authors' Caffe model for ImageNet",
            *(224, True, "cccp8", tuple(_nin())),
        ),
        Architecture(
            "googlenet",
            "Szegedy et al. 2014, table 1; its normalization taken for Krizhevsky's",
            *(224, True, "fc", tuple(_googlenet())),
            dropout=0.4,
            initialization="glorot",
            auxiliary=("inception_4a", "inception_4d"),
        ),
    )
}
"""Weights begin with standard deviation 0.01, as the first four papers say; of `nin` as in its authors' model file."""
