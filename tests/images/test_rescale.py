"""Rescaling against float64 arithmetic and Pillow; crops of it against the whole."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.basics.errors import UserError
from verydeep.images.rescale import rescale, rescaled_crop, rescaled_size

sides = st.integers(1, 600)


@given(sides, sides, sides)
def test_sizes_are_rounded_half_up(height, width, side):
    rows, columns = rescaled_size(height, width, side)
    assert min(rows, columns) == side
    exact = Fraction(max(height, width) * side, min(height, width))
    assert max(rows, columns) == int(exact + Fraction(1, 2))
    assert (rows <= columns) == (height <= width) or rows == columns


def test_sizes_at_the_half():
    assert rescaled_size(2, 3, 1) == (1, 2)
    assert rescaled_size(500, 375, 256) == (341, 256)
    assert rescaled_size(4, 4, 7) == (7, 7)


def interpolated(image, rows, columns):
    """Linear interpolation between pixel centers in float64, the border repeated."""
    for axis, length in enumerate((rows, columns)):
        extent = image.shape[axis]
        place = ((np.arange(length) + 0.5) * extent / length - 0.5).clip(0, extent - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, extent - 1)
        share = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(1, 5), st.integers(0, 2**32 - 1))
def test_enlarging_is_linear_interpolation(height, width, factor, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    side = int(min(height, width) * factor)
    expected = interpolated(image.astype(np.float64), *rescaled_size(height, width, side))
    assert np.abs(rescale(image, side) - expected).max() <= 1


def test_same_size_is_the_same_picture(rng):
    image = rng.integers(0, 256, (31, 47, 3), np.uint8)
    result = rescale(image, 31)
    np.testing.assert_array_equal(result, image)
    result[:] = 0  # the caller's own
    assert image.any()


@pytest.mark.parametrize("factor", [1.05, 1.2, 1.46, 1.7, 1.99, 2.5, 7])
def test_shrinking_is_near_pillow(factor, rng, draw):
    image = draw(rng, 300, 400)
    side = round(300 / factor)
    rows, columns = rescaled_size(300, 400, side)
    expected = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(rescale(image, side) - expected).mean() < 1


@pytest.mark.parametrize("factor", [1.9, 2, 2.1, 3, 6.4])
def test_shrinking_is_antialiased(factor, rng):
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    # Half the pixels are white: without antialiasing, at these factors, stripes of full contrast remain.
    result = rescale(stripes, round(200 / factor))[:, 2:-2]
    assert np.abs(result.astype(int) - 127).max() < 40


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["bilinear", "bilinear", "bicubic", "box", "lanczos"]))
def test_crop_is_cut_from_the_whole(data, interpolation):
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    side = data.draw(st.integers(1, 120))
    rows, columns = rescaled_size(height, width, side)
    if max(rows, columns) > 2000:
        return
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    h, w = data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left))
    image = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).integers(0, 256, (height, width, 3), np.uint8)
    before = image.copy()
    crop = rescaled_crop(image, side, top, left, h, w, interpolation)
    whole = rescale(image, side, interpolation)
    assert whole.shape == (rows, columns, 3)
    assert np.abs(crop.astype(int) - whole[top : top + h, left : left + w]).max() <= 1
    assert crop.flags.c_contiguous
    assert crop.flags.writeable
    np.testing.assert_array_equal(image, before)


def test_crop_whose_source_keeps_its_size(rng):
    """6 columns become 6.5, rounded to 6: no reason to copy them."""
    image = rng.integers(0, 256, (21, 12, 3), np.uint8)
    np.testing.assert_array_equal(rescaled_crop(image, 13, 0, 0, 1, 2), rescale(image, 13)[:1, :2])


@given(st.integers(0, 255), st.integers(1, 40), st.integers(1, 40), st.integers(1, 90))
@settings(deadline=None)
def test_one_color_stays_that_color(level, height, width, side):
    assert np.ptp(rescale(np.full((height, width, 3), level, np.uint8), side).astype(int) - level) == 0


@pytest.mark.parametrize("interpolation", ["bicubic", "box", "lanczos"])
def test_other_filters_are_those_of_pillow(interpolation, rng, draw):
    image = draw(rng, 50, 70)
    filter_ = getattr(Image.Resampling, interpolation.upper())
    expected = np.asarray(Image.fromarray(image).resize((42, 30), filter_))
    np.testing.assert_array_equal(rescale(image, 30, interpolation), expected)


def test_bad_requests(rng):
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    for top, left, height, width in ((-1, 0, 5, 5), (0, -1, 5, 5), (16, 0, 5, 5), (0, 26, 5, 5)):
        with pytest.raises(UserError, match=r"does not fit into an image of 20 x 30"):
            rescaled_crop(image, 20, top, left, height, width)
    with pytest.raises(UserError, match="interpolation 'cubist': expected one of bilinear, bicubic"):
        rescale(image, 20, "cubist")
    with pytest.raises(UserError, match="at least 1 expected"):
        rescale(image, 0)
