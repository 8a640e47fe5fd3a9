"""Training views: the object is seen in them, and the answer is where it is seen."""

import numpy as np
import pytest

from verydeep.datasets.dataset import Box, Sample
from verydeep.datasets.loader import Augmentation, TrainingLoader
from verydeep.images.crops import center
from verydeep.images.rescale import rescale, rescaled_crop, rescaled_size
from verydeep.localization.boxes import Frame, as_array, decode, encode
from verydeep.localization.views import ObjectViews, visible_share

CROP = 64


def test_visible_share_is_counted_in_pixels(rng):
    for _ in range(200):
        xmin, ymin = (int(n) for n in rng.integers(-80, 90, 2))
        width, height = (int(n) for n in rng.integers(1, 120, 2))
        canvas = np.zeros((400, 400), bool)
        canvas[200 + ymin : 200 + ymin + height, 200 + xmin : 200 + xmin + width] = True
        seen = canvas[200 : 200 + CROP, 200 : 200 + CROP].sum()
        most = min(width, CROP) * min(height, CROP)
        box = np.array([xmin, ymin, xmin + width, ymin + height], np.float64)
        assert visible_share(box, CROP) == pytest.approx(seen / most)


@pytest.fixture
def drawn(boxed, rng):
    """A data set of one picture with a white object on black, and the data set's maker."""

    def make(height, width, *boxes):
        picture = np.zeros((height, width, 3), np.uint8)
        for box in boxes:
            picture[int(box.ymin) : int(box.ymax), int(box.xmin) : int(box.xmax)] = 255
        return type(boxed)([picture], [Sample("0.png", 0, tuple(boxes))])

    return make


def test_the_answer_is_where_the_object_is_seen(drawn, rng):
    """Rendered crops: the white pixels stand where the answer says, also where views are mirrored."""
    height, width = 150, 210
    data = drawn(height, width, Box(60, 50, 120, 110))
    views = ObjectViews(data, CROP, (72, 110), True, 0.5)
    flips, checked = set(), 0
    for seed in range(60):
        view, answer = views(0, height, width, np.random.default_rng(seed))
        picture = rescale(data.image(0), view.side)[view.top : view.top + CROP, view.left : view.left + CROP, 0]
        seen = (picture[:, ::-1] if view.flip else picture) > 127
        assert answer.dtype == np.float32
        xmin, ymin, xmax, ymax = decode(answer.astype(np.float64), CROP)
        inside = np.clip([xmin, ymin, xmax, ymax], 0, CROP)
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(found, inside, atol=1.01)
        flips.add(view.flip)
        checked += 1
    assert flips == {False, True}
    assert checked == 60


def test_every_view_shows_enough_of_the_object(drawn):
    height, width = 100, 400  # of a random crop at S = 72 most places miss the object
    data = drawn(height, width, Box(300, 20, 340, 60))
    for least in (0.0, 0.5, 1.0):
        shares = []
        for seed in range(80):
            views = ObjectViews(data, CROP, (72, 72), True, least)
            _, answer = views(0, height, width, np.random.default_rng(seed))
            shares.append(float(visible_share(decode(answer.astype(np.float64), CROP), CROP)))
        assert min(shares) >= least - 1e-6
    assert rescaled_size(height, width, 72)[1] > 3 * CROP


def test_where_redrawing_fails_the_most_is_shown(drawn, monkeypatch):
    monkeypatch.setattr("verydeep.localization.views.REDRAWS", 0)
    height, width = 80, 500
    large, small = Box(200, 0, 420, 80), Box(3, 3, 9, 9)
    for box in (large, small):
        data = drawn(height, width, box)
        for seed in range(30):
            _, answer = ObjectViews(data, CROP, (80, 80), False, 1.0)(0, height, width, np.random.default_rng(seed))
            assert visible_share(decode(answer.astype(np.float64), CROP), CROP) == pytest.approx(1, abs=0.02)


def test_of_several_objects_the_one_seen_most_is_the_answer(drawn):
    height, width = 72, 72
    data = drawn(height, width, Box(0, 0, 8, 8), Box(20, 20, 50, 50))
    for seed in range(20):
        view, answer = ObjectViews(data, CROP, (72, 72), False, 0.5)(0, height, width, np.random.default_rng(seed))
        expected = np.array([20 - view.left, 20 - view.top, 50 - view.left, 50 - view.top])
        whole_small = view.left == view.top == 0
        if not whole_small:
            np.testing.assert_allclose(decode(answer.astype(np.float64), CROP), expected, atol=1e-4)


def test_views_follow_from_chance_alone(boxed):
    views = ObjectViews(boxed, CROP, (70, 100), True, 0.5)
    for index in range(len(boxed)):
        height, width = boxed.size(index)
        first, second = (views(index, height, width, np.random.default_rng(3)) for _ in range(2))
        assert first[0] == second[0]
        np.testing.assert_array_equal(first[1], second[1])


def test_training_and_testing_see_the_object_where_the_answer_says_to_a_tenth_of_a_pixel(boxed, rng):
    """The loader's own crops, and the central crop of validation: a shift of half a pixel anywhere would show."""
    pictures, samples = [], []
    for i in range(60):
        (x, y), (width, height) = rng.integers(14, 26, 2), rng.integers(10, 24, 2)
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[y : y + height, x : x + width] = 255
        pictures.append(picture)
        samples.append(Sample(f"{i}.png", 0, (Box(float(x), float(y), float(x + width), float(y + height)),)))
    data = type(boxed)(pictures, samples, "train")
    views = ObjectViews(data, CROP, (72, 72), True, 0.5)
    loader = TrainingLoader(data, Augmentation(CROP, (72, 72), sampler=views), batch_size=30, seed=0, workers=1)
    seen = [
        (image, target) for batch in loader.epoch(0) for image, target in zip(batch.images, batch.targets, strict=True)
    ]
    assert len(seen) == 60
    for image, target in seen:
        np.testing.assert_allclose(_seen(image.numpy()), target.numpy() * CROP, atol=0.1)
    top, left = center(72, 72, CROP)
    for i, sample in enumerate(data.samples):
        crop = rescaled_crop(data.image(i), 72, top, left, CROP, CROP, "bilinear")
        truth = encode(Frame.central(64, 64, 72, CROP).to_window(as_array(sample.boxes)), CROP)[0]
        np.testing.assert_allclose(_seen(crop), truth * CROP, atol=0.1)


def _seen(image):
    """Center and size of what is bright, to a fraction of a pixel."""
    found = []
    for axis in (0, 1):
        light = image[..., 0].max(axis=axis) / 255
        found.append(((light * (np.arange(CROP) + 0.5)).sum() / light.sum(), light.sum()))
    (x, width), (y, height) = found
    return [x, y, width, height]
