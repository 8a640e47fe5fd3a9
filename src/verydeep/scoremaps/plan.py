"""How a map is computed within a limit of memory: derived from the layers, shown before anything is run."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from verydeep.basics.errors import UserError
from verydeep.basics.memory import resident
from verydeep.scoremaps.bands import Extent, Rectangle, extents, map_size, row_bytes, steps
from verydeep.scoremaps.densify import Dense, run
from verydeep.scoremaps.layers import Layer

WORK = 8 * 2**20
"""Bytes that a layer works on at a time where memory is no matter: more does not fit into a processor's cache."""
_RESERVE = 96 * 2**20  # of the allocator, of oneDNN's code and laid-out weights, of libvips
_FLOAT = 4


@dataclass(frozen=True)
class Plan:
    """How one scale's map is computed.

    Attributes
    ----------
    height, width : int
        Of the image as it is run, after rescaling.
    rows, columns : int
        Of the whole map.
    parts : tuple of Rectangle
        Cells to compute, one part after another; the image is read from top to bottom for each.
    strips : int
        Into how many column strips each wanted part was cut: 1 where a full row of bands fits.
    work : int
        Bytes that a layer works on at a time.
    band : int
        Pixel rows that are read at a time.
    working_bytes : int
        Most that activations, pixels and scores take together, by the layers' shapes.
    macs : int
        Multiply-adds of all parts.
    recomputed : float
        Share of them that is spent twice because strips overlap.
    """

    height: int
    width: int
    rows: int
    columns: int
    parts: tuple[Rectangle, ...]
    strips: int
    work: int
    band: int
    working_bytes: int
    macs: int
    recomputed: float


