"""Class recall, average precision and calibration against their definitions, written down once more."""

import numpy as np
import pytest

from verydeep.evaluation.metrics import (
    calibration_curve,
    class_recall,
    confidences,
    expected_calibration_error,
    mean_class_recall,
)
from verydeep.inference.average_precision import average_precision


def slow_average_precision(targets, scores, eleven_point):
    """VOC's definition: of every cut-off its recall and precision; then the best precision at a recall or beyond."""
    pairs = []
    counted = [(score, -i, target) for i, (score, target) in enumerate(zip(scores, targets, strict=True)) if target]
    total = sum(target > 0 for _, _, target in counted)
    ranked = sorted(counted, reverse=True)
    for n in range(1, len(ranked) + 1):
        hits = sum(target > 0 for _, _, target in ranked[:n])
        pairs.append((hits, hits / n))
    if eleven_point:
        return np.mean([max((p for hits, p in pairs if 10 * hits >= t * total), default=0) for t in range(11)])
    return np.mean([max(p for hits, p in pairs if hits >= count) for count in range(1, total + 1)])


@pytest.mark.parametrize("eleven_point", [True, False])
def test_average_precision_is_vocs(rng, eleven_point):
    for _ in range(50):
        n = int(rng.integers(2, 60))
        targets = rng.integers(-1, 2, n).astype(np.int8)
        targets[rng.integers(n)] = 1
        scores = rng.integers(0, 8, n).astype(float)  # with ties
        wanted = slow_average_precision(targets.tolist(), scores.tolist(), eleven_point)
        assert average_precision(targets, scores, eleven_point) == pytest.approx(wanted, abs=1e-12)


def test_a_perfect_ranking_a_hopeless_one_and_none():
    targets = np.array([1, 1, -1, -1], np.int8)
    scores = np.array([4.0, 3, 2, 1])
    for eleven in (True, False):
        assert average_precision(targets, scores, eleven) == 1
        assert average_precision(targets[[2, 3, 0, 1]], scores, eleven) == pytest.approx(0.5)
        assert np.isnan(average_precision(-np.ones(3, np.int8), scores[:3], eleven))
    with_difficult = np.array([0, 1, 1, -1, -1], np.int8)
    assert average_precision(with_difficult, np.array([9.0, 4, 3, 2, 1]), False) == 1


def test_recall_is_the_mean_over_classes_not_images():
    labels, predicted = np.array([0] * 8 + [1, 1]), np.array([0] * 8 + [0, 1])
    assert class_recall(labels, predicted, 3)[:2].tolist() == [1, 0.5]
    assert np.isnan(class_recall(labels, predicted, 3)[2])
    assert mean_class_recall(labels, predicted, 3) == 0.75  # the accuracy is 0.9


def test_calibration_error_of_known_posteriors():
    labels = np.array([0] * 7 + [1] * 3)
    honest = np.tile([0.7, 0.3], (10, 1))
    assert expected_calibration_error(*confidences(labels, honest)) == pytest.approx(0)
    assert expected_calibration_error(*confidences(labels, np.tile([0.95, 0.05], (10, 1)))) == pytest.approx(0.25)
    assert calibration_curve(*confidences(labels, honest)) == [(10, pytest.approx(0.7), 0.7)]
    posteriors, right = np.array([0.0, 0.04, 0.5, 1.0]), np.array([False, True, True, True])
    assert calibration_curve(posteriors, right) == [(2, 0.02, 0.5), (1, 0.5, 1.0), (1, 1.0, 1.0)]
    assert expected_calibration_error(posteriors, right) == pytest.approx((2 * 0.48 + 0.5) / 4)
