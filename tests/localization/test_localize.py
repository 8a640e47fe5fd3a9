"""Single pictures: what is said is what the networks' maps say; drawn boxes are where they should be."""

import numpy as np
import pytest
import torch

from verydeep.basics.errors import UserError
from verydeep.images.rescale import rescale
from verydeep.inference.runtime import Runtime
from verydeep.localization.boxes import clip
from verydeep.localization.drawing import COLORS, TRUTH, draw_boxes
from verydeep.localization.localize import Localizer, localize
from verydeep.localization.merging import MergeRule
from verydeep.localization.scoring import best_box
from verydeep.nets.run_info import RunInfo


@pytest.mark.parametrize("regression", ["scr", "pcr"])
def test_boxes_are_those_of_the_maps_in_original_pixels(make_pair, rng, regression):
    """Cell by cell with plain arithmetic: window, stride, rescaling, rounding of the long side."""
    classifier, localizer = make_pair(regression, same_trunk=False)
    height, width, side = 123, 177, 100
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rule = MergeRule(0.7)
    found = localize(classifier, localizer, picture, f"dense@{side}", top=3, rule=rule, device="cpu")
    pixels = torch.from_numpy(rescale(picture, side)[None])
    rows, columns = pixels.shape[1:3]
    with torch.inference_mode():
        scores = classifier.score_map(classifier.preprocessing(pixels))[0].double().softmax(0).numpy()
        maps = localizer.score_map(localizer.preprocessing(pixels))[0].double().numpy()
    for guess in found.top:
        k = classifier.classes.index(guess.name)
        boxes, rated = [], []
        for i in range(scores.shape[1]):
            for j in range(scores.shape[2]):
                x, y, w, h = maps[4 * k if regression == "pcr" else 0 :, i, j][:4] * 64
                w, h = max(w, 0), max(h, 0)
                left, top = 32 * j + x - w / 2, 32 * i + y - h / 2
                to_x, to_y = width / columns, height / rows
                boxes.append([left * to_x, top * to_y, (left + w) * to_x, (top + h) * to_y])
                rated.append(scores[k, i, j])
        box, rating = best_box(np.array(boxes), np.array(rated), rule)
        np.testing.assert_allclose(guess.box, clip(box, height, width), atol=1e-2)
        assert guess.rating == pytest.approx(rating, rel=1e-3)
    posteriors = [guess.posterior for guess in found.top]
    assert posteriors == sorted(posteriors, reverse=True)


def test_a_localizers_own_scale_is_the_default(make_pair, rng):
    classifier, localizer = make_pair()
    localizer.provenance = RunInfo(train_scales=(80, 80))
    picture = rng.integers(0, 256, (100, 90, 3), dtype=np.uint8)
    assert str(Localizer(classifier, localizer, runtime=Runtime("cpu"))(picture).protocol) == "crops@80"
    with pytest.raises(UserError, match="top 0"):
        Localizer(classifier, localizer, "dense@80", top=0)


def test_boxes_are_drawn_inside_the_picture(rng):
    picture = np.zeros((300, 400, 3), np.uint8)
    drawn = np.asarray(draw_boxes(picture, [(50, 60, 150, 200)], [""], [(200, 10, 390, 290)], least_side=300))
    assert drawn.shape == picture.shape
    for color, (xmin, ymin, xmax, ymax) in ((COLORS[0], (50, 60, 150, 200)), (TRUTH, (200, 10, 390, 290))):
        rows, columns = np.nonzero((drawn == color).all(axis=2))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (xmin, ymin, xmax, ymax)
        assert not (drawn[ymin + 10 : ymax - 10, xmin + 10 : xmax - 10] != 0).any()
    small = draw_boxes(picture[:30, :40], [(0, 0, 40, 30)], ["a class"], least_side=90)
    assert small.size == (120, 90)


@pytest.mark.parametrize("box", [(-50, -50, 900, 900), (10, 10, 10, 10), (399, 299, 400, 300)])
def test_any_box_and_caption_can_be_drawn(box):
    picture = np.zeros((300, 400, 3), np.uint8)
    drawn = np.asarray(draw_boxes(picture, [box] * 3, ["a name", "", "another much longer name of a class 100%"]))
    assert (drawn == COLORS[0]).all(axis=2).any()
