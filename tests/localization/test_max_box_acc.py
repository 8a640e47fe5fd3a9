"""MaxBoxAcc against loops over pixels, components by flooding, as Choe et al. (2020) write it."""

import numpy as np
import pytest

from verydeep.localization.max_box_acc import THRESHOLDS, best_overlaps, box_accuracy, component_boxes


def _components(mask):
    """Sets of pixels that touch, corners included."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        yield part


def _overlap(pixels, box):
    """IoU of the box around pixels with one of whole edges, by counting pixels."""
    ys, xs = zip(*pixels, strict=True)
    mine = {(y, x) for y in range(min(ys), max(ys) + 1) for x in range(min(xs), max(xs) + 1)}
    theirs = {(y, x) for y in range(box[1], box[3]) for x in range(box[0], box[2])}
    return len(mine & theirs) / len(mine | theirs)


@pytest.fixture
def cases(rng):
    """Maps with some bumps, and one or two boxes each; one map is flat."""
    found = []
    for number in range(6):
        height, width = rng.integers(9, 15, 2)
        scores = rng.random((height, width)) ** 2 * rng.uniform(1, 50) - 3
        if number == 0:
            scores[:] = 2
        top, left = rng.integers(0, 4, 2)
        boxes = [(left, top, left + int(rng.integers(3, 6)), top + int(rng.integers(3, 6)))]
        if number % 2:
            boxes.append((0, 0, int(width), int(height)))
        found.append((scores.astype(np.float32), [tuple(map(int, box)) for box in boxes]))
    return found


def test_it_is_the_definition(cases):
    largest, every = [], []
    for scores, boxes in cases:
        low, high = scores.min(), scores.max()
        unit = (scores - low) / (high - low) if high > low else 0 * scores
        rows = []
        for threshold in THRESHOLDS:
            parts = sorted(_components(unit >= threshold), key=len, reverse=True)
            best = [max(_overlap(part, box) for box in boxes) for part in parts]
            ties = [value for part, value in zip(parts, best, strict=True) if len(part) == len(parts[0])]
            rows.append((ties, max(best, default=0)))
        found = best_overlaps(scores, np.array(boxes, float))
        for (one, two), (ties, best) in zip(found, rows, strict=True):
            assert one == pytest.approx(min(ties or [0], key=lambda value: abs(value - one)))
            assert two == pytest.approx(best)
        largest.append(found[:, 0])
        every.append([best for _, best in rows])
    said = box_accuracy([best_overlaps(scores, np.array(boxes, float)) for scores, boxes in cases])
    curve = [sum(row[t] >= 0.5 for row in largest) / len(cases) for t in range(len(THRESHOLDS))]
    assert said.images == len(cases)
    assert said.max_box_acc.rate == pytest.approx(max(curve))
    assert said.threshold == THRESHOLDS[curve.index(max(curve))]
    parts = [
        max(sum(row[t] >= least for row in every) / len(cases) for t in range(len(THRESHOLDS)))
        for least in (0.3, 0.5, 0.7)
    ]
    assert said.v2_parts == pytest.approx(tuple(parts))
    assert said.v2 == pytest.approx(sum(parts) / 3)


def test_a_map_that_is_the_box():
    scores = np.zeros((20, 30), np.float32)
    scores[4:11, 7:25] = 3
    scores[15:17, 0:2] = 3
    np.testing.assert_array_equal(component_boxes(scores / 3, 0.5), [[7, 4, 25, 11], [0, 15, 2, 17]])
    said = box_accuracy([best_overlaps(scores, np.array([[7.0, 4, 25, 11]]))])
    assert (said.max_box_acc.rate, said.threshold, said.v2) == (1, 0.01, 1)
