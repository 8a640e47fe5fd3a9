"""Views of a picture: which pixels the network is shown."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep.basics.errors import UserError
from verydeep.images.rescale import rescale
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import VIEWS, prepare, view_size, views


def _coordinates(height, width):
    """A picture whose every pixel differs: row, column and their parity are its colors."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, 16 * (rows // 256) + columns // 256], axis=2).astype(np.uint8)


@given(st.integers(232, 300), st.integers(232, 700))
@settings(max_examples=20, deadline=None)
def test_fifty_distinct_crops_reach_the_far_edges(height, width):
    picture = _coordinates(height, width)
    crops = views(Protocol("crops", (256,)), 224, picture)
    assert len(crops) == VIEWS["crops"] == 50
    assert {crop.shape for crop in crops} == {(224, 224, 3)}
    assert len({crop.tobytes() for crop in crops}) == 50
    # The last crop of the grid is the bottom right corner, the first the top left one, each with its flip.
    np.testing.assert_array_equal(crops[48], picture[-224:, -224:])
    np.testing.assert_array_equal(crops[0], picture[:224, :224])
    np.testing.assert_array_equal(crops[4 * 2], picture[:224, -224:])
    for crop, flip in zip(crops[::2], crops[1::2], strict=True):
        np.testing.assert_array_equal(flip, crop[:, ::-1])


def test_crops_lie_on_a_regular_grid():
    picture = _coordinates(256, 341)
    crops = views(Protocol("crops", (256,)), 224, picture)[::2]
    corners = [(int(crop[0, 0, 0]), int(crop[0, 0, 1])) for crop in crops]
    # 32 / 4 = 8 rows apart, 117 / 4 = 29.25 columns apart.
    assert corners == [(top, left) for top in (0, 8, 16, 24, 32) for left in (0, 29, 58, 88, 117)]


def test_ten_crops_are_of_the_central_square():
    picture = _coordinates(256, 341)
    crops = views(Protocol("ten-crops", (256,)), 224, picture)
    square = picture[:, 42:298]  # (341 - 256) // 2 columns are left out before it
    places = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    for (top, left), crop, flip in zip(places, crops[::2], crops[1::2], strict=True):
        np.testing.assert_array_equal(crop, square[top : top + 224, left : left + 224])
        np.testing.assert_array_equal(flip, crop[:, ::-1])


@pytest.mark.parametrize("upright", [False, True])
def test_144_crops_of_three_squares_at_four_scales(upright):
    def turned(square):
        return np.ascontiguousarray(square.transpose(1, 0, 2) if upright else square)

    count = 0
    for side in (256, 288, 320, 352):
        picture = _coordinates(side, side + 85)
        crops = views(Protocol("square-crops", (side,)), 224, turned(picture))
        assert {crop.shape for crop in crops} == {(224, 224, 3)}
        count += len(crops)
        unflipped, flipped = crops[::2], crops[1::2]
        for left, group, whole in zip((0, 42, 85), (0, 5, 10), unflipped[15:], strict=True):
            square = picture[:, left : left + side]
            square = turned(square)
            for (row, column), crop in zip(((0, 0), (0, 1), (1, 0), (1, 1)), unflipped[group : group + 4], strict=True):
                rows, columns = (slice(-224, None) if far else slice(224) for far in (row, column))
                np.testing.assert_array_equal(crop, square[rows, columns])
            middle = (side - 224) // 2
            np.testing.assert_array_equal(unflipped[group + 4], square[middle : middle + 224, middle : middle + 224])
            np.testing.assert_array_equal(whole, rescale(square, 224))
        for crop, flip in zip(unflipped, flipped, strict=True):
            np.testing.assert_array_equal(flip, crop[:, ::-1])
    assert count == 144


def test_dense_shows_the_whole_picture_and_its_flip():
    picture = _coordinates(64, 91)
    whole, flip = views(Protocol("dense", (64,)), 64, picture)
    np.testing.assert_array_equal(whole, picture)
    np.testing.assert_array_equal(flip, picture[:, ::-1])


@pytest.mark.parametrize("shape", [(90, 120), (120, 90), (64, 64), (40, 50), (65, 199)])
@pytest.mark.parametrize("kind", ["center", "dense", "crops", "ten-crops", "square-crops"])
def test_views_have_the_size_foretold(make_net, rng, shape, kind):
    net, part = make_net(), Protocol(kind, (72,))
    picture = prepare(part, net, rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    shown = views(part, net.image_size, picture)
    assert len(shown) == VIEWS[kind]
    assert {view.shape[:2] for view in shown} == {view_size(part, net.image_size, *shape)}


def test_center_is_the_middle_of_the_rescaled_picture(make_net, rng):
    net, part = make_net(), Protocol("center", (80,))
    original = rng.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    whole = rescale(original, 80)  # 80 x 120
    (view,) = views(part, net.image_size, prepare(part, net, original))
    assert np.abs(view.astype(int) - whole[8:72, 28:92]).max() <= 1


def test_a_mean_of_protocols_has_no_views(rng):
    with pytest.raises(UserError, match="no views whose posteriors are averaged"):
        views(Protocol("dense+crops", (64,)), 64, _coordinates(64, 64))
