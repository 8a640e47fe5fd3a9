"""Score maps over pictures: each score stands at the center of its window."""

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.evaluation.heatmap import class_map, draw_heatmap, spread
from verydeep.inference.forward import Forward
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime


def _forward(net):
    return Forward(net, Options(), Runtime("cpu", "torch"))


def _net(image_size):
    return vd.create("A", 3, width=1 / 64, fc_width=4, image_size=image_size)


def test_scores_stand_at_the_centers_of_their_windows(rng):
    scores = rng.normal(size=(3, 5)).astype(np.float32)
    height, width = 64 + 2 * 32, 64 + 4 * 32
    heat = spread(scores, height, width, _net(64))
    assert heat.shape == (height, width)
    for i in range(3):
        for j in range(5):
            # The center lies on the corner of four pixels; their mean is the score, up to linear interpolation.
            rows, columns = slice(32 * i + 31, 32 * i + 33), slice(32 * j + 31, 32 * j + 33)
            assert heat[rows, columns].mean() == pytest.approx(scores[i, j], abs=0.06 * float(np.ptp(scores)))
    assert heat[0, 0] == scores[0, 0]
    assert heat[-1, -1] == scores[-1, -1]


def test_spread_is_bilinear_interpolation(rng):
    scores = rng.normal(size=(4, 3)).astype(np.float32)
    heat = spread(scores, 224, 160, _net(96))
    for row, column in ((60, 70), (100, 90), (143, 111), (3, 85), (80, 159)):
        y = np.clip((row + 0.5 - 48) / 32, 0, 3)
        x = np.clip((column + 0.5 - 48) / 32, 0, 2)
        i, j = min(int(y), 2), min(int(x), 1)
        a, b = y - i, x - j
        expected = (1 - a) * ((1 - b) * scores[i, j] + b * scores[i, j + 1]) + a * (
            (1 - b) * scores[i + 1, j] + b * scores[i + 1, j + 1]
        )
        assert heat[row, column] == pytest.approx(expected, abs=1e-6)


def test_the_map_is_that_of_the_class_and_finds_its_place(make_net, reference, rng):
    net = make_net()
    original = rng.integers(0, 256, (128, 192, 3), dtype=np.uint8)
    picture, scores = class_map(_forward(net), original, 128, 5)
    np.testing.assert_array_equal(picture, original)
    np.testing.assert_allclose(scores, reference(net, original)[5], atol=1e-4)
    assert scores.shape == (3, 5)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pdf", ".svg"])
def test_the_drawing_is_written_whole(tmp_path, rng, suffix):
    picture = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
    path = tmp_path / f"heat{suffix}"
    draw_heatmap(path, picture, rng.normal(size=(2, 3)).astype(np.float32), _net(64), "dog")
    assert list(tmp_path.iterdir()) == [path]
    if suffix == ".png":
        drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert min(drawn.shape[:2]) > 300
        assert np.ptp(drawn, axis=2).max() > 60  # it has colors: the picture beneath is gray


def test_other_formats_are_refused(tmp_path, rng):
    with pytest.raises(UserError, match=r"must end in \.png"):
        draw_heatmap(tmp_path / "x.txt", np.zeros((64, 64, 3), np.uint8), np.zeros((1, 1), np.float32), _net(64), "dog")
    assert not list(tmp_path.iterdir())
