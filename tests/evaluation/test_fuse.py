"""The mean of posteriors, image by image, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.evaluation.fuse import fuse


def _same_images(make_posteriors, count, n=25):
    parts = [make_posteriors(n, protocol=f"dense@{256 + i}", data="set") for i in range(count)]
    return [replace(part, labels=parts[0].labels) for part in parts]


def test_the_mean_is_that_of_float64(make_posteriors):
    parts = _same_images(make_posteriors, 7)
    mean = fuse(parts)
    for i in range(len(mean)):
        for k in range(len(mean.classes)):
            expected = sum(float(part.probabilities[i, k]) for part in parts) / 7
            assert mean.probabilities[i, k] == np.float32(expected)
    np.testing.assert_array_equal(mean.labels, parts[0].labels)


def test_rows_in_another_order_are_matched_by_id(make_posteriors, rng):
    first, second = _same_images(make_posteriors, 2)
    expected = fuse([first, second])
    shuffled = second.rows(tuple(second.ids[i] for i in rng.permutation(len(second))))
    assert shuffled.ids != second.ids
    found = fuse([first, shuffled])
    assert found.ids == first.ids
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_metadata_keeps_what_is_common_and_what_was_fused(make_posteriors):
    first, second = _same_images(make_posteriors, 2)
    mean = fuse([first, second])
    assert mean.metadata["data"] == "set"
    assert "protocol" not in mean.metadata
    assert mean.metadata["fused"] == [first.metadata, second.metadata]
    again = fuse([mean, mean])
    assert again.metadata["fused"] == [mean.metadata, mean.metadata]


def test_one_file_is_its_own_mean(make_posteriors):
    (only,) = _same_images(make_posteriors, 1)
    mean = fuse([only])
    np.testing.assert_array_equal(mean.probabilities, only.probabilities)
    assert mean.metadata == only.metadata


def test_nothing_cannot_be_fused():
    with pytest.raises(UserError, match="nothing to fuse"):
        fuse([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: {"ids": (*p.ids[:-1], "other")},
            "differ in images: 1 only in the one, 1 only in the other .*'other'",
        ),
        (lambda p: {"classes": (*p.classes[:-1], "dog")}, "differ in classes: 1 only in the one.*'dog'"),
        (lambda p: {"classes": p.classes[::-1]}, "differ in classes: the same names in another order"),
        (lambda p: {"labels": (p.labels + 1) % 8}, "differ in the labels of 25 images: image-0 is 'class"),
    ],
)
def test_what_differs_is_said(make_posteriors, change, message):
    first, second = _same_images(make_posteriors, 2)
    with pytest.raises(UserError, match=f"^b.parquet and a.parquet {message}") as caught:
        fuse([first, replace(second, **change(second))], ["a.parquet", "b.parquet"])
    assert "\n" not in str(caught.value)


def test_more_images_in_one_are_refused(make_posteriors):
    first, _ = _same_images(make_posteriors, 2)
    with pytest.raises(UserError, match="0 only in the one, 5 only in the other"):
        fuse([first, first.rows(first.ids[:-5])])
