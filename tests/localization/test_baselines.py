"""The boxes that cost nothing."""

import numpy as np
import pytest

from verydeep.localization.baselines import WHOLE, best_constant_box, with_constant_box
from verydeep.localization.boxes import iou


def test_the_constant_box_hits_as_many_as_any_of_a_grid(rng):
    centers, sides = rng.uniform(0.3, 0.7, (300, 2)), rng.uniform(0.2, 0.9, (300, 2))
    every = np.clip(np.concatenate([centers - sides / 2, centers + sides / 2], axis=1), 0, 1)
    found = best_constant_box([box[None] for box in every])
    hits = (iou(every, found) >= 0.5).mean()
    edges = np.linspace(0, 1, 11)
    grid = [(a, b, c, d) for a in edges for b in edges for c in edges[edges > a] for d in edges[edges > b]]
    best = max((iou(every, np.array(box)) >= 0.5).mean() for box in grid)
    assert hits >= best - 0.02
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_equal_boxes_are_found_and_any_instance_will_do():
    box = np.array([[0.1, 0.2, 0.6, 0.9]])
    np.testing.assert_allclose(best_constant_box([box] * 9), box[0], atol=0.02)
    other = np.array([[0.7, 0.0, 1.0, 0.1]])
    np.testing.assert_allclose(best_constant_box([np.concatenate([other, box])] * 9 + [box]), box[0], atol=0.06)


def test_every_guess_gets_the_box_in_its_own_pixels(make_detections):
    detections = with_constant_box(make_detections(5), [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(detections.boxes, np.broadcast_to([20, 50, 60, 100], (5, 6, 4)))
    whole = with_constant_box(detections, WHOLE)
    assert whole.boxes[0, 0].tolist() == pytest.approx([0, 0, 80, 100])
