import json

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.images.color import ColorStatistics, measure, moments, shift


@pytest.fixture
def images(rng, draw):
    return [draw(rng, *rng.integers(10, 60, 2)) for _ in range(6)]


def test_measure_is_the_covariance_of_all_pixels(images):
    stats = measure(map(moments, images))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    np.testing.assert_allclose(stats.mean, pixels.mean(0))
    np.testing.assert_allclose(stats.std, pixels.std(0))
    covariance = np.cov(pixels.T, bias=True)
    vectors, values = np.array(stats.eigenvectors), np.array(stats.eigenvalues)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, atol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert stats.eigenvalues[0] >= stats.eigenvalues[1] >= stats.eigenvalues[2] >= 0
    assert (vectors[np.abs(vectors).argmax(0), range(3)] > 0).all()


def test_measure_of_one_color_and_of_nothing():
    stats = measure([moments(np.full((4, 5, 3), 7, np.uint8))])
    assert stats.mean == (7, 7, 7)
    assert stats.eigenvalues == (0, 0, 0)
    with pytest.raises(UserError, match="no images"):
        measure([])


def test_statistics_survive_json(images):
    stats = measure(map(moments, images))
    assert ColorStatistics.from_dict(json.loads(json.dumps(stats.to_dict()))) == stats


def test_shift_forms(images, rng):
    stats = measure(map(moments, images))
    vectors, values = np.array(stats.eigenvectors), np.array(stats.eigenvalues)
    normals = rng.standard_normal((50, 3))
    for row in normals:
        # Both forms as the formulas stand, the literal one on pixels and covariance of [0, 1].
        np.testing.assert_allclose(
            shift(stats, row, "sqrt"), vectors @ (np.sqrt(values) * 0.1 * row), rtol=1e-5, atol=1e-5
        )
        literal = vectors @ (values / 255**2 * 0.1 * row) * 255
        np.testing.assert_allclose(shift(stats, row, "literal"), literal, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(shift(stats, normals, "none"), np.zeros((50, 3)))
    np.testing.assert_allclose(shift(stats, normals, "sqrt")[7], shift(stats, normals[7], "sqrt"), rtol=1e-6)
    assert shift(stats, normals, "sqrt", scale=0.3).dtype == np.float32
    np.testing.assert_allclose(
        shift(stats, normals, "sqrt", 0.3), 3 * shift(stats, normals, "sqrt"), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(UserError, match="expected sqrt, literal or none"):
        shift(stats, normals, "square")


def test_sizes_known_for_imagenet():
    """The widely used eigenvalues (on [0, 1]) give the standard deviations that are known for both forms."""
    basis = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    values = tuple(value * 255**2 for value in (0.2175, 0.0188, 0.0045))
    stats = ColorStatistics((0.0, 0.0, 0.0), values, basis)
    np.testing.assert_allclose(shift(stats, (1, 1, 1), "sqrt"), (11.9, 3.5, 1.7), atol=0.05)
    np.testing.assert_allclose(shift(stats, (1, 1, 1), "literal"), (5.5, 0.48, 0.11), atol=0.05)
