"""Which cells of a map are wanted: a region, a mask, and what a stopped run has left."""

from collections.abc import Iterable, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.images.files import read_picture
from verydeep.scoremaps.bands import Rectangle

Mask = NDArray[np.bool_]


def region_cells(
    region: tuple[int, int, int, int], step: tuple[float, float], stride: int, window: int, size: tuple[int, int]
) -> Rectangle:
    """Return the cells whose windows lie inside a region - x, y, width and height - in pixels of the original.

    `step` is original pixels per rescaled pixel, down and across; stride and window are in rescaled ones, `size` is
    rows and columns of the whole map. UserError where no window fits into the region.
    """
    x, y, width, height = region
    ranges = []
    for start, length, s, cells in ((y, height, step[0], size[0]), (x, width, step[1], size[1])):
        first = max(ceil(start / s / stride - 1e-9), 0)
        last = min(floor(((start + length) / s - window) / stride + 1e-9) + 1, cells)
        ranges.append((first, last))
    (top, bottom), (left, right) = ranges
    if top >= bottom or left >= right:
        need = [ceil(window * s) for s in step]
        raise UserError(
            f"region {x},{y},{width},{height}: no window of {need[1]} x {need[0]} pixels (width x height) lies in it "
            "and in the image; make it larger"
        )
    return Rectangle(top, left, bottom, right)


def read_mask(mask: str | Path | NDArray[np.generic], height: int, width: int) -> Mask:
    """Return a mask for an image of `height` x `width` pixels: True where its value is above 0.

    It is a picture or array of the image's size, or of that size divided by a whole number; UserError for another one.
    """
    name = "the mask" if isinstance(mask, np.ndarray) else str(mask)
    values: NDArray[Any] = mask if isinstance(mask, np.ndarray) else read_picture(Path(mask)).max(axis=2)
    if values.ndim != 2:
        raise UserError(f"{name}: an array of shape {values.shape}, expected height x width")
    rows, columns = values.shape
    factor = max(1, round(height / rows))
    for side, found in ((height, rows), (width, columns)):
        if found not in (side // factor, ceil(side / factor)):
            raise UserError(
                f"{name}: {columns} x {rows} pixels, and the image has {width} x {height}: expected the same size, or "
                "both sides divided by one whole number"
            )
    return np.asarray(values > 0)


def wanted_cells(
    mask: Mask, height: int, width: int, step: tuple[float, float], stride: int, window: int, size: tuple[int, int]
) -> Mask:
    """Return for every cell of a map whether the center of its window lies in the mask; parameters as above."""
    places = []
    for cells, s, side, pixels in zip(size, step, (height, width), mask.shape, strict=True):
        centers = (np.arange(cells) * stride + window / 2) * s
        places.append((centers * (pixels / side)).astype(int).clip(0, pixels - 1))
    return mask[np.ix_(*places)]


def covering(wanted: Mask, within: Rectangle, gap: int) -> list[Rectangle]:
    """Return rectangles that cover the wanted cells within another: runs of rows, cut to their columns.

    So many rows as `gap` without a wanted cell are computed all the same, because to start anew below them costs as
    much.
    """
    inside = np.zeros_like(wanted)
    area = (slice(within.top, within.bottom), slice(within.left, within.right))
    inside[area] = wanted[area]
    rows = np.flatnonzero(inside.any(axis=1))
    if not len(rows):
        return []
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > gap) + 1)
    found = []
    for run in runs:
        columns = np.flatnonzero(inside[run[0] : run[-1] + 1].any(axis=0))
        found.append(Rectangle(int(run[0]), int(columns[0]), int(run[-1]) + 1, int(columns[-1]) + 1))
    return found


def subtract(wanted: Iterable[Rectangle], done: Sequence[Rectangle]) -> list[Rectangle]:
    """Return rectangles that hold the cells of `wanted` that are in none of `done`."""
    left = list(wanted)
    for gone in done:
        left = [piece for part in left for piece in _without(part, gone)]
    return left


def _without(part: Rectangle, gone: Rectangle) -> list[Rectangle]:
    top, bottom = max(part.top, gone.top), min(part.bottom, gone.bottom)
    left, right = max(part.left, gone.left), min(part.right, gone.right)
    if top >= bottom or left >= right:
        return [part]
    pieces = [
        Rectangle(part.top, part.left, top, part.right),
        Rectangle(top, part.left, bottom, left),
        Rectangle(top, right, bottom, part.right),
        Rectangle(bottom, part.left, part.bottom, part.right),
    ]
    return [piece for piece in pieces if piece.bottom > piece.top and piece.right > piece.left]
