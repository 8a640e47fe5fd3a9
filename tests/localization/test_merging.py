"""Greedy merging against the algorithm as it is written, pair by pair in float64."""

import math

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.localization import merging
from verydeep.localization.merging import MergeRule, merge


def _score(a, b, match):
    """The score of two boxes, from the specification."""
    distance = math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    if match == "literal":
        return distance + common
    sizes = [(box[2] - box[0] + box[3] - box[1]) / 2 for box in (a, b)]
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common
    return distance / (sum(sizes) / 2) + 1 - common / union


def _plainly(boxes, threshold, match):
    """OverFeat's loop: the best of all pairs, again and again; members by number."""
    groups = [(box.copy(), [i]) for i, box in enumerate(boxes)]
    while len(groups) > 1:
        best = min((_score(groups[i][0], groups[j][0], match), i, j) for j in range(len(groups)) for i in range(j))
        if best[0] > threshold:
            break
        _, i, j = best
        (a, some), (b, others) = groups[i], groups[j]
        mean = (a + b) / 2 if match == "literal" else (len(some) * a + len(others) * b) / (len(some) + len(others))
        groups[i] = (mean, some + others)
        del groups[j]
    groups.sort(key=lambda group: min(group[1]))
    return groups


def _random(rng, count):
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + rng.uniform(3, 60, (count, 2))], axis=1)


@pytest.mark.parametrize("match", ["recommended", "literal"])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_merging_is_the_written_algorithm(match, count, rng):
    boxes = _random(rng, count)
    scores = sorted(_score(a, b, match) for i, a in enumerate(boxes) for b in boxes[:i])
    for share in (0.0, 0.02, 0.3, 1.0):
        # Between two scores, so that rounding decides nothing.
        at = int(share * (len(scores) - 1))
        threshold = -1.0 if not scores or share == 0 else sum(scores[max(at - 1, 0) : at + 1]) / 2 + 1e-7
        merged, members = merge(boxes, MergeRule(threshold, match))
        expected = _plainly(boxes, threshold, match)
        assert len(merged) == len(expected)
        np.testing.assert_allclose(merged, [box for box, _ in expected], rtol=1e-12)
        for number, (_, group) in enumerate(expected):
            assert sorted(np.flatnonzero(members == number)) == sorted(group)


@pytest.mark.parametrize("match", ["recommended", "literal"])
def test_many_boxes_in_single_precision_go_the_same_ways(match, rng, monkeypatch):
    boxes = np.concatenate([_random(rng, 40) + 200 * i for i in range(3)])
    rule = MergeRule(0.6 if match == "recommended" else 60.0, match)
    exact, members = merge(boxes, rule)
    monkeypatch.setattr(merging, "MANY", 10)
    found, same = merge(boxes, rule)
    np.testing.assert_array_equal(members, same)
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_equal_boxes_become_one_and_a_negative_threshold_keeps_all(rng):
    boxes = np.tile(_random(rng, 1), (300, 1))
    merged, members = merge(boxes, MergeRule(0.0))
    np.testing.assert_allclose(merged, boxes[:1])
    assert not members.any()
    boxes = _random(rng, 50)
    merged, members = merge(boxes, MergeRule(-1.0))
    np.testing.assert_array_equal(merged, boxes)
    np.testing.assert_array_equal(members, np.arange(50))


def test_a_merged_box_is_the_mean_of_all_its_members_but_not_literally():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [3, 0, 13, 10]])
    mean, _ = merge(boxes, MergeRule(2.0))
    np.testing.assert_allclose(mean, [[1, 0, 11, 10]])
    # Literally the least overlap is merged first; then the mean of two counts as one.
    halves, _ = merge(boxes, MergeRule(1e9, "literal"))
    np.testing.assert_allclose(halves, [[0.75, 0, 10.75, 10]])


def test_boxes_without_extent_are_merged_like_others():
    boxes = np.array([[5.0, 5, 5, 5], [5, 5, 5, 5], [50, 50, 50, 60], [-9, 3, -20, 3]])
    merged, members = merge(boxes, MergeRule(0.1))
    assert members.tolist() == [0, 0, 1, 2]
    assert np.isfinite(merged).all()


def test_far_away_boxes_stay_apart():
    boxes = np.array([[0.0, 0, 1e6, 1e6], [1e9, 1e9, 1e9 + 5, 1e9 + 5]])
    assert len(merge(boxes, MergeRule(1.0))[0]) == 2


@pytest.mark.parametrize(("threshold", "match", "said"), [(math.nan, "recommended", "nan"), (1.0, "best", "'best'")])
def test_wrong_rules_are_refused(threshold, match, said):
    with pytest.raises(UserError, match=said):
        MergeRule(threshold, match)
