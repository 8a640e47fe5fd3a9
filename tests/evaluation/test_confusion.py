"""Recall, precision and confusion by class against scikit-learn; the matrix as a picture and as a table."""

import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from verydeep.basics.errors import UserError
from verydeep.evaluation.confusion import NAMED, write_confusion
from verydeep.evaluation.metrics import class_metrics
from verydeep.evaluation.posteriors import Posteriors


def made(rng, images, classes, *, there, labeled=1.0):
    """Posteriors of which some classes have no images, and some images no labels."""
    probabilities = rng.dirichlet(np.full(classes, 0.1), images).astype(np.float32)
    labels = rng.choice(rng.permutation(classes)[:there], images)
    labels[rng.random(images) > labeled] = -1
    names = tuple(f"class {k}" for k in range(classes))
    return Posteriors(tuple(map(str, range(images))), labels, probabilities, names)


@pytest.mark.parametrize(
    ("images", "classes", "there", "labeled"), [(300, 6, 6, 1.0), (40, 9, 5, 0.7), (25, 30, 8, 0.9)]
)
def test_they_are_scikit_learns(rng, images, classes, there, labeled):
    posteriors = made(rng, images, classes, there=there, labeled=labeled)
    found = class_metrics(posteriors)
    known = posteriors.labels >= 0
    truth, guess = posteriors.labels[known], posteriors.probabilities[known].argmax(axis=1)
    every = list(range(classes))
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, guess, labels=every))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, _, support = precision_recall_fscore_support(
            truth, guess, labels=every, zero_division=np.nan
        )
        macro = precision_recall_fscore_support(truth, guess, labels=np.unique(truth), average="macro", zero_division=0)
    np.testing.assert_array_equal(found.images, support)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.macro, (macro[1], macro[0]))


def test_without_labels_there_is_nothing_to_count(rng):
    with pytest.raises(UserError, match="no image has a label"):
        class_metrics(made(rng, 5, 3, there=3, labeled=0.0))


@pytest.mark.parametrize("classes", [2, NAMED + 1])
def test_the_picture_and_the_table_hold_the_matrix(rng, tmp_path, classes):
    posteriors = made(rng, 200, classes, there=classes)
    confusion = class_metrics(posteriors).confusion
    picture, file = write_confusion(tmp_path / "new", "confusion-center@64", confusion, posteriors.classes)
    again = np.zeros_like(confusion)
    for row in pq.ParquetFile(file).read().to_pylist():
        again[posteriors.classes.index(row["class"]), posteriors.classes.index(row["predicted"])] = row["images"]
    np.testing.assert_array_equal(again, confusion)
    with Image.open(picture) as opened:
        assert opened.format == "PNG"
        assert min(opened.size) > classes
        assert len(np.unique(np.asarray(opened.convert("RGB")).reshape(-1, 3), axis=0)) > 10
