"""Linear classifiers on descriptors: fit, C chosen on a validation part, posteriors calibrated on it."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from verydeep.basics.errors import UserError
from verydeep.evaluation.metrics import average_precision, mean_class_recall

Kind = Literal["svm", "logistic"]
Rows = NDArray[np.float32]
Targets = NDArray[np.int8]
GRID = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Values of C that are tried; the paper does not name its own."""


TOLERANCE = 1e-3
"""Of liblinear's solvers; its own command stops at 0.1."""
ITERATIONS = 1000
"""At most; the library warns where they did not suffice."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores that are linear in the descriptor: `scale * (x @ weights.T + biases) + offsets`.

    Attributes
    ----------
    weights : ndarray of float64, shape (K, D)
    biases : ndarray of float64, shape (K,)
    scale, offsets : ndarray of float64, shape (K,)
        The calibration; 1 and 0 before it.
    multi_label : bool
        Whether an image may have several classes: posteriors are then one sigmoid a class, else one soft-max.
    """

    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    scale: NDArray[np.float64]
    offsets: NDArray[np.float64]
    multi_label: bool

    def scores(self, rows: Rows) -> NDArray[np.float64]:
        """Return the calibrated scores of descriptors, N x K, before soft-max or sigmoid."""
        return np.asarray(self.scale * (rows.astype(np.float64) @ self.weights.T + self.biases) + self.offsets)

    def folded(self) -> "Linear":
        """Return the classifier with its calibration in its weights, and all numbers such as float32 holds exactly.

        So the one that is measured is the one that a network's file holds.
        """
        weights, biases = self.scale[:, None] * self.weights, self.scale * self.biases + self.offsets
        exact = [values.astype(np.float32).astype(np.float64) for values in (weights, biases)]
        ones = np.ones(len(biases))
        return Linear(exact[0], exact[1], ones, 0 * ones, self.multi_label)

    def posteriors(self, rows: Rows) -> NDArray[np.float64]:
        """Return the posteriors, N x K."""
        scores = self.scores(rows)
        return np.asarray(expit(scores) if self.multi_label else softmax(scores, axis=1))


def fit(rows: Rows, targets: Targets, kind: Kind, C: float, multi_label: bool, balanced: bool = True) -> Linear:
    """Fit a linear classifier, one class against the rest.

    Parameters
    ----------
    rows : ndarray of float32, shape (N, D)
        Descriptors.
    targets : ndarray of int8, shape (N, K)
        1 where an image has the class, -1 where not, 0 where it does not count for this class.
    kind : {"svm", "logistic"}
        liblinear's SVM with squared hinge loss; or logistic regression, over all classes at once unless images have
        several.
    C : float
        Weight of the errors against that of the norm.
    multi_label : bool
        Whether an image may have several classes.
    balanced : bool
        Whether an image counts in inverse proportion to its class's number of images, so that all classes count the
        same. It changes nothing where they have equal numbers, as in the Caltech protocols; it is not done where
        images have several classes.

    Raises
    ------
    UserError
        A class has no image, or every image has it.
    """
    present = (targets > 0).sum(axis=0)
    for k in np.flatnonzero((present == 0) | ((targets < 0).sum(axis=0) == 0)):
        raise UserError(f"class number {k}: {present[k]} images with it to train on, and none without or none with it")
    importance = np.ones(len(rows))
    if balanced and not multi_label:
        importance = len(rows) / (len(present) * present[targets.argmax(axis=1)])
    if not multi_label:  # one class an image: the library goes through the classes itself, much faster
        weights, biases = _all_classes(rows, targets, kind, C, importance)
    else:
        columns = [_against_rest(rows, targets[:, k], kind, C, importance) for k in range(targets.shape[1])]
        weights, biases = np.stack([w for w, _ in columns]), np.array([b for _, b in columns])
    ones = np.ones(len(biases))
    return Linear(weights, biases, ones, 0 * ones, multi_label)


