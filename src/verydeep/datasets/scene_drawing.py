"""Draws the embedded data set's pictures: a handwritten digit somewhere on a cluttered background."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from verydeep.datasets.dataset import Box

SIDES = (96, 160)  # px, least and greatest height and width; drawn independently, so few images are square
DIGIT = (0.5, 1.0)  # height of the digit as a share of the image's smaller side: 48 to 160 px
CONTRAST = (100.0, 160.0)  # least and greatest difference of lightness between digit and background, grey levels
CLUTTER = 20.0  # standard deviation of the clutter's color from what is below it, grey levels: less than a digit's
VISIBLE = 1 / 16  # coverage below this is set to 0: a pixel either visibly belongs to the digit or not at all
Canvas = NDArray[np.float32]
LIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB, ITU-R BT.601


@dataclass(frozen=True)
class Scene:
    """A picture, uint8 (H, W, 3), RGB; the same without its digit; and the box tight around the digit."""

    image: NDArray[np.uint8]
    background: NDArray[np.uint8]
    box: Box


def draw_scene(digit: NDArray[np.float32], others: NDArray[np.float32], generator: Generator) -> Scene:
    """Draw a digit, its ink from 0 to 1, 8 x 8, on clutter that has everything but a whole digit.

    `others` (N, 8, 8) are digits to take fragments from; the picture is SIDES pixels high and wide.
    """
    height, width = (int(side) for side in generator.integers(SIDES[0], SIDES[1] + 1, 2))
    canvas = _ground(height, width, generator)
    canvas = _clutter(canvas, others, generator)
    coverage, top, left = _place(digit, height, width, generator)
    rows, columns = slice(top, top + coverage.shape[0]), slice(left, left + coverage.shape[1])
    picture = canvas.copy()
    patch = picture[rows, columns]
    color = _contrasting(patch, coverage, generator)
    patch += coverage[..., None] * (color - patch)
    grain = generator.normal(0, generator.uniform(1, 6), (height, width, 1)).astype(np.float32)
    return Scene(_finish(picture + grain), _finish(canvas + grain), _bounds(coverage, top, left))


def _ground(height: int, width: int, generator: Generator) -> Canvas:
    """Return a gradient between two colors, with soft patches of light and shade."""
    coarse = generator.uniform(40, 215, (1, 1, 3)) + generator.normal(0, 22, (4, 4, 3))
    return np.asarray(cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC))


def _clutter(canvas: Canvas, others: NDArray[np.float32], generator: Generator) -> Canvas:
    """Draw patches, strokes and fragments of digits, so that neither edges nor ink alone tell the class."""
    height, width = canvas.shape[:2]
    for _ in range(generator.integers(1, 4)):
        corners = generator.uniform(-0.1, 1.1, (generator.integers(3, 6), 2)) * (width, height)
        middle = generator.uniform(0, 1, 2) * (width, height)
        color = _unlike(canvas[int(middle[1]), int(middle[0])], CLUTTER, generator).tolist()
        if generator.random() < 0.5:
            corners = middle + (corners - middle) * generator.uniform(0.1, 0.45)
            cv2.fillConvexPoly(canvas, cv2.convexHull(corners.astype(np.int32)), color, cv2.LINE_AA)
        else:
            points = (middle + (corners - middle) * generator.uniform(0.15, 0.5)).astype(np.int32)
            cv2.polylines(canvas, [points], False, color, int(generator.integers(1, 6)), cv2.LINE_AA)
    for other in others[generator.integers(0, len(others), generator.integers(0, 2))]:
        _draw_fragment(canvas, other, generator)
    return canvas


def _draw_fragment(canvas: Canvas, other: NDArray[np.float32], generator: Generator) -> None:
    """Draw a corner of a digit, a third to a half of its height and width: strokes like a digit's, but none whole."""
    height, width = canvas.shape[:2]
    side = int(min(height, width) * generator.uniform(0.15, 0.5))
    rows, columns = generator.integers(3, 5, 2)
    top, left = generator.integers(0, (8 - rows + 1, 8 - columns + 1))
    part = np.pad(other[top : top + rows, left : left + columns], 1)
    ink = _smooth(part, max(side, 6), max(side, 6))
    y, x = generator.integers(0, (height - ink.shape[0], width - ink.shape[1]))
    patch = canvas[y : y + ink.shape[0], x : x + ink.shape[1]]
    color = _unlike(patch[patch.shape[0] // 2, patch.shape[1] // 2], CLUTTER, generator)
    patch += ink[..., None] * (color - patch)


def _unlike(color: NDArray[np.float32], spread: float, generator: Generator) -> NDArray[np.float32]:
    """Return a color that differs from another by `spread` grey levels in each channel, on average."""
    return np.asarray((color + generator.normal(0, spread, 3)).clip(0, 255), np.float32)


def _place(digit: NDArray[np.float32], height: int, width: int, generator: Generator) -> tuple[Canvas, int, int]:
    """Return the digit's coverage of each pixel of a part of the picture, and that part's top left corner."""
    share = float(np.exp(generator.uniform(*np.log(DIGIT))))  # as many halvings of size between any two
    tall = min(height, width) * share
    rows, columns = round(tall), round(tall * generator.uniform(0.7, 1.0))
    ink = _smooth(np.pad(digit, 1), rows, columns)
    lean = generator.uniform(-0.2, 0.2)
    center = (columns - 1) / 2, (rows - 1) / 2
    turn = cv2.getRotationMatrix2D(center, generator.uniform(-12, 12), 0.9)
    turn[0, 1] += lean
    turn[0, 2] -= lean * center[1]
    coverage: Canvas = np.asarray(cv2.warpAffine(ink, turn, (columns, rows), flags=cv2.INTER_LINEAR), np.float32)
    coverage[coverage < VISIBLE] = 0
    top, left = (int(place) for place in generator.integers(0, (height - rows + 1, width - columns + 1)))
    return coverage, top, left


def _smooth(ink: NDArray[np.float32], rows: int, columns: int) -> Canvas:
    """Enlarge a few pixels of ink to smooth strokes with sharp edges: interpolate, then cut at a level."""
    large = np.asarray(cv2.resize(ink, (columns, rows), interpolation=cv2.INTER_CUBIC))
    sharpness = max(rows, columns) / 8  # edges about a pixel wide at any size
    return np.asarray(((large - 0.42) * sharpness + 0.5).clip(0, 1), np.float32)


def _contrasting(patch: Canvas, coverage: Canvas, generator: Generator) -> NDArray[np.float32]:
    """Return a color that stands out from what lies under the digit, lighter or darker as there is room."""
    under = (patch * coverage[..., None]).sum(axis=(0, 1)) / max(float(coverage.sum()), 1.0)
    lightness = float(under @ LIGHTNESS)
    wanted = generator.uniform(*CONTRAST)
    lighter = generator.random() < 0.5 if wanted < min(lightness, 255 - lightness) else lightness < 128
    target = lightness + wanted if lighter else lightness - wanted
    hue = generator.normal(0, 40, 3)
    color = target + hue - hue @ LIGHTNESS
    return color.clip(0, 255).astype(np.float32)


def _finish(picture: Canvas) -> NDArray[np.uint8]:
    return np.asarray((picture + 0.5).clip(0, 255), np.uint8)


def _bounds(coverage: Canvas, top: int, left: int) -> Box:
    rows, columns = (np.flatnonzero(coverage.any(axis)) for axis in (1, 0))
    return Box(float(left + columns[0]), float(top + rows[0]), float(left + columns[-1] + 1), float(top + rows[-1] + 1))
