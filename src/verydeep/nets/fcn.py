"""Networks that answer for each pixel: score maps of one to three strides, made as fine as the image and added.

After Long, Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation" (2015, and in PAMI 2017).
Where a map's cells lie in the image follows from the layers, so the crops that they publish as numbers (19, 27, 31; 5
and 9) are computed here, for any network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.nets.config import NetworkConfig, SegmentationConfig
from verydeep.nets.layers import Bilinear, ConvLinear, SkipScore, Upsampling
from verydeep.nets.network import Network, Through
from verydeep.nets.plain import MeanPool, Plain, Slides, channels_out, plain_layers, sides

IMAGE_PADDING = 99
"""Zeros around the picture, px: with the one of conv1_1 the 100 that the published networks have there."""

SKIPS = {"32s": (), "16s": (16,), "8s": (16, 8)}
"""Strides of the maps that are scored beside the last one."""


@dataclass(frozen=True)
class Grid:
    """Where a map's cells lie along an axis of the image: cell i is centered at pixel `first` + `stride` i."""

    first: Fraction
    stride: int


@dataclass(frozen=True)
class Step:
    """How scores become as fine as the next map.

    Attributes
    ----------
    factor, kernel : int
        Of the transposed convolution.
    lag : int
        Cells of the finer map before the first of the scores made finer; below 0, cells of these before it.
    """

    factor: int
    kernel: int
    lag: int