def _against_rest(
    rows: Rows, targets: Targets, kind: Kind, C: float, importance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    counted = targets != 0
    if kind == "svm":
        model = _svm(C, rows[counted])
    else:
        model = LogisticRegression(C=C, solver="liblinear", max_iter=ITERATIONS, random_state=0)
    model.fit(rows[counted], targets[counted], importance[counted])
    return model.coef_[0], float(model.intercept_[0])


def _svm(C: float, rows: Rows) -> LinearSVC:
    """Return liblinear's SVM with the solver that is quicker for so many descriptors of such length.

    Coordinate descent in the dual takes the more passes the larger C is (for descriptors of length one hundreds from
    10 on, and at 100 it stops short of the solution); Newton's method some tens at any C.
    """
    few = len(rows) < rows.shape[1]
    return LinearSVC(C=C, dual=few and C <= 1, tol=TOLERANCE, max_iter=ITERATIONS, random_state=0)


def _all_classes(
    rows: Rows, targets: Targets, kind: Kind, C: float, importance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    model = _svm(C, rows) if kind == "svm" else LogisticRegression(C=C, max_iter=ITERATIONS)
    model.fit(rows, targets.argmax(axis=1), importance)
    weights, biases = model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    if len(weights) == 1:  # of two classes only the second one's scores are kept: against the rest, or against 0
        first = -1.0 if kind == "svm" else 0.0
        weights, biases = np.concatenate([first * weights, weights]), np.array([first * biases[0], biases[0]])
    return weights, biases


def merit(scores: NDArray[np.float64], targets: Targets, multi_label: bool, eleven_point: bool = False) -> float:
    """Return what C is chosen by, in [0, 1]: mean class recall, or mean average precision of several classes."""
    if not multi_label:
        return mean_class_recall(targets.argmax(axis=1), scores.argmax(axis=1), targets.shape[1])
    each = [average_precision(targets[:, k], scores[:, k], eleven_point) for k in range(targets.shape[1])]
    return float(np.nanmean(each))


@dataclass(frozen=True, eq=False)
class Chosen:
    """A classifier and how it came about.

    Attributes
    ----------
    linear : Linear
        Fit on training and validation part together, its calibration, on the validation part, folded in.
    C : float
        The value with the greatest merit on the validation part; of equal ones, frequent where that part is small,
        the one whose calibrated posteriors are likeliest there.
    validation : dict of float to float
        Merit on the validation part by C.
    """

    linear: Linear
    C: float
    validation: dict[float, float]


def choose(
    training: tuple[Rows, Targets],
    validation: tuple[Rows, Targets],
    kind: Kind,
    multi_label: bool,
    balanced: bool = True,
    eleven_point: bool = False,
    grid: tuple[float, ...] = GRID,
) -> Chosen:
    """Choose C on the validation part, calibrate there, then fit on both parts together.

    Parameters are those of `fit`; `training` and `validation` are pairs of descriptors and targets.
    """
    fits = {C: fit(*training, kind, C, multi_label, balanced) for C in grid}
    merits = {
        C: merit(linear.scores(validation[0]), validation[1], multi_label, eleven_point) for C, linear in fits.items()
    }
    calibrated = {C: calibrate(linear, *validation) for C, linear in fits.items()}
    best = max(grid, key=lambda C: (round(merits[C], 12), log_likelihood(calibrated[C], *validation)))
    rows = np.concatenate([training[0], validation[0]])
    targets = np.concatenate([training[1], validation[1]])
    final = fit(rows, targets, kind, best, multi_label, balanced)
    scaled = replace(final, scale=calibrated[best].scale, offsets=calibrated[best].offsets)
    return Chosen(scaled.folded(), best, merits)


def calibrate(linear: Linear, rows: Rows, targets: Targets) -> Linear:
    """Return the classifier with posteriors fit to images that it was not trained on.

    One class an image: a temperature for all classes (Guo et al. 2017), the one of greatest likelihood. Several: a
    sigmoid for each class (Platt 1999). Both keep the scores linear in the descriptor, and a class's ranking of
    images; the first also the ranking of classes.

    Parameters
    ----------
    linear : Linear
        Not calibrated yet.
    rows, targets
        As for `fit`, held out.
    """
    scores = linear.scores(rows)
    if linear.multi_label:
        pairs = np.array([_platt(scores[:, k], targets[:, k]) for k in range(scores.shape[1])])
        return replace(linear, scale=pairs[:, 0], offsets=pairs[:, 1])
    labels = targets.argmax(axis=1)

    def loss(logarithm: float) -> float:
        likelihood = log_softmax(np.exp(logarithm) * scores, axis=1)[np.arange(len(labels)), labels]
        return -float(likelihood.mean())

    # Far inside these bounds unless the held-out images are all right, when no temperature is low enough.
    logarithm = minimize_scalar(loss, bounds=(-4, 4), method="bounded").x
    return replace(linear, scale=np.full(scores.shape[1], np.exp(logarithm)))


def log_likelihood(linear: Linear, rows: Rows, targets: Targets) -> float:
    """Return the mean logarithm of the posteriors that a calibrated classifier gives to the truth.

    Parameters
    ----------
    linear : Linear
        Calibrated.
    rows, targets
        As for `fit`.
    """
    scores = linear.scores(rows)
    if linear.multi_label:
        return float(log_expit(targets * scores)[targets != 0].mean())
    return float(log_softmax(scores, axis=1)[np.arange(len(rows)), targets.argmax(axis=1)].mean())


def _platt(scores: NDArray[np.float64], targets: Targets) -> tuple[float, float]:
    """Return slope and offset of the sigmoid; one that changes nothing where there are not both kinds of image."""
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
