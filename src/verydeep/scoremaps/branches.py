"""Layers side by side as one layer that slides: each branch pads its own maps, where the image ends alone."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from verydeep.scoremaps.layers import Axis, Layer

_FLOAT = 4


@dataclass(frozen=True)
class Branched(Layer):
    """Branches of layers of stride 1 that keep a map's size, and whose outputs' channels follow one another.

    Attributes
    ----------
    branches : tuple of tuple of Layer
        The layers, square ones, of each.
    """

    branches: tuple[tuple[Layer, ...], ...] = field(kw_only=True)

    @classmethod
    def of(cls, name: str, branches: tuple[tuple[Layer, ...], ...]) -> "Branched":
        """Return the layer; its padding is infinitely negative, so that `slide` knows it from the map."""
        halo = max(sum(layer.rows.before for layer in branch) for branch in branches)
        axis = Axis(2 * halo + 1, before=halo, after=halo)
        outputs, macs = sum(branch[-1].outputs for branch in branches), sum(one.macs for b in branches for one in b)
        return cls(name, axis, axis, branches[0][0].inputs, outputs, macs, -torch.inf, branches=branches)

    def slide(self, x: Tensor, left: int, right: int) -> Tensor:
        """Run each branch on what is no padding, and keep the places that all of them have."""
        inside = self.padded(x, left, right)[..., 0] != -torch.inf
        rows, columns = (torch.nonzero(inside.any(dim)).flatten() for dim in (1, 0))
        height, width = inside.shape
        top, bottom = int(rows[0]), height - 1 - int(rows[-1])
        before, behind = int(columns[0]), width - 1 - int(columns[-1])
        x = x[top : height - bottom, before - left : x.shape[1] - (behind - right)]
        edges = (top, bottom, before, behind)
        return torch.cat([self._run(branch, x, edges) for branch in self._dilated], dim=2)

    def _run(self, branch: tuple[Layer, ...], x: Tensor, edges: tuple[int, int, int, int]) -> Tensor:
        """Run a branch on a part of the map whose padding was so wide on each side: 0 where the map goes on."""
        for layer in branch:
            halo = layer.rows.before
            up, down, left, right = (halo if edge else 0 for edge in edges)
            x = F.pad(x, (0, 0, 0, 0, up, down), value=layer.fill) if up or down else x
            x = layer(x.contiguous(), left, right)
        most, own = self.rows.before, sum(layer.rows.before for layer in branch)
        top, bottom, left, right = (most - (edge or own) for edge in edges)
        return x[top : x.shape[0] - bottom, left : x.shape[1] - right]

    @cached_property
    def _dilated(self) -> tuple[tuple[Layer, ...], ...]:
        """The branches with their kernels as far apart as this layer's is."""

        def wider(axis: Axis) -> Axis:
            by = self.rows.dilation
            return replace(axis, dilation=axis.dilation * by, before=axis.before * by, after=axis.after * by)

        return tuple(
            tuple(replace(layer, rows=wider(layer.rows), columns=wider(layer.columns)) for layer in branch)
            for branch in self.branches
        )

    def workspace(self, rows: int, columns: int) -> int:
        """Return the bytes of the padded input, of the branches' outputs, and of what comes before these."""
        widest = max(layer.outputs for branch in self.branches for layer in branch)
        return _FLOAT * rows * columns * (2 * self.inputs + self.outputs + 2 * widest)
