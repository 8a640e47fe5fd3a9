"""Images rescaled from top to bottom have the pixels of the whole image rescaled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.basics.errors import UserError
from verydeep.images.rescale import rescale
from verydeep.images.rescale_rows import rescaled


class Array:
    """An image that counts what is read of it, and is read from top to bottom alone."""

    name = "array"
    row_bytes = 0

    def __init__(self, pixels):
        self.pixels = pixels
        self.height, self.width = pixels.shape[:2]
        self.rows = 0

    def read(self, top, left, height, width):
        assert top >= self.rows
        assert left == 0
        assert width == self.width
        self.rows = top + height
        return self.pixels[top : top + height]


factors = st.one_of(st.floats(0.06, 0.5), st.floats(0.5, 1), st.floats(1, 2.5), st.sampled_from((0.25, 0.5, 2.0, 3.0)))


@given(
    st.integers(5, 200),
    st.integers(5, 200),
    factors,
    st.sampled_from(("bilinear", "bicubic", "box", "lanczos")),
    st.integers(1, 60),
    st.integers(0, 2**32 - 1),
)
def test_bands_have_the_pixels_of_the_whole(height, width, factor, interpolation, band, seed):
    side = int(min(height, width) * factor + 0.5)
    if side < 1:
        return
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    source = Array(image)
    found = rescaled(source, factor, interpolation)
    expected = rescale(image, side, interpolation)
    assert (found.height, found.width) == expected.shape[:2]
    if factor == 1:
        return
    tops = range(0, found.height, band)
    rows = [found.read(top, 0, min(band, found.height - top), found.width) for top in tops]
    np.testing.assert_array_equal(np.concatenate(rows), expected)
    assert source.rows <= height


def test_a_part_is_cut_out_of_the_same_pixels(rng):
    image = rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)
    for factor in (0.3, 0.7):
        whole = rescale(image, int(90 * factor + 0.5))
        found = rescaled(Array(image), factor, "bilinear")
        np.testing.assert_array_equal(found.read(3, 5, 10, 12), whole[3:13, 5:17])


def test_a_factor_of_one_is_the_image_itself_and_none_is_refused(rng):
    source = Array(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    assert rescaled(source, 1.0, "bilinear") is source
    with pytest.raises(UserError, match="nothing is left of 9 x 9 pixels"):
        rescaled(source, 0.01, "bilinear")
