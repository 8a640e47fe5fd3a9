"""Linear classifiers: what is fit, what C is chosen by, what calibration does."""

import warnings

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from verydeep.basics.errors import UserError
from verydeep.evaluation.metrics import mean_class_recall
from verydeep.transfer import linear as module
from verydeep.transfer.linear import Linear, Problem, calibration, choose, fit, log_likelihood


def blobs(rng, counts, spread=1.0, width=6):
    labels = np.repeat(np.arange(len(counts)), counts)
    centers = 2 * np.eye(len(counts), width)
    rows = (centers[labels] + spread * rng.normal(size=(len(labels), width))).astype(np.float32)
    return rows, np.where(labels[:, None] == np.arange(len(counts)), 1, -1).astype(np.int8)


def test_the_svm_is_liblinears_one_against_the_rest(rng):
    rows, targets = blobs(rng, [30, 30, 30])
    found = fit(rows, targets, 1.0, Problem("svm"))
    # The same objective, minimized by liblinear's other (primal) solver to a tighter tolerance.
    model = LinearSVC(C=1.0, dual=False, tol=1e-8, max_iter=10_000).fit(rows, targets.argmax(axis=1))
    np.testing.assert_allclose(found.scores(rows), model.decision_function(rows), atol=0.02)


@pytest.mark.parametrize("C", module.GRID)
@pytest.mark.parametrize("width", [20, 400])
def test_the_svm_is_solved_whatever_c(rng, C, width):
    """Its gradient is all but gone, for more images than numbers and for fewer, that are as alike as descriptors."""
    rows = rng.uniform(1, 2, (200, width)) * np.linspace(0, 1, width) ** 2
    rows = np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    sides = np.where(np.arange(200) % 4 == 0, 1, -1).astype(np.int8)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fit(rows, sides[:, None], C, Problem("svm", multi_label=True))

    inputs = np.hstack([rows, np.ones((200, 1))])  # the bias counts in the norm, as liblinear has it
    found = np.append(fitted.weights[0], fitted.biases[0])
    gradients = [w - 2 * C * inputs.T @ (sides * np.maximum(0, 1 - sides * (inputs @ w))) for w in (found, 0 * found)]
    assert np.linalg.norm(gradients[0]) < 0.01 * np.linalg.norm(gradients[1])


@pytest.mark.parametrize("counts", [[30, 30, 30], [40, 20]])
def test_one_class_an_image_is_the_same_problem_as_several(rng, counts):
    rows, targets = blobs(rng, counts)
    alone, together = (fit(rows, targets, 1.0, Problem("svm", several, balanced=False)) for several in (False, True))
    np.testing.assert_allclose(alone.scores(rows), together.scores(rows), atol=0.02)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_gives_its_own_posteriors(rng, classes):
    rows, targets = blobs(rng, [25] * classes)
    found = fit(rows, targets, 1.0, Problem("logistic"))
    model = LogisticRegression(C=1.0, max_iter=1000).fit(rows, targets.argmax(axis=1))
    np.testing.assert_allclose(found.posteriors(rows), model.predict_proba(rows), atol=1e-3)


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_images_that_do_not_count_change_nothing(rng, kind):
    rows, targets = blobs(rng, [20, 20, 20])
    more = np.concatenate([rows, 50 * rng.normal(size=(30, 6)).astype(np.float32)])
    found = fit(more, np.concatenate([targets, np.zeros((30, 3), np.int8)]), 1.0, Problem(kind, True))
    np.testing.assert_allclose(found.weights, fit(rows, targets, 1.0, Problem(kind, True)).weights, atol=2e-3)


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_balanced_classes_count_the_same_whatever_their_size(rng, kind):
    rows, targets = blobs(rng, [200, 12], spread=1.8)
    fresh, truth = blobs(rng, [500, 500], spread=1.8)
    weighted, plain = Problem(kind), Problem(kind, balanced=False)
    recall = {
        problem: mean_class_recall(
            truth.argmax(axis=1), fit(rows, targets, 1.0, problem).scores(fresh).argmax(axis=1), 2
        )
        for problem in (weighted, plain)
    }
    assert recall[weighted] > recall[plain]
    equal = blobs(rng, [20, 20])
    np.testing.assert_allclose(fit(*equal, 1.0, weighted).weights, fit(*equal, 1.0, plain).weights, atol=1e-6)


