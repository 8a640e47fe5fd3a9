"""Arithmetic of boxes, many at a time.

A box is four edges (xmin, ymin, xmax, ymax) in pixels, as in `verydeep.datasets.Box`: pixel column c covers [c, c + 1).
The challenge writes boxes by their first and last pixel and counts widths inclusively, `xmax - xmin + 1`; in edges that
is `xmax - xmin`, so that plain areas of edges are the devkit's.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verydeep.datasets.dataset import Box
from verydeep.images.crops import center
from verydeep.images.rescale import rescaled_size
from verydeep.nets.config import STRIDE

Boxes = NDArray[np.float64]
"""Of shape (..., 4)."""


def as_array(boxes: Iterable[Box]) -> Boxes:
    """Return N boxes as an array, N x 4."""
    return np.array([(b.xmin, b.ymin, b.xmax, b.ymax) for b in boxes], np.float64).reshape(-1, 4)


def areas(boxes: Boxes) -> NDArray[np.float64]:
    """Return areas, 0 for a box with an edge beyond its opposite one."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def intersection(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the area that boxes have in common, with numpy's broadcasting over all but the last axis."""
    return areas(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1))


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return intersection over union in [0, 1]; broadcast as in `intersection`, 0 for two boxes without area.

    Examples
    --------
    >>> float(iou(np.array([0.0, 0.0, 2.0, 2.0]), np.array([1.0, 0.0, 3.0, 2.0])))
    0.3333333333333333
    """
    a, b = np.broadcast_arrays(a, b)
    common = intersection(a, b)
    union = areas(a) + areas(b) - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


def mirror(boxes: Boxes, width: float) -> Boxes:
    """Return boxes as they lie in the mirror image of a picture of this width."""
    return np.stack([width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1)


def clip(boxes: Boxes, height: float, width: float) -> Boxes:
    """Return boxes cut at the edges of their picture; one wholly outside becomes a line on its edge."""
    return np.clip(boxes, 0, [width, height, width, height])


def encode(boxes: Boxes, size: float) -> Boxes:
    """Return boxes, edges in pixels of the window, as centers, width and height divided by the window's size.

    They may lie outside the window.

    Examples
    --------
    >>> encode(np.array([56.0, 0.0, 168.0, 224.0]), 224).tolist()
    [0.5, 0.5, 0.5, 1.0]
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1) / size


def decode(answers: Boxes, size: float) -> Boxes:
    """Return the edges that a network's answers stand for, the inverse of `encode`.

    A negative width or height, which a regression can give, counts as 0.
    """
    centers, sides = answers[..., :2] * size, np.maximum(answers[..., 2:], 0) * size
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=-1)


@dataclass(frozen=True)
class Frame:
    """Where a window lies in a picture.

    Attributes
    ----------
    height, width : int
        Of the original picture, in pixels.
    side : int
        S or Q: the smallest side that the picture is rescaled to.
    top, left : int
        The window's first pixel in the rescaled picture.
    """

    height: int
    width: int
    side: int
    top: int = 0
    left: int = 0

    @classmethod
    def central(cls, height: int, width: int, side: int, crop: int) -> "Frame":
        """Return the frame of the central `crop` x `crop` window."""
        return cls(height, width, side, *center(*rescaled_size(height, width, side), crop))

    @property
    def scale(self) -> Boxes:
        """Original pixels for one rescaled pixel, of x and y twice: the long side's rounding makes the two differ."""
        rows, columns = rescaled_size(self.height, self.width, self.side)
        return np.array([self.width / columns, self.height / rows] * 2)

    def to_window(self, boxes: Boxes) -> Boxes:
        """Return boxes of the original picture in pixels of the window."""
        return boxes / self.scale - [self.left, self.top] * 2

    def to_picture(self, boxes: Boxes) -> Boxes:
        """Return boxes of the window in pixels of the original picture, the inverse of `to_window`."""
        return (boxes + [self.left, self.top] * 2) * self.scale


def cells_to_picture(boxes: Boxes, frame: Frame) -> Boxes:
    """Return the boxes (h, w, ..., 4) of a map's cells, each in pixels of its own window, in original pixels.

    Cell (i, j) belongs to the window whose first pixel is (32 i, 32 j) from that of `frame`, the window of cell (0, 0).
    """
    rows, columns = boxes.shape[:2]
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    offsets = STRIDE * np.stack([j, i, j, i], axis=-1)
    return frame.to_picture(boxes + offsets.reshape(rows, columns, *[1] * (boxes.ndim - 3), 4))
