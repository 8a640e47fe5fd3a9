"""The challenge's error against its devkit's loops, written out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.localization.detections import held_out
from verydeep.localization.metrics import localization_metrics, mean_with_interval, overlaps, wrong


def _devkit(detections, k):
    """eval_localization_flat.m: an image's error is the least over its guesses of max(class wrong, box wrong)."""
    errors = []
    for i in range(len(detections)):
        least = 1.0
        for j in range(min(k, detections.classes.shape[1] - 1)):
            class_wrong = float(detections.classes[i, j] != detections.labels[i])
            best = 0.0
            for truth in detections.truths[i]:
                bb, gt = detections.boxes[i, j] - [0, 0, 1, 1], truth - [0, 0, 1, 1]  # last pixels instead of edges
                iw, ih = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1, min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
                if iw > 0 and ih > 0:
                    both = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1) + (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1)
                    best = max(best, iw * ih / (both - iw * ih))
            least = min(least, max(class_wrong, float(best < 0.5)))
        errors.append(least)
    return errors


def _near_the_truth(detections, rng):
    """Guesses of which about half are right, some of them exactly on the limit."""
    boxes = detections.boxes.copy()
    for i, truth in enumerate(detections.truths):
        for j in range(boxes.shape[1]):
            target = truth[rng.integers(len(truth))]
            boxes[i, j] = target + rng.integers(-12, 13, 4)
            if rng.random() < 0.2:  # half of the true box: an IoU of exactly 0.5, which is a hit
                boxes[i, j] = [target[0], target[1], (target[0] + target[2]) / 2, target[3]]
    return replace(detections, boxes=boxes)


@pytest.mark.parametrize("k", [1, 5])
def test_errors_are_the_devkits(k, make_detections, rng):
    detections = _near_the_truth(make_detections(400), rng)
    expected = _devkit(detections, k)
    assert 0 < np.mean(expected) < 1
    np.testing.assert_array_equal(wrong(detections, k), np.array(expected, bool))
    found = localization_metrics(detections)
    assert (found.top1 if k == 1 else found.top5).rate == pytest.approx(np.mean(expected))


def test_given_the_class_only_the_last_box_counts(make_detections, rng):
    detections = _near_the_truth(make_detections(300), rng)
    alone = replace(
        detections, classes=np.repeat(detections.labels[:, None], 2, 1), boxes=detections.boxes[:, [-1, -1]]
    )
    assert localization_metrics(detections).given_class.rate == pytest.approx(np.mean(_devkit(alone, 1)))
    assert localization_metrics(detections).mean_iou.rate == pytest.approx(overlaps(detections)[:, -1].mean())


def test_images_without_label_or_box_do_not_count(make_detections):
    detections = make_detections(10)
    labels = detections.labels.copy()
    labels[:3] = -1
    truths = [np.zeros((0, 4)) if i in (3, 4) else truth for i, truth in enumerate(detections.truths)]
    fewer = replace(detections, labels=labels, truths=truths)
    assert localization_metrics(fewer).images == 5
    assert localization_metrics(fewer).mean_iou == localization_metrics(detections.rows(range(5, 10))).mean_iou
    with pytest.raises(UserError, match="no image has a label and a true box"):
        localization_metrics(fewer.rows([0, 3]))


def test_images_that_a_threshold_was_chosen_on_are_left_out(make_detections):
    detections = make_detections(20, merging={"threshold": 0.5, "match": "recommended", "held_out": 0.25})
    rest = [i for i in range(20) if i not in held_out(detections.ids, 0.25)]
    assert localization_metrics(detections).images == 15
    assert localization_metrics(detections).mean_iou.rate == pytest.approx(overlaps(detections)[rest, -1].mean())


def test_intervals_are_where_the_central_limit_theorem_has_them(rng):
    values = rng.uniform(0, 1, 2000)
    found = mean_with_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.rate == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=half / 4)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 4)
