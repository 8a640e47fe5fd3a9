"""Color of a data set: mean and principal components of its RGB pixels, and the random shift made of them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verydeep.basics.errors import UserError

ColorForm = Literal["sqrt", "literal", "none"]
Triple = tuple[float, float, float]

_AT_ONCE = 1 << 20  # pixels in float64: a large image takes little more than itself


@dataclass(frozen=True)
class ColorStatistics:
    """Mean and principal components of RGB pixels, in grey levels 0 to 255."""

    mean: Triple
    eigenvalues: Triple  # of the 3 x 3 covariance, in squared grey levels, largest first
    # Rows are red, green, blue; column i is the unit eigenvector of eigenvalue i, its largest component positive.
    eigenvectors: tuple[Triple, Triple, Triple]

    @property
    def std(self) -> Triple:
        """Standard deviations of red, green and blue, in grey levels."""
        variances = (np.array(self.eigenvectors) ** 2) @ np.array(self.eigenvalues)
        return _triple(np.sqrt(variances))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ColorStatistics":
        """Make statistics of what `to_dict` gave, also after JSON has turned tuples into lists."""
        red, green, blue = map(_triple, fields["eigenvectors"])
        return cls(_triple(fields["mean"]), _triple(fields["eigenvalues"]), (red, green, blue))


def moments(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the sums over an image's pixels, uint8 of shape (height, width, 3): of 1, R, G, B and of their products.

    (4, 4), symmetric; exact, as sums of integers below 2**53 are.
    """
    sums = np.zeros((4, 4))
    pixels = image.reshape(-1, 3)
    for first in range(0, len(pixels), _AT_ONCE):
        part = pixels[first : first + _AT_ONCE].astype(np.float64)
        sums[0, 0] += len(part)
        sums[0, 1:] += part.sum(0)
        sums[1:, 1:] += part.T @ part
    sums[1:, 0] = sums[0, 1:]
    return sums


def measure(images: Iterable[NDArray[np.float64]]) -> ColorStatistics:
    """Return mean and covariance over all pixels of images, each as its `moments`.

    Every pixel counts the same, so large images weigh more. UserError if there are no images.
    """
    sums = sum(images, np.zeros((4, 4)))
    if not sums[0, 0]:
        raise UserError("no images to measure the color of: at least one expected")
    mean = sums[0, 1:] / sums[0, 0]
    values, vectors = np.linalg.eigh(sums[1:, 1:] / sums[0, 0] - np.outer(mean, mean))
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
    red, green, blue = map(_triple, vectors[:, ::-1])
    return ColorStatistics(_triple(mean), _triple(values[::-1].clip(0)), (red, green, blue))


def shift(stats: ColorStatistics, normals: ArrayLike, form: ColorForm, scale: float = 0.1) -> NDArray[np.float32]:
    """Return the color shift that standard normal numbers (..., 3) stand for, in grey levels of R, G, B.

    Krizhevsky et al. (2012, section 4.1) write eigenvectors @ (a * eigenvalues) with a ~ N(0, 0.1), which depends
    on the scale of the pixels; the code they published multiplies by the square roots instead. `form` "sqrt":
    eigenvectors @ (sqrt(eigenvalues) * scale * normals). "literal": the formula as written, for pixels in [0, 1], times
    255. "none": no shift.
    """
    if form == "none":
        return np.zeros(np.shape(normals), np.float32)
    values = np.array(stats.eigenvalues)
    if form == "sqrt":
        lengths = np.sqrt(values)
    elif form == "literal":
        lengths = values / 255  # an eigenvalue on [0, 1] is values / 255**2; back in grey levels, times 255
    else:
        raise UserError(f"color shift {form!r}: expected sqrt, literal or none")
    offsets = (np.asarray(normals) * lengths * scale) @ np.array(stats.eigenvectors).T
    return np.asarray(offsets, np.float32)


def _triple(numbers: Iterable[float]) -> Triple:
    first, second, third = map(float, numbers)
    return first, second, third