class FCN(Network):
    """A network that gives scores of classes for each pixel of an image.

    The layers are those of the network that it is made from, in the same order and under the same names; beside them
    stand `score_pool4`, `score_pool3`, and the upsampling `upscore2`, `upscore_pool4`, `upscore`.

    Parameters
    ----------
    network : NetworkConfig
        What it is, with its `segmentation`.
    base : Network
        The network for whole windows, of the same configuration.

    Raises
    ------
    UserError
        The network has no map of a stride that the head needs, or its cells do not lie where pixels do.
    """

    def __init__(self, network: NetworkConfig, base: Network) -> None:
        about = cast(SegmentationConfig, network.segmentation)
        name = network.configuration.name
        plain = plain_layers(base.named_children(), round_up=False)
        self._linear = next((n for n, module in base.named_children() if isinstance(module, ConvLinear)), "")
        grids = _grids(plain, self._linear if about.padding == "map" else "")
        if base.stride != 32:
            raise UserError(f"{name}: segmentation takes networks of stride 32, and its stride is {base.stride}")
        taps = [_tap(plain, grids, stride, name, about.head) for stride in SKIPS[about.head]]
        steps, grid = [], grids[-1]
        for place in taps:
            step, grid = _step(grid, grids[place], name)
            steps.append(step)
        padding = IMAGE_PADDING if about.padding == "image" else 0
        last, _ = _step(grid, Grid(Fraction(padding), 1), name)
        if last.lag > 0:
            raise UserError(
                f"{name}: with segmentation.padding={about.padding} and window {network.image_size} the pixels at the "
                f"edges would have no scores; take {'map' if padding else 'image'}"
            )
        classes, beside = len(network.classes), list[tuple[str, nn.Module]]()
        for place, scale in zip(taps, about.skip_scales, strict=False):
            scored = SkipScore(channels_out(plain[: place + 1]), classes, scale)
            beside.append((f"score_{plain[place].name}", scored))
        names = ["upscore2", *(f"upscore_{plain[place].name}" for place in taps)]
        beside += [(n, Upsampling(classes, s.factor, s.kernel)) for n, s in zip(names, steps, strict=False)]
        beside.append(("upscore", Bilinear(last.factor, last.kernel)))
        super().__init__(network, [*base.named_children(), *beside])
        self.window = base.window
        self.padding, self.steps, self.last = padding, steps, last
        self.taps = [plain[place].name for place in taps]
        self._places = taps
        self.first_skip = min(zip(taps, self.taps, strict=True))[1] if taps else None

    @property
    def least_size(self) -> int:
        """Side in pixels of the smallest image: what is missing to a window is padded."""
        return 1

    def check_size(self, height: int, width: int) -> None:
        """Take any size."""

    def pixel_scores(self, x: Tensor, through: Through | None = None) -> Tensor:
        """Return the class scores of each pixel.

        Parameters
        ----------
        x : Tensor
            N x 3 x H x W, preprocessed.
        through : callable, optional
            What runs the layers, an engine; by default the layers themselves.

        Returns
        -------
        Tensor
            N x K x H x W, before the soft-max.
        """
        height, width = x.shape[2:]
        return self.fused(self.maps(self.padded(x), through or self._through))[:, :, :height, :width]

    def padded(self, x: Tensor) -> Tensor:
        """Return pixels with what the network pads them with: zeros around, and more where pools would cut some off."""
        down, across = (self.extra(side) for side in x.shape[2:])
        return F.pad(x, (self.padding, self.padding + across, self.padding, self.padding + down))

    def maps(self, x: Tensor, through: Through) -> list[Tensor]:
        """Return the scores of the last map and of those of finer stride, the coarsest first, of padded pixels."""
        before, found = None, list[Tensor]()
        for name in reversed(self.taps):
            x, before = through(x, name, before), name
            found.append(self.get_submodule(f"score_{name}")(x))
        names = self.layer_names
        if self._pads_map and self._linear != names[0]:
            below = names[names.index(self._linear) - 1]
            x, before = through(x, below, before), below
            x = F.pad(x, self._map_padding * 2)
        return [through(x, names[-1], before), *reversed(found)]

    def fused(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the pixels' scores, from the image's first row and column on, perhaps some more at its end."""
        x, *finer = maps
        names = ["upscore2", *(f"upscore_{name}" for name in self.taps)]
        for name, step, skip in zip(names, self.steps, finer, strict=False):
            x = self.get_submodule(name)(x)
            x, skip = (
                x[:, :, max(-step.lag, 0) :, max(-step.lag, 0) :],
                skip[:, :, max(step.lag, 0) :, max(step.lag, 0) :],
            )
            rows, columns = (min(a, b) for a, b in zip(x.shape[2:], skip.shape[2:], strict=True))
            x = x[:, :, :rows, :columns] + skip[:, :, :rows, :columns]
        return cast(Tensor, self.get_submodule("upscore")(x))[:, :, -self.last.lag :, -self.last.lag :]

    def extra(self, side: int) -> int:
        """Return how many rows or columns of zeros an image of this side needs at its end, so that none is cut off."""
        plain = self.plain_layers()
        for more in range(2 * self.stride + self.window):
            if self._covers(plain, side, side + 2 * self.padding + more):
                return more
        raise AssertionError("more zeros always make more cells")

    def _covers(self, plain: Sequence[Plain], side: int, padded: int) -> bool:
        found = self.sides(plain, padded)
        if min(found) < 1:
            return False
        length = found[-1]
        for step, place in zip(self.steps, self._places, strict=True):
            length = (length - 1) * step.factor + step.kernel - max(-step.lag, 0)
            length = min(length, found[place] - max(step.lag, 0))
        return (length - 1) * self.last.factor + self.last.kernel + self.last.lag >= side

    def sides(self, plain: Sequence[Plain], side: int) -> list[int]:
        """Return the outputs along an axis that each layer gives for `side` padded pixels."""
        if not self._pads_map:
            return sides(plain, side)
        place = next(i for i, layer in enumerate(plain) if layer.name == self._linear)
        first = sides(plain[:place], side)
        return [*first, *sides(plain[place:], (first[-1] if first else side) + sum(self._map_padding))]

    @property
    def map_padding(self) -> tuple[str, tuple[int, int]] | None:
        """The fully connected layer whose input is padded, and the zeros before and behind it; None for no such."""
        return (self._linear, self._map_padding) if self._pads_map else None

    @property
    def _pads_map(self) -> bool:
        return self.padding == 0 and bool(self._linear)

    @property
    def _map_padding(self) -> tuple[int, int]:
        """Zeros before and behind the first fully connected layer's input, where that is padded."""
        kernel = cast(ConvLinear, self.get_submodule(self._linear)).kernel_size[0]
        return (kernel - 1) // 2, kernel // 2

    def _through(self, x: Tensor, layer: str, after: str | None) -> Tensor:
        return self.activations(x, layer, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of each pixel, N x K x H x W."""
        return self.pixel_scores(x)

    def in_training_by(self, x: Tensor, through: Through) -> tuple[Tensor, ...]:
        """Return the pixels' scores, the layers run by `through`."""
        return (self.pixel_scores(x, through),)


def _grids(plain: Sequence[Plain], padded: str) -> list[Grid]:
    """Return where each layer's cells lie, the first pixel being that of the padded image.

    `padded` is the fully connected layer whose input is padded, if any.
    """
    first, stride, found = Fraction(0), 1, list[Grid]()
    for layer in plain:
        if isinstance(layer, Slides):
            before = (layer.kernel - 1) // 2 if layer.name == padded else 0
            before += 0 if isinstance(layer, MeanPool) else layer.padding
            first += stride * (Fraction(layer.kernel - 1, 2) - before)
            stride *= layer.stride
        found.append(Grid(first, stride))
    return found


def _tap(plain: Sequence[Plain], grids: Sequence[Grid], stride: int, name: str, head: str) -> int:
    """Return the place of the pool whose map has a stride."""
    pools = [i for i, layer in enumerate(plain) if isinstance(layer, Slides) and layer.stride > 1]
    for place in pools:
        if grids[place].stride == stride and not hasattr(plain[place], "module"):
            return place
    strides = ", ".join(f"{plain[i].name} {grids[i].stride}" for i in pools)
    raise UserError(f"{name}: head {head} needs a pool of stride {stride}, and its strides are {strides}; take 32s")


def _step(coarse: Grid, fine: Grid, name: str) -> tuple[Step, Grid]:
    """Return the upsampling whose outputs lie where the finer map's cells do, and where the sum's cells then lie."""
    factor = coarse.stride // fine.stride
    for kernel in (2 * factor, 2 * factor - 1):
        first = coarse.first - fine.stride * Fraction(kernel - 1, 2)
        lag = (first - fine.first) / fine.stride
        if lag.denominator == 1:
            return Step(factor, kernel, int(lag)), Grid(max(first, fine.first), fine.stride)
    raise UserError(
        f"{name}: its cells lie {float(coarse.first - fine.first):g} pixels from those of stride {fine.stride}, so "
        "that no upsampling meets these; take another network"
    )
