"""Metrics and polygons against other libraries' and counting pixel by pixel."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from tests.segmentation.conftest import scene
from verydeep.segmentation.drawing import mask_image, palette
from verydeep.segmentation.metrics import class_iou, confusion, intervals, metrics
from verydeep.segmentation.polygons import feature_collection


def test_metrics_are_scikit_learns(rng: np.random.Generator) -> None:
    truth = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (40, 50))
    found = rng.integers(0, 5, (40, 50), dtype=np.uint8)  # class 4 is found and never true, 5 neither
    known = truth != 255
    y, p = truth[known], found[known]
    matrix = confusion(truth, found, 6)
    assert (matrix == confusion_matrix(y, p, labels=range(6))).all()
    got = {name: float(value) for name, value in metrics(matrix).items()}
    assert got["pixel_accuracy"] == pytest.approx(accuracy_score(y, p))
    with pytest.warns(UserWarning, match="y_pred"):
        assert got["mean_accuracy"] == pytest.approx(balanced_accuracy_score(y, p))
    assert got["mean_iou"] == pytest.approx(jaccard_score(y, p, average="macro"))
    assert got["frequency_weighted_iou"] == pytest.approx(jaccard_score(y, p, average="weighted"))
    assert class_iou(matrix)[0][:5] == pytest.approx(jaccard_score(y, p, average=None))
    assert np.isnan(class_iou(matrix)[0][5])


def test_intervals_hold_what_other_pictures_give(rng: np.random.Generator) -> None:
    """Of many sets of pictures drawn alike, about 95 % of the intervals hold the figure of all pictures."""
    rights = rng.uniform(0.4, 0.9, 400)
    every = np.stack([rng.multinomial(200, [r / 2, (1 - r) / 2, (1 - r) / 2, r / 2]).reshape(2, 2) for r in rights])
    truth = float(metrics(every.sum(0))["mean_iou"])
    hits = []
    for _ in range(60):
        figures, ious = intervals(every[rng.integers(0, 400, 40)])
        hits.append(figures["mean_iou"].low <= truth <= figures["mean_iou"].high)
        assert ious[0].low <= ious[0].value <= ious[0].high
    assert np.mean(hits) > 0.8
    one, _ = intervals(every[:1])
    assert one["mean_iou"].low == one["mean_iou"].high == one["mean_iou"].value


def test_polygons_are_the_pixels(rng: np.random.Generator) -> None:
    labels = scene(rng, 30, 41)
    labels[rng.random(labels.shape) < 0.1] = 1
    found = feature_collection(labels, ["a", "b", "c"])
    again = np.full(labels.shape, 255, np.uint8)
    y, x = np.mgrid[:30, :41] + 0.5
    for feature in found["features"]:
        inside = np.zeros(labels.shape, bool)
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            for (x0, y0), (x1, y1) in pairwise(ring):
                assert x0 == x1 or y0 == y1, "along the edges of pixels"
                if x0 == x1:  # an edge that a ray to the left crosses
                    inside ^= (min(y0, y1) < y) & (y < max(y0, y1)) & (x0 < x)
        assert feature["properties"]["pixels"] == inside.sum()
        again[inside] = "abc".index(feature["properties"]["class"])
    assert (again == labels).all()


def test_masks_keep_the_labels_and_vocs_colors(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    assert (np.asarray(mask_image(labels)) == labels).all()
    assert palette()[[0, 1, 2, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [64, 0, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
