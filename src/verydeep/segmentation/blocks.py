"""Which cells of each map a block of pixels follows from, and the block's scores from those cells alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from verydeep.nets.fcn import FCN, Step

Range = tuple[int, int]


@dataclass(frozen=True)
class Needs:
    """Along one axis, for a range of pixels.

    Attributes
    ----------
    fused : tuple of (int, int)
        Cells of the scores at each stride, the coarsest first, the sums with finer maps' scores.
    skips : tuple of (int, int)
        Cells of the finer maps, in the same order, one fewer.
    """

    fused: tuple[Range, ...]
    skips: tuple[Range, ...]


def totals(net: FCN, side: int, skips: Sequence[int]) -> list[int]:
    """Return how many cells the scores at each stride have along an axis.

    `side` is that of the last map, `skips` those of the finer ones, the coarsest first.
    """
    found = [side]
    for step, skip in zip(net.steps, skips, strict=True):
        finer = (found[-1] - 1) * step.factor + step.kernel - max(-step.lag, 0)
        found.append(min(finer, skip - max(step.lag, 0)))
    return found


def needs(net: FCN, pixels: Range, cells: Sequence[int]) -> Needs:
    """Return what a range of pixels needs; `cells` are `totals`."""
    first = -net.last.lag
    fused = [_inputs(net.last, (pixels[0] + first, pixels[1] + first), cells[-1])]
    skips = list[Range]()
    for step, count in zip(reversed(net.steps), reversed(cells[:-1]), strict=True):
        low, high = fused[0]
        skips.insert(0, (low + max(step.lag, 0), high + max(step.lag, 0)))
        fused.insert(0, _inputs(step, (low + max(-step.lag, 0), high + max(-step.lag, 0)), count))
    return Needs(tuple(fused), tuple(skips))


def _inputs(step: Step, outputs: Range, count: int) -> Range:
    """Return which of `count` cells the outputs of an upsampling see."""
    low = max(-((step.kernel - 1 - outputs[0]) // step.factor), 0)
    return low, min((outputs[1] - 1) // step.factor, count - 1) + 1


def block(net: FCN, maps: Sequence[Tensor], rows: Needs, columns: Needs, pixels: tuple[Range, Range]) -> Tensor:
    """Return the scores of the pixels in a range of rows and one of columns, 1 x K x rows x columns.

    `maps` are the cells that `rows` and `columns` name: of the last map, then of the finer ones, the coarsest first.
    """
    x, *finer = maps
    names = ["upscore2", *(f"upscore_{name}" for name in net.taps)]
    for number, (name, step, skip) in enumerate(zip(names, net.steps, finer, strict=False)):
        here, after = (rows.fused[number], columns.fused[number]), (rows.fused[number + 1], columns.fused[number + 1])
        x = net.get_submodule(name)(x)
        x = _cut(x, step, here, after, max(-step.lag, 0)) + skip
    last = (rows.fused[-1], columns.fused[-1])
    return _cut(cast(Tensor, net.get_submodule("upscore")(x)), net.last, last, pixels, -net.last.lag)


def _cut(x: Tensor, step: Step, inputs: tuple[Range, Range], outputs: tuple[Range, Range], ahead: int) -> Tensor:
    """Return the outputs that are wanted of an upsampling of some inputs; `ahead` cells lie before its grid's first."""
    for axis, (given, wanted) in enumerate(zip(inputs, outputs, strict=True), start=2):
        x = x.narrow(axis, wanted[0] + ahead - given[0] * step.factor, wanted[1] - wanted[0])
    return x