@pytest.mark.parametrize("likeliest", [1.0, 10.0])
def test_c_is_the_validation_parts_best_and_of_equals_the_likeliest(rng, monkeypatch, likeliest):
    merits = {0.1: 0.5, 1.0: 0.9, 10.0: 0.9}
    seen = []

    def fake_fit(rows, targets, C, problem):
        seen.append((C, len(rows)))
        return Linear(np.full((2, 1), C), np.zeros(2), False)

    monkeypatch.setattr(module, "fit", fake_fit)
    monkeypatch.setattr(module, "calibration", lambda linear, *others: (np.ones(2), np.zeros(2)))
    monkeypatch.setattr(module, "log_likelihood", lambda linear, *others: -abs(linear.weights[0, 0] - likeliest))
    rows, targets = np.ones((4, 1), np.float32), np.array([[1, -1]] * 4, np.int8)
    validation = rows[:2], targets[:2]
    found = choose((rows, targets), validation, Problem(), lambda scores, _: merits[scores[0, 0]], tuple(merits))
    assert (found.C, found.validation) == (likeliest, merits)
    assert seen == [(0.1, 4), (1.0, 4), (10.0, 4), (likeliest, 6)]  # at last on both parts together


@pytest.mark.parametrize("several", [False, True])
def test_the_log_likelihood_is_that_of_the_posteriors(rng, several):
    rows, targets = blobs(rng, [30, 30, 30])
    raw = fit(rows, targets, 1.0, Problem("svm", several))
    found = raw.scaled(*calibration(raw, rows, targets))
    posteriors = found.posteriors(rows)
    if several:
        targets[rng.random(targets.shape) < 0.1] = 0
        of_truth = np.where(targets > 0, posteriors, 1 - posteriors)[targets != 0]
    else:
        of_truth = posteriors[targets > 0]
    assert log_likelihood(found, rows, targets) == pytest.approx(np.log(of_truth).mean())


def test_the_temperature_is_the_likeliest(rng):
    rows, targets = blobs(rng, [300, 300, 300], spread=1.5)
    raw = fit(rows, targets, 1.0, Problem("svm"))
    fresh, truth = blobs(rng, [300, 300, 300], spread=1.5)
    scale, offsets = calibration(raw, fresh, truth)
    found = raw.scaled(scale, offsets)
    labels, scores = truth.argmax(axis=1), raw.scores(fresh)

    def loss(factor):
        return -log_softmax(factor * scores, axis=1)[np.arange(len(labels)), labels].mean()

    grid = np.exp(np.linspace(-3, 3, 2001))
    best = grid[np.argmin([loss(factor) for factor in grid])]
    assert scale[0] == pytest.approx(best, rel=0.01)
    assert loss(scale[0]) < loss(1.0)
    assert np.ptp(scale) == 0
    assert not offsets.any()
    np.testing.assert_allclose(found.posteriors(fresh), softmax(scale[0] * scores, axis=1))
    assert (found.scores(fresh).argmax(axis=1) == scores.argmax(axis=1)).all()


def test_platts_sigmoids_are_honest_class_by_class(rng):
    truth = rng.random((4000, 2)) < [0.3, 0.1]
    scores = np.where(truth, 1.0, -1.0) + rng.normal(size=(4000, 2))
    # Of two normal distributions a distance of 2 apart the posterior is a sigmoid of slope 2, offset by the log odds.
    raw = Linear(np.eye(2), np.zeros(2), True)
    scale, offsets = calibration(raw, scores.astype(np.float32), np.where(truth, 1, -1).astype(np.int8))
    np.testing.assert_allclose(scale, 2, rtol=0.15)
    np.testing.assert_allclose(offsets, np.log([0.3 / 0.7, 0.1 / 0.9]), atol=0.3)
    scale, _ = calibration(raw, scores.astype(np.float32), -np.ones((4000, 2), np.int8))
    assert scale.tolist() == [1, 1]  # no positive to learn from


def test_a_class_without_images_is_named(rng):
    rows, targets = blobs(rng, [10, 10])
    with pytest.raises(UserError, match="class number 2: 0 images"):
        fit(rows, np.hstack([targets, -np.ones((20, 1), np.int8)]), 1.0, Problem("svm", True))