def make_plan(
    dense: Dense,
    height: int,
    width: int,
    wanted: Sequence[Rectangle],
    memory: int | None,
    *,
    row_bytes: int = 0,
    kept: int | None = None,
) -> Plan:
    """Find the parts, and what is worked on at a time, that fit into the memory that is left; None is no limit.

    `wanted` are the cells to compute of an image of this size as it is run, `row_bytes` what its reader keeps for each
    column, `kept` the classes that are kept. UserError where not even one row of one column fits; it says the least
    that works.
    """
    rows, columns = map_size(dense.layers, height, width)
    alone = sum(_macs(dense.layers, extents(dense.layers, height, width, part)) for part in wanted)
    widest = max((part.right - part.left for part in wanted), default=1)
    classes = len(dense.classes) if kept is None else kept
    smallest: tuple[int, int, int] = (sys.maxsize, 1, 0)  # bytes of one strip, strips, work
    strips = 1

    def needed(parts: Sequence[Rectangle], work: int) -> int:
        return max(working_bytes(dense, height, width, part, work, row_bytes, classes) for part in parts)

    while wanted:
        parts = tuple(piece for part in wanted for piece in _strips(part, strips))
        some = parts[len(parts) // 2]  # strips are alike: where one does not fit, the others need no look
        for work in _works(dense, height, width, some):
            bytes_ = needed([some], work)
            smallest = min(smallest, (bytes_, strips, work))
            if memory is not None and bytes_ > memory:
                continue
            bytes_ = needed(parts, work)
            if memory is None or bytes_ <= memory:
                macs = sum(_macs(dense.layers, extents(dense.layers, height, width, part)) for part in parts)
                band = _band(dense.layers, extents(dense.layers, height, width, parts[0]), work)
                again = macs / alone - 1
                return Plan(height, width, rows, columns, parts, strips, work, band, bytes_, macs, again)
        if strips >= widest:
            _, strips, work = smallest
            every = [piece for part in wanted for piece in _strips(part, strips)]
            raise MemoryTooSmallError(needed(every, work))
        strips = min(strips + max(1, strips // 2), widest)
    return Plan(height, width, rows, columns, (), 1, WORK, 1, 0, 0, 0.0)


def _works(dense: Dense, height: int, width: int, part: Rectangle) -> tuple[int, ...]:
    """Return the bytes to try to work on at a time, the fastest first: at least eight rows of every layer."""
    found = zip(dense.layers, extents(dense.layers, height, width, part), strict=True)
    return (
        max(WORK, 8 * max(sum(row_bytes(layer, extent)) for layer, extent in found)),
        WORK,
        WORK // 4,
        WORK // 16,
        0,
    )


class MemoryTooSmallError(UserError):
    """No plan fits; one would in `least` bytes."""

    def __init__(self, least: int) -> None:
        super().__init__(f"memory is too small for even one row of one column: {least} bytes are needed")
        self.least = least


def within(limit: int | None, device: torch.device) -> int | None:
    """Return the bytes of `limit` that are left for work: on a CPU, beside what the process holds already."""
    if limit is None:
        return None
    return limit - (_RESERVE + resident() if device.type == "cpu" else 0)


def working_bytes(
    dense: Dense, height: int, width: int, part: Rectangle, work: int, source_row_bytes: int, kept: int
) -> int:
    """Return the most bytes that a part takes while it is computed."""
    found = extents(dense.layers, height, width, part)
    at_a_time = steps(dense.layers, found, work)
    held = most = 0
    incoming = band = _band(dense.layers, found, work)
    for layer, extent, step in zip(dense.layers, found, at_a_time, strict=True):
        before, after = row_bytes(layer, extent)
        rows = layer.rows.extent - 1 + step * layer.rows.stride + incoming
        rows = min(rows, extent.inputs.bottom - extent.inputs.top + layer.rows.extent)
        copies = 1 + (1 if extent.left != extent.right or layer.fill else 0)  # joined, and perhaps padded
        others = len(layer.behind) - sum(part is torch.relu_ for part in layer.behind)  # not done in place
        columns = extent.outputs.right - extent.outputs.left
        now = copies * rows * before + step * after * (2 + 3 * min(others, 1)) + layer.workspace(step, columns)
        held += rows * before
        most = max(most, now)
        incoming = step
    pixels = (found[0].inputs.right - found[0].inputs.left) * band * (3 + 3 * 3 * _FLOAT) + source_row_bytes * width
    cells = part.right - part.left
    scores = _FLOAT * cells * (3 * at_a_time[-1] * len(dense.classes) + 2 * kept * chunk_rows(kept))
    weights = max(_weight_bytes(layer) for layer in dense.layers)  # laid out anew by oneDNN
    return held + most + pixels + scores + weights


def chunk_rows(kept: int) -> int:
    """Return how many rows of a map are stored at a time, by the classes that are kept."""
    return max(4, min(64, 4096 // kept))


def seconds(dense: Dense, plans: Sequence[Plan], device: torch.device) -> float:
    """Return about how long plans take, by running a small image."""
    side = max(dense.window, 192)
    x = torch.zeros(3, side, side, device=device)
    macs = _macs(dense.layers, extents(dense.layers, side, side, Rectangle(0, 0, *map_size(dense.layers, side, side))))
    with torch.inference_mode():
        run(dense.layers, x)
        start = time.perf_counter()
        run(dense.layers, x).cpu()
    return (time.perf_counter() - start) * sum(plan.macs for plan in plans) / macs


def _strips(part: Rectangle, count: int) -> list[Rectangle]:
    """Cut a part into column strips of about one width."""
    width = part.right - part.left
    count = min(count, width)
    edges = [part.left + width * i // count for i in range(count + 1)]
    return [Rectangle(part.top, left, part.bottom, right) for left, right in pairwise(edges)]


def _macs(layers: Sequence[Layer], found: Sequence[Extent]) -> int:
    return sum(layer.macs * extent.outputs.area for layer, extent in zip(layers, found, strict=True))


def _band(layers: Sequence[Layer], found: Sequence[Extent], work: int) -> int:
    """Return how many pixel rows to read at a time."""
    return max(1, steps(layers, found, work)[0] * layers[0].rows.stride)


def _weight_bytes(layer: Layer) -> int:
    weight = getattr(layer, "weight", None)
    return 0 if weight is None or layer.rows.kernel * layer.columns.kernel == 1 else weight.nbytes
