"""Work in threads: order, errors in their place, and how much is held."""

import time
from itertools import count, islice

import pytest

from verydeep.basics.threads import in_threads


def test_results_come_in_order_whatever_takes_long(rng):
    naps = rng.uniform(0, 0.01, size=100)

    def slow(index):
        time.sleep(naps[index])
        return index * index

    assert list(in_threads(slow, range(100), 8)) == [index * index for index in range(100)]
    assert list(in_threads(slow, [])) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_little_is_begun_that_nobody_takes(threads):
    taken = []
    results = in_threads(taken.append, count(), threads)
    assert len(list(islice(results, 50))) == 50
    results.close()
    assert len(taken) <= 50 + 2 * threads + 1


def test_an_error_comes_in_its_place_and_stops_the_rest():
    def fails(index):
        if index == 7:
            raise ValueError("seven")
        return index

    results = in_threads(fails, count(), 2)
    assert list(islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)
    assert list(results) == []
