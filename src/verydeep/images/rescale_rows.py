"""Rescaling of images too large for memory: from top to bottom, to the same pixels as `rescale` of the whole."""

from math import pi
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import fromarray

from verydeep.basics.errors import UserError
from verydeep.images.rescale import FILTERS, rescaled_size, smoothing

Pixels = NDArray[np.uint8]

MOST_FACTOR = 32.0


class Source(Protocol):
    """An image whose parts can be read; `row_bytes` is what it keeps in memory beside them, for each column."""

    name: str
    height: int
    width: int
    row_bytes: int

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Return the pixels of a part, uint8, height x width x 3, RGB."""
        ...


def rescaled(source: Source, factor: float, interpolation: str) -> Source:
    """Return `source` rescaled by `factor`: to the same pixels as `rescale` gives for the whole image.

    It is read from top to bottom. The smallest side is rounded to whole pixels, halves up, and the other follows.
    """
    if factor == 1:
        return source
    side = int(min(source.height, source.width) * factor + 0.5) if factor > 0 else 0
    if factor > MOST_FACTOR:
        raise UserError(f"scale {factor:g}: at most {MOST_FACTOR:g} is expected; larger ones only blur the picture")
    if side < 1:
        raise UserError(f"scale {factor}: nothing is left of {source.height} x {source.width} pixels")
    return _Rescaled(source, side, interpolation)


class _Rescaled:
    """A source rescaled row by row; the columns are rescaled in full width, because their phase begins at the left."""

    def __init__(self, source: Source, side: int, interpolation: str) -> None:
        self.source, self.name = source, source.name
        self.height, self.width = rescaled_size(source.height, source.width, side)
        self.step = (source.height / self.height, source.width / self.width)
        self._linear = interpolation == "bilinear" and min(self.step) < 2
        self._same = (self.height, self.width) == (source.height, source.width)
        self._taps = None if self._linear or self._same else _Taps(interpolation, source.height, self.height)
        self._rows: Pixels = np.empty((0, 0, 3), np.uint8)  # prepared rows of the source, from `_first` on
        self._first = 0
        reach = 4 if self._taps is None else int(2 * self._taps.support) + 2
        self.row_bytes = source.row_bytes + 3 * 64 * max(1, round(self.step[0])) + 2 * 3 * reach

    def read(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Return the rescaled pixels of a part, uint8, height x width x 3."""
        if self._same:
            return self.source.read(top, left, height, width)
        rows = self._linear_rows(top, height) if self._taps is None else self._filtered_rows(self._taps, top, height)
        return np.ascontiguousarray(rows[:, left : left + width])

    def _linear_rows(self, top: int, height: int) -> Pixels:
        """Do as `linear_crop`, each row by itself.

        OpenCV interpolates from the image's first row on, so a band by itself would have another phase. It has the
        right one where every row is made of the two rows that it lies between, with a step that puts it there.
        """
        places = [_linear_place(y, self.step[0]) for y in range(top, top + height)]
        first, last = max(places[0][0], 0), min(places[-1][0] + 1, self.source.height - 1)
        raw = self._prepared(max(first - 1, 0), min(last + 2, self.source.height))
        smooth = raw
        if max(self.step) > 1:
            down, across = (smoothing(step) for step in self.step)
            smooth = np.asarray(cv2.sepFilter2D(raw, -1, across, down, borderType=cv2.BORDER_REPLICATE), np.uint8)
        out = np.empty((height, self.width, 3), np.uint8)
        for i, (row, share) in enumerate(places):
            above, below = (min(max(y, 0), self.source.height - 1) - max(first - 1, 0) for y in (row, row + 1))
            three = smooth[[above, above, below]]
            # The first output lies at (3 + 2 share) / 2 - 1/2 = 1 + share.
            scaled = cv2.resize(
                three, None, fx=1 / self.step[1], fy=1 / (3 + 2 * share), interpolation=cv2.INTER_LINEAR
            )
            out[i] = scaled[0]
        return out

    def _filtered_rows(self, taps: "_Taps", top: int, height: int) -> Pixels:
        """Do as Pillow: the columns first, rounded to bytes, then the rows."""
        first, last = taps.of(top)[0], sum(map(len, taps.of(top + height - 1)[1:])) + taps.of(top + height - 1)[0]
        across = self._prepared(first, last)
        out = np.empty((height, self.width, 3), np.uint8)
        for i in range(height):
            start, weights = taps.of(top + i)
            rows = across[start - first : start - first + len(weights)].reshape(len(weights), -1)
            total = weights @ rows.astype(np.int32) + (1 << (_PRECISION - 1))
            out[i] = (total >> _PRECISION).clip(0, 255).reshape(self.width, 3)
        return out

    def _prepared(self, top: int, bottom: int) -> Pixels:
        """Return rows of the source, with Pillow's filter already rescaled across, reading none twice."""
        known = self._first + len(self._rows)
        if not self._first <= top <= known:
            self._rows, self._first = self._rows[:0], top
            known = top
        if bottom > known:
            new = self.source.read(known, 0, bottom - known, self.source.width)
            if self._taps is not None and self.width != self.source.width:
                new = np.asarray(fromarray(new).resize((self.width, len(new)), FILTERS[self._taps.interpolation]))
            kept = self._rows[top - self._first :]
            self._rows, self._first = (np.concatenate([kept, new]) if len(kept) else new), top
        return self._rows[top - self._first : bottom - self._first]


def _linear_place(y: int, step: float) -> tuple[int, float]:
    """Return the source row above output row `y`, and the share of the row below it, as OpenCV computes them."""
    place = np.float32((y + 0.5) * (1 / (1 / step)) - 0.5)
    row = int(np.floor(place))
    return row, float(place - np.float32(row))


_PRECISION = 32 - 8 - 2  # bits of Pillow's weights behind the point


class _Taps:
    """Pillow's weights of source rows: whole numbers, normalized and rounded as its C code does.

    Parameters
    ----------
    interpolation : str
        One of Pillow's filters.
    before, after : int
        Rows of source and result.
    """

    def __init__(self, interpolation: str, before: int, after: int) -> None:
        self.interpolation = interpolation
        self.before, self.scale = before, before / after
        self.widening = max(self.scale, 1.0)
        self.support = {"bilinear": 1.0, "box": 0.5, "bicubic": 2.0, "lanczos": 3.0}[interpolation] * self.widening

    def of(self, y: int) -> tuple[int, NDArray[np.int32]]:
        """Return the first source row of output row `y` and the weights from it on."""
        center = (y + 0.5) * self.scale
        first = max(int(center - self.support + 0.5), 0)
        last = min(int(center + self.support + 0.5), self.before)
        weights = self._filter((np.arange(first, last, dtype=np.float64) - center + 0.5) * (1.0 / self.widening))
        total = 0.0
        for weight in weights.tolist():  # in Pillow's order
            total += weight
        if total:
            weights = weights / total if total == 1 else weights * (1.0 / total)
        scaled = weights * (1 << _PRECISION)
        return first, np.where(scaled < 0, scaled - 0.5, scaled + 0.5).astype(np.int32)

    def _filter(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.interpolation == "box":
            return ((x > -0.5) & (x <= 0.5)).astype(np.float64)
        if self.interpolation == "lanczos":
            return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0.0)
        x = np.abs(x)
        if self.interpolation == "bilinear":
            return np.maximum(1 - x, 0)
        a = -0.5
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = x * pi
    return np.where(x == 0, 1.0, np.sin(x) / np.where(x == 0, 1.0, x))
