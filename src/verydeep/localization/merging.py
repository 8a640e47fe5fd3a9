"""Greedy merging of many boxes into few (Sermanet et al. 2014, OverFeat, section 4.3; paper: appendix A.2)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.localization.boxes import Boxes

Match = Literal["recommended", "literal"]

FAR = 1e15
"""Place and score of what is no longer there, beyond any in pixels; its square still is a single-precision number."""
NOTHING = 1e-3
"""Least width and height, px."""
MANY = 2000
"""Boxes from which on scores are computed in single precision: in half the time, and to a millionth."""


@dataclass(frozen=True)
class MergeRule:
    """Which boxes become one.

    UserError for another match or a threshold that is not a number.

    Parameters
    ----------
    threshold : float
        The pair with the least match score is merged as long as that score is at most this.
    match : {"recommended", "literal"}
        ``recommended``: distance of the centers divided by the mean of the two boxes' sizes (a box's size is the mean
        of its sides), plus 1 - IoU: 0 for equal boxes, in [0, 1] for concentric ones, above 1 for disjoint ones. A
        merged box is the mean of all its members.
        ``literal``: OverFeat as printed: distance of the centers in pixels plus area in common in square pixels,
        which calls boxes the more alike the less they overlap. A merged box is the mean of the two it was made of.
    held_out : float
        Share of the images under test that the threshold was chosen on, in [0, 1): figures leave them out.
    """

    threshold: float
    match: Match = "recommended"
    held_out: float = 0.0

    def __post_init__(self) -> None:
        if self.match not in get_args(Match):
            raise UserError(f"match {self.match!r}: expected {' or '.join(get_args(Match))}")
        if not self.threshold == self.threshold:
            raise UserError("threshold nan: expected a number")


def merge(boxes: Boxes, rule: MergeRule) -> tuple[Boxes, NDArray[np.int64]]:
    """Merge the two most alike of all boxes, again and again, until none are alike enough.

    Exactly greedy: at every step the least score over all pairs counts. Returned are the merged boxes, in the order of
    each one's first member, and which of them each box went into.

    Examples
    --------
    >>> merge(np.array([[0, 0, 10, 10], [50, 50, 60, 60], [2, 0, 12, 10.0]]), MergeRule(0.6))
    (array([[ 1.,  0., 11., 10.],
           [50., 50., 60., 60.]]), array([0, 1, 0]))
    """
    groups = _Groups(boxes, rule)
    while (pair := groups.nearest()) is not None:
        groups.join(*pair)
    return groups.result()


class _Groups:
    """The boxes that are left, each standing for its members.

    Each row knows the least of its scores to later rows, and which one has it. Where that one is gone, the score is a
    lower bound still; the row looks for its next nearest only when its bound is the least of all.
    """

    def __init__(self, boxes: Boxes, rule: MergeRule) -> None:
        count = len(boxes)
        self.literal = rule.match == "literal"
        # The recommended score is kept without its constant 1, which changes no order.
        self.threshold = rule.threshold - (0 if self.literal else 1)
        real = np.float32 if count > MANY else np.float64
        # A box without any extent gets next to none, to divide by.
        high = np.maximum(boxes[:, 2:], boxes[:, :2] + NOTHING)
        # xmax, ymax, -xmin, -ymin: so that one minimum finds all edges of what two boxes have in common.
        self.edges = np.array(np.concatenate([high, -boxes[:, :2]], axis=1).T, real, order="C")
        self.center, self.size = np.empty((2, 2, count), real)  # x and y; half the mean side, and the area
        # For intermediate results, which would take longer to allocate. Zeros in full, as numpy's minimum and maximum
        # take three times as long with one number for a whole row.
        self.work, self.zeros = np.empty((6, count), real), np.zeros((2, count), real)
        self._derive(slice(None))
        self.weight = np.ones(count)
        self.first = np.arange(count)  # number of the first member, as the boxes were given
        self.parent = np.arange(count)
        self.least, self.partner = np.full(count, FAR, real), np.zeros(count, np.int32)
        self.joins = np.zeros(count, np.int32)  # how often a row has changed
        self.seen = np.zeros(count, np.int32)  # and had its partner, when the score to it was computed
        self.left = count
        for row in range(count - 1):
            self._keep_nearest(row, self._scores(row, row + 1))

    def nearest(self) -> tuple[int, int] | None:
        """Return the two rows most alike; None where they are not alike enough."""
        while self.left > 1:
            row = int(self.least.argmin())
            if self.least[row] > self.threshold:
                return None
            partner = int(self.partner[row])
            if self.seen[row] == self.joins[partner]:
                return row, partner
            self._keep_nearest(row, self._scores(row, row + 1))
        return None

    def join(self, a: int, b: int) -> None:
        """Replace two rows, the first before the second, by their mean in the place of the first."""
        share = 0.5 if self.literal else self.weight[a] / (self.weight[a] + self.weight[b])
        self.edges[:, a] += (1 - share) * (self.edges[:, b] - self.edges[:, a])
        self._derive(a)
        self.weight[a] += self.weight[b]
        self.parent[self.first[b]] = self.first[a]
        # Gone: so far away that it is nobody's nearest.
        self.center[:, b], self.edges[:, b], self.least[b] = FAR, -FAR, FAR
        self.joins[a] += 1
        self.joins[b] += 1
        self.left -= 1
        scores = self._scores(a, 0)
        closer = np.flatnonzero(scores[:a] < self.least[:a])
        self.least[closer], self.partner[closer], self.seen[closer] = scores[closer], a, self.joins[a]
        self._keep_nearest(a, scores[a + 1 :])
        if self.left < 0.9 * len(self.least):
            self._forget()

    def result(self) -> tuple[Boxes, NDArray[np.int64]]:
        """Return what is left, and where each box went."""
        parent = self.parent
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        self._forget()
        merged = np.concatenate([0 - self.edges[2:], self.edges[:2]]).T  # 0 - x: zero keeps no sign
        return np.ascontiguousarray(merged, np.float64), np.searchsorted(self.first, parent)

    def _derive(self, rows: slice | int) -> None:
        """Compute what scores need of boxes."""
        right, bottom, left, top = self.edges[:, rows]  # the latter two negative
        width, height = right + left, bottom + top
        self.center[0, rows], self.center[1, rows] = (right - left) / 2, (bottom - top) / 2
        self.size[0, rows], self.size[1, rows] = (width + height) / 4, width * height

    def _scores(self, row: int, first: int) -> NDArray[Any]:
        """Return how alike a row is to all rows from `first` on, valid until the next call."""
        column, count = slice(row, row + 1), self.edges.shape[1] - first
        work = self.work[:, :count]
        work[:4] = self.edges[:, column]
        np.minimum(self.edges[:, first:], work[:4], out=work[:4])
        sides = np.add(work[:2], work[2:4], out=work[:2])
        np.maximum(sides, self.zeros[:, :count], out=sides)
        result: NDArray[Any] = work[4:]
        distance: NDArray[Any] = result[0]
        common = result[1]  # the area; behind the division, the IoU
        np.multiply(sides[0], sides[1], out=common)
        apart = np.subtract(self.center[:, first:], self.center[:, column], out=work[:2])
        apart *= apart
        np.add(apart[0], apart[1], out=distance)
        np.sqrt(distance, out=distance)
        if self.literal:
            distance += common
            return distance
        size = np.add(self.size[:, first:], self.size[:, column], out=work[:2])
        size[1] -= common  # the area that either covers
        result /= size
        distance -= common
        return distance

    def _keep_nearest(self, row: int, later: NDArray[Any]) -> None:
        """Enter the least of a row's scores to later ones."""
        if not len(later):
            self.least[row] = FAR
            return
        at = int(later.argmin())
        self.least[row], self.partner[row], self.seen[row] = later[at], row + 1 + at, self.joins[row + 1 + at]

    def _forget(self) -> None:
        """Drop the rows that are gone."""
        gone = self.center[0] == FAR
        rows = np.flatnonzero(~gone)
        number = np.cumsum(~gone, dtype=np.int32) - 1
        lost = gone[self.partner[rows]]
        self.partner, self.seen = number[self.partner[rows]], np.where(lost, -1, self.seen[rows])
        for name in ("edges", "center", "size", "least", "weight", "first", "joins"):
            setattr(self, name, np.ascontiguousarray(getattr(self, name)[..., rows]))
