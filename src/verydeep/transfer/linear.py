"""Linear classifiers on descriptors: fit, C chosen on a validation part, posteriors calibrated on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from verydeep.basics.errors import UserError
from verydeep.evaluation.metrics import Values
from verydeep.inference.combine import Rows
from verydeep.transfer.protocols import Targets

Kind = Literal["svm", "logistic"]

GRID = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Values of C that are tried; the paper does not name its own."""
TOLERANCE = 1e-4
"""Of liblinear's solvers; its own command stops at 0.1. At 1e-3 a test picture now and then went to another class."""
ITERATIONS = 1000
"""At most; the library warns where they did not suffice."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores linear in the descriptor; posteriors are one sigmoid a class if `multi_label`, else a soft-max."""

    weights: Values  # (K, D)
    biases: Values  # (K,)
    multi_label: bool

    def scores(self, rows: Rows) -> Values:
        """Return the scores of descriptors, N x K, before soft-max or sigmoid."""
        return np.asarray(rows.astype(np.float64) @ self.weights.T + self.biases)

    def posteriors(self, rows: Rows) -> Values:
        """Return the posteriors, N x K."""
        scores = self.scores(rows)
        return np.asarray(expit(scores) if self.multi_label else softmax(scores, axis=1))

    def scaled(self, scale: Values, offsets: Values) -> "Linear":
        """Return the classifier whose scores are `scale * scores + offsets`, both of shape (K,)."""
        return Linear(scale[:, None] * self.weights, scale * self.biases + offsets, self.multi_label)

    def in_float32(self) -> "Linear":
        """Return the classifier of such numbers as float32 holds: the one that is measured is the one in the file."""
        exact = [values.astype(np.float32).astype(np.float64) for values in (self.weights, self.biases)]
        return Linear(exact[0], exact[1], self.multi_label)


@dataclass(frozen=True)
class Problem:
    """What a linear classifier is to do.

    Attributes
    ----------
    kind : {"svm", "logistic"}
        liblinear's SVM with squared hinge loss, one class against the rest, or logistic regression: over all classes
        at once unless images have several.
    multi_label : bool
        Whether an image may have several classes.
    balanced : bool
        Whether an image counts in inverse proportion to its class's number of images, so that all classes count the
        same. It changes nothing where they have equal numbers, as in the Caltech protocols; it is not done where
        images have several classes.
    """

    kind: Kind = "svm"
    multi_label: bool = False
    balanced: bool = True


def fit(rows: Rows, targets: Targets, C: float, problem: Problem) -> Linear:
    """Fit a linear classifier to descriptors (N, D); UserError where a class has no image, or every image has it.

    Targets (N, K) are 1 where an image has the class, -1 where not, 0 where it does not count for this class; C weighs
    the errors against the norm.
    """
    present = (targets > 0).sum(axis=0)
    for k in np.flatnonzero((present == 0) | ((targets < 0).sum(axis=0) == 0)):
        raise UserError(f"class number {k}: {present[k]} images with it to train on, and none without or none with it")
    if problem.multi_label:
        columns = [_against_rest(rows, targets[:, k], C, problem.kind) for k in range(targets.shape[1])]
        return Linear(np.stack([w for w, _ in columns]), np.array([b for _, b in columns]), True)
    labels = targets.argmax(axis=1)
    importance = len(rows) / (len(present) * present[labels]) if problem.balanced else np.ones(len(rows))
    # One class an image: the library goes through the classes itself, much faster.
    model = _svm(C, rows) if problem.kind == "svm" else LogisticRegression(C=C, max_iter=ITERATIONS)
    model.fit(rows, labels, importance)
    weights, biases = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weights) == 1:  # of two classes only the second one's scores are kept: against the rest, or against 0
        first = -1.0 if problem.kind == "svm" else 0.0
        weights, biases = np.concatenate([first * weights, weights]), np.array([first * biases[0], biases[0]])
    return Linear(weights, biases, False)


def _against_rest(rows: Rows, targets: Targets, C: float, kind: Kind) -> tuple[Values, float]:
    counted = targets != 0
    if kind == "svm":
        model = _svm(C, rows[counted])
    else:
        model = LogisticRegression(C=C, solver="liblinear", max_iter=ITERATIONS, random_state=0)
    model.fit(rows[counted], targets[counted])
    return model.coef_[0], float(model.intercept_[0])


