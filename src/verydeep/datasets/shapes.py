"""Areas drawn by hand, as annotation tools keep them: polygons, and runs of pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Shape:
    """An area of one class; `mask` makes it, H x W, for a picture of that height and width."""

    label: str
    mask: Callable[[int, int], Mask]


def polygon(points: Points, height: int, width: int) -> Mask:
    """Return the pixels whose centers lie in a polygon, H x W; the first pixel's center is at (0.5, 0.5).

    What is inside is so by the number of lines to its left: odd. Points may lie beyond the picture.
    """
    turns = np.zeros((height, width + 1), bool)
    xy = np.asarray(points, np.float64)
    for (x0, y0), (x1, y1) in zip(xy, np.roll(xy, -1, axis=0), strict=True):
        low, high = sorted((y0, y1))
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (low, high))
        rows = np.arange(first, last)  # whose centers it passes
        if rows.size:
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            turns[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)] ^= True
    return np.asarray(np.logical_xor.accumulate(turns, axis=1)[:, :width])


def ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float, count: int = 256) -> Points:
    """Return a polygon of `count` points in place of an ellipse, turned clockwise."""
    t = np.arange(count) * (2 * np.pi / count)
    x, y, turn = radii[0] * np.cos(t), radii[1] * np.sin(t), np.radians(degrees)
    turned = center[0] + x * np.cos(turn) - y * np.sin(turn), center[1] + x * np.sin(turn) + y * np.cos(turn)
    return list(zip(*(axis.tolist() for axis in turned), strict=True))


def runs(counts: Sequence[int], height: int, width: int) -> Mask:
    """Return H x W, line by line, of which as many pixels in turn are outside and inside; ValueError for other sums."""
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"its runs are of {sum(counts)} pixels, expected {height * width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(height, width)


def coco_counts(text: str) -> list[int]:
    """Return the runs in COCO's compressed form: 5 bits a character, from the third on less the one before last.

    ValueError where it is none.
    """
    counts, value, shift = list[int](), 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is none of its characters")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits >> 4 & 1) << shift  # negative ones
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
