import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.basics.errors import UserError
from verydeep.images.crops import center, grid


@given(st.integers(1, 50), st.integers(0, 100), st.integers(0, 100))
def test_center_leaves_as_much_on_both_sides(size, down, across):
    top, left = center(size + down, size + across, size)
    assert 0 <= down - 2 * top <= 1
    assert 0 <= across - 2 * left <= 1


@given(st.integers(1, 50), st.integers(0, 300), st.integers(0, 300), st.integers(2, 7))
def test_grid_is_regular_and_reaches_all_edges(size, down, across, n):
    places = grid(size + down, size + across, size, n)
    assert len(places) == n * n
    assert places[0] == (0, 0)
    assert places[-1] == (down, across)
    for axis, room in ((0, down), (1, across)):
        steps = np.diff(sorted({place[axis] for place in places}))
        assert room == 0 or np.all(np.abs(steps - room / (n - 1)) <= 1) or room < n


def test_fifty_crops_of_the_paper_are_distinct():
    assert len(set(grid(256, 341, 224))) == 25
    assert grid(256, 341, 224)[:5] == [(0, 0), (0, 29), (0, 58), (0, 88), (0, 117)]


def test_one_crop_is_the_first():
    assert grid(256, 341, 224, n=1) == [(0, 0)]


@pytest.mark.parametrize("function", [center, grid])
def test_crop_that_does_not_fit(function):
    with pytest.raises(UserError, match="a crop of 224 does not fit into an image of 200 x 300"):
        function(200, 300, 224)