def _svm(C: float, rows: Rows) -> LinearSVC:
    # Coordinate descent in the dual takes the more passes the larger C is (for descriptors of length one hundreds
    # from 10 on, and at 100 it stops short of the solution); Newton's method some tens at any C.
    few = len(rows) < rows.shape[1]
    return LinearSVC(C=C, dual=few and C <= 1, tol=TOLERANCE, max_iter=ITERATIONS, random_state=0)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A classifier and how it came about.

    Attributes
    ----------
    linear : Linear
        Fit on training and validation part together, with its calibration, which is from the validation part.
    C : float
        The value of the greatest metric on the validation part; of equal ones, frequent where that part is small,
        the one whose calibrated posteriors are likeliest there.
    validation : dict of float to float
        The metric on the validation part by C.
    """

    linear: Linear
    C: float
    validation: dict[float, float]


def choose(
    training: tuple[Rows, Targets],
    validation: tuple[Rows, Targets],
    problem: Problem,
    metric: Callable[[Values, Targets], float],
    grid: tuple[float, ...] = GRID,
) -> Chosen:
    """Choose C by the metric on the validation part, calibrate there, then fit on both parts together."""
    rows, targets = validation
    fits = {C: fit(*training, C, problem) for C in grid}
    metrics = {C: metric(linear.scores(rows), targets) for C, linear in fits.items()}
    calibrations = {C: calibration(linear, rows, targets) for C, linear in fits.items()}

    def rank(C: float) -> tuple[float, float]:
        return round(metrics[C], 12), log_likelihood(fits[C].scaled(*calibrations[C]), rows, targets)

    best = max(grid, key=rank)
    final = fit(np.concatenate([training[0], rows]), np.concatenate([training[1], targets]), best, problem)
    return Chosen(final.scaled(*calibrations[best]).in_float32(), best, metrics)


def calibration(linear: Linear, rows: Rows, targets: Targets) -> tuple[Values, Values]:
    """Return the scale and the offset of each class's scores that fit its posteriors to held-out images.

    One class an image: a temperature for all classes (Guo et al. 2017), the one of greatest likelihood. Several: a
    sigmoid for each class (Platt 1999). Both keep the scores linear in the descriptor, and a class's ranking of images;
    the first also the ranking of classes.
    """
    scores = linear.scores(rows)
    if linear.multi_label:
        pairs = np.array([_platt(scores[:, k], targets[:, k]) for k in range(scores.shape[1])])
        return pairs[:, 0], pairs[:, 1]
    labels = targets.argmax(axis=1)

    def loss(logarithm: float) -> float:
        likelihood = log_softmax(np.exp(logarithm) * scores, axis=1)[np.arange(len(labels)), labels]
        return -float(likelihood.mean())

    # Far inside these bounds unless the held-out images are all right, when no temperature is low enough.
    logarithm = minimize_scalar(loss, bounds=(-4, 4), method="bounded").x
    return np.full(scores.shape[1], np.exp(logarithm)), np.zeros(scores.shape[1])


def _platt(scores: Values, targets: Targets) -> tuple[float, float]:
    """Return slope and offset of the sigmoid; ones that change nothing where there are not both kinds of image."""
    counted = targets != 0
    scores, positive = scores[counted, None], targets[counted] > 0
    if positive.all() or not positive.any():
        return 1.0, 0.0
    # Platt's targets, a little inside 0 and 1, by giving each image a share of the other answer.
    n_yes, n_no = int(positive.sum()), int((~positive).sum())
    sure = np.where(positive, (n_yes + 1) / (n_yes + 2), (n_no + 1) / (n_no + 2))
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(np.vstack([scores, scores]), np.concatenate([positive, ~positive]), np.concatenate([sure, 1 - sure]))
    return max(float(model.coef_[0, 0]), 1e-6), float(model.intercept_[0])


def log_likelihood(linear: Linear, rows: Rows, targets: Targets) -> float:
    """Return the mean logarithm of the posteriors that a classifier gives to the truth; parameters as for `fit`."""
    scores = linear.scores(rows)
    if linear.multi_label:
        return float(log_expit(targets * scores)[targets != 0].mean())
    return float(log_softmax(scores, axis=1)[np.arange(len(rows)), targets.argmax(axis=1)].mean())
