"""Finer maps: OverFeat's pooling offsets, by dilated layers instead of shifted inputs (paper section 3.2).

A layer of stride s that is made to stop at every place computes all its s x s offsets at once, and the layers behind
it then look at every s-th place: their kernels are dilated by s. Below the layer nothing changes.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from verydeep.basics.errors import UserError
from verydeep.scoremaps.layers import Axis, Layer


def strides(layers: Sequence[Layer]) -> list[int]:
    """Return the strides that the map can have, from the network's own down to 1."""
    steps = [layer.rows.stride for layer in layers]
    found = {prod(steps[:count]) for count in range(len(steps) + 1)}
    return sorted(found, reverse=True)


def finer(layers: Sequence[Layer], stride: int) -> tuple[Layer, ...]:
    """Return layers, equal along both axes, whose map has a cell every `stride` pixels, one of `strides(layers)`.

    Cells (i, j) of the original map are cells (f i, f j) of the finer one, f the original stride over `stride`; the
    others are what the layers would give for the pools' other offsets. UserError for another stride.
    """
    possible = strides(layers)
    if stride not in possible:
        raise UserError(f"stride {stride}: this network's maps can have {', '.join(map(str, possible))}")
    reached, dilation = 1, 1
    result = []
    for layer in layers:
        step = layer.rows.stride
        removed = reached * step > stride and step > 1
        rows, columns = (_dilated(axis, dilation, removed) for axis in (layer.rows, layer.columns))
        result.append(replace(layer, rows=rows, columns=columns))
        if removed:
            dilation *= step
        else:
            reached *= step
    return tuple(result)


def _dilated(axis: Axis, dilation: int, removed: bool) -> Axis:
    # A window of a pool that rounds up may reach `stride - 1` inputs over the end; these inputs are `dilation` apart.
    return Axis(
        axis.kernel,
        1 if removed else axis.stride,
        axis.dilation * dilation,
        axis.before * dilation,
        axis.after * dilation,
        axis.overhang * dilation,
    )
