"""Merged, then rated: boxes and scores by hand; several scales and networks in one merge."""

from dataclasses import replace

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.localization.boxes import clip
from verydeep.localization.merging import MergeRule, merge
from verydeep.localization.scoring import best_box, merge_detections


def test_ratings_are_sums_over_the_members():
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [2, 0, 12, 10]])
    # Together the two at the left outweigh the one that scores highest alone.
    box, rating = best_box(boxes, np.array([0.3, 0.5, 0.3]), MergeRule(0.6))
    np.testing.assert_allclose(box, [1, 0, 11, 10])
    assert rating == pytest.approx(0.6)
    box, rating = best_box(boxes, np.array([0.3, 0.7, 0.3]), MergeRule(0.6))
    np.testing.assert_allclose(box, [50, 50, 60, 60])
    assert rating == pytest.approx(0.7)


def _expected(parts, i, k, rule):
    windows = np.concatenate([part.windows[i][:, k] for part in parts]).astype(np.float64)
    scores = np.concatenate([part.scores[i][:, k] for part in parts])
    merged, members = merge(windows, rule)
    ratings = [scores[members == m].astype(np.float64).sum() for m in range(len(merged))]
    return clip(merged[int(np.argmax(ratings))], *parts[0].sizes[i]), max(ratings)


def test_several_scales_are_put_together_before_one_merge(make_detections, rng):
    seed = int(rng.integers(2**31))
    one, two = make_detections(seed=seed), make_detections(seed=seed, protocol="dense@128")
    two = replace(two, windows=[rows + 3 for rows in two.windows])
    rule = MergeRule(0.8)
    found = merge_detections([one, two], rule)
    for i in range(len(one)):
        assert len(found.windows[i]) == 12
        for k in range(6):
            box, rating = _expected([one, two], i, k, rule)
            np.testing.assert_allclose(found.boxes[i, k], box, rtol=1e-12)
            assert found.ratings[i, k] == pytest.approx(rating)
    assert [member["protocol"] for member in found.metadata["fused"]] == ["dense@96", "dense@128"]
    assert found.metadata["merging"] == {"threshold": 0.8, "match": "recommended", "held_out": 0.0}
    assert "fused" not in merge_detections([one], rule).metadata


def test_boxes_are_cut_at_the_images_edges(make_detections):
    detections = make_detections()
    found = merge_detections([replace(detections, windows=[rows + 30 for rows in detections.windows])], MergeRule(0.5))
    assert found.boxes[..., 2].max() <= 80
    assert found.boxes[..., 3].max() <= 100


def test_parts_that_do_not_belong_together_are_named(make_detections):
    detections = make_detections(seed=1)
    other = replace(detections, ids=tuple(f"x{name}" for name in detections.ids))
    with pytest.raises(UserError, match=r"b\.parquet and a\.parquet are of other images or classes"):
        merge_detections([detections, other], MergeRule(0.5), ["a.parquet", "b.parquet"])
    with pytest.raises(UserError, match="guess other classes; give both evaluations the same --posteriors"):
        merge_detections([detections, replace(detections, classes=detections.classes[:, ::-1])], MergeRule(0.5))
