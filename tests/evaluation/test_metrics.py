"""Errors, intervals and tests against brute force, resampling and scipy."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from verydeep.basics.errors import UserError
from verydeep.evaluation.metrics import (
    bootstrap_interval,
    error_rate,
    mcnemar,
    mcnemar_of,
    top_k_error,
    wrong,
)
from verydeep.evaluation.posteriors import Posteriors


def _posteriors(probabilities, labels):
    n, k = probabilities.shape
    return Posteriors(tuple(map(str, range(n))), labels, probabilities, tuple(map(str, range(k))))


# Few different values, so that ties abound.
@given(arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(2, 9)), elements=st.integers(1, 3)), st.data())
def test_top_k_is_that_of_a_stable_sort(grid, data):
    n, k = grid.shape
    labels = data.draw(arrays(np.int64, n, elements=st.integers(0, k - 1)))
    probabilities = (grid / grid.sum(axis=1, keepdims=True)).astype(np.float32)
    for guesses in (1, 2, 5):
        missed = 0
        for row, label in zip(probabilities, labels, strict=True):
            order = sorted(range(k), key=lambda i, row=row: (-row[i], i))
            missed += label not in order[:guesses]
        assert top_k_error(_posteriors(probabilities, labels), guesses) == missed / n


def test_with_no_more_classes_than_guesses_nothing_is_wrong(make_posteriors):
    assert top_k_error(make_posteriors(50, 5), 5) == 0
    assert top_k_error(make_posteriors(50, 3), 5) == 0
    assert top_k_error(make_posteriors(500, 6), 5) > 0


def test_images_without_label_do_not_count(make_posteriors):
    posteriors = make_posteriors(40)
    expected = wrong(posteriors, 1)[::2]
    posteriors.labels[1::2] = -1
    np.testing.assert_array_equal(wrong(posteriors, 1), expected)
    posteriors.labels[:] = -1
    with pytest.raises(UserError, match="no image has a label"):
        top_k_error(posteriors, 1)


def test_the_interval_is_that_of_literal_resampling(rng):
    missed = rng.random(200) < 0.3
    rates = missed[rng.integers(0, 200, (20_000, 200))].mean(axis=1)
    expected = np.quantile(rates, [0.025, 0.975])
    # One image is 0.005; the quantiles of 10,000 draws lie within about one of them.
    np.testing.assert_allclose(bootstrap_interval(missed), expected, atol=0.0101)
    narrow = bootstrap_interval(missed, confidence=0.5)
    np.testing.assert_allclose(narrow, np.quantile(rates, [0.25, 0.75]), atol=0.0101)


def test_the_interval_is_the_same_every_time_and_holds_the_rate(rng):
    missed = rng.random(90) < 0.4
    low, high = bootstrap_interval(missed)
    assert (low, high) == bootstrap_interval(rng.permutation(missed))
    assert 0 <= low < missed.mean() < high <= 1
    assert bootstrap_interval(np.zeros(9, bool)) == (0, 0)


def test_the_interval_covers_the_true_rate_about_as_often_as_it_says(rng):
    covered = 0
    for _ in range(2000):
        low, high = bootstrap_interval(rng.random(150) < 0.35, resamples=1000)
        covered += low <= 0.35 <= high
    assert 0.89 < covered / 2000 < 0.99


def test_mcnemar_by_hand():
    first = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0], bool)
    second = np.array([0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0], bool)
    result = mcnemar(first, second)
    assert (result.only_first_wrong, result.only_second_wrong) == (7, 1)
    # Two-sided: 2 * (C(8, 0) + C(8, 1)) / 2^8.
    assert result.p_value == pytest.approx(2 * (comb(8, 0) + comb(8, 1)) / 2**8)


@pytest.mark.parametrize(("n", "rates"), [(30, (0.2, 0.3)), (400, (0.3, 0.35)), (50_000, (0.3, 0.31))])
def test_mcnemar_is_scipys_binomial_test(rng, n, rates):
    first, second = rng.random(n) < rates[0], rng.random(n) < rates[1]
    result = mcnemar(first, second)
    only = int((first & ~second).sum()), int((second & ~first).sum())
    assert (result.only_first_wrong, result.only_second_wrong) == only
    assert result.p_value == pytest.approx(binomtest(only[0], sum(only)).pvalue, rel=1e-9)
    assert mcnemar(second, first).p_value == result.p_value


def test_systems_that_never_differ_are_not_told_apart():
    same = np.array([True, False, True])
    assert mcnemar(same, same).p_value == 1
    assert mcnemar(np.array([True, False]), np.array([False, True])).p_value == 1


def test_mcnemar_of_posteriors_matches_images_by_id(make_posteriors, rng):
    first, second = make_posteriors(60), make_posteriors(60)
    second.labels[:] = first.labels
    expected = mcnemar(wrong(first, 1), wrong(second, 1))
    shuffled = second.rows(tuple(second.ids[i] for i in rng.permutation(60)))
    assert mcnemar_of(first, shuffled, 1) == expected


def test_an_error_rate_reads_in_per_cent(make_posteriors):
    rate = error_rate(make_posteriors(80), 1)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert str(rate) == f"{100 * rate.rate:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
