"""Isotropic rescaling: the smallest side becomes S (training) or Q (test)."""

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling, fromarray

from verydeep.basics.errors import UserError

# Filter and its radius in pixels of the coarser of the two images.
_FILTERS = {
    "bilinear": (Resampling.BILINEAR, 1.0),
    "bicubic": (Resampling.BICUBIC, 2.0),
    "box": (Resampling.BOX, 0.5),
    "lanczos": (Resampling.LANCZOS, 3.0),
}


def rescaled_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return (height, width) after rescaling the smallest side to `side`.

    The long side is long * side / short, rounded half up (the paper does not say): 500 x 375 at 256 is 341 x 256.

    Examples
    --------
    >>> rescaled_size(375, 500, 256), rescaled_size(500, 375, 256)
    ((256, 341), (341, 256))
    """
    if min(height, width, side) < 1:
        raise UserError(f"cannot rescale {height} x {width} pixels to a smallest side of {side}: at least 1 expected")
    short, long = min(height, width), max(height, width)
    other = (2 * long * side + short) // (2 * short)
    return (side, other) if height <= width else (other, side)


def rescale(image: NDArray[np.uint8], side: int, interpolation: str = "bilinear") -> NDArray[np.uint8]:
    """Rescale an image so that its smallest side is `side`, up or down.

    Shrinking is antialiased: the filter covers as many source pixels as one output pixel stands for.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
    side : int
        S or Q of the paper (sections 3.1, 3.2), in pixels.
    interpolation : str
        "bilinear", "bicubic", "box" or "lanczos"; the paper does not say which it used.

    Returns
    -------
    ndarray of uint8
        Of the shape that `rescaled_size` gives, and 3 channels.
    """
    height, width = rescaled_size(image.shape[0], image.shape[1], side)
    return np.array(fromarray(image).resize((width, height), _filter(interpolation)[0]))


def rescaled_crop(
    image: NDArray[np.uint8],
    side: int,
    top: int,
    left: int,
    height: int,
    width: int,
    interpolation: str = "bilinear",
) -> NDArray[np.uint8]:
    """Return `rescale(image, side)[top : top + height, left : left + width]` without rescaling the rest.

    Equal to it up to one grey level (the source region has fractional edges, and rounding may differ).

    Raises
    ------
    UserError
        If the region is not inside the rescaled image.
    """
    resampling, radius = _filter(interpolation)
    whole = rescaled_size(image.shape[0], image.shape[1], side)
    if top < 0 or left < 0 or top + height > whole[0] or left + width > whole[1]:
        raise UserError(
            f"a crop of {height} x {width} at ({top}, {left}) does not fit into an image of {whole[0]} x {whole[1]}"
        )
    y0, y1, row0, row1 = _source(top, height, whole[0], image.shape[0], radius)
    x0, x1, column0, column1 = _source(left, width, whole[1], image.shape[1], radius)
    source = fromarray(image[row0:row1, column0:column1])
    box = (x0 - column0, y0 - row0, x1 - column0, y1 - row0)
    return np.array(source.resize((width, height), resampling, box))


def _filter(interpolation: str) -> tuple[Resampling, float]:
    if interpolation not in _FILTERS:
        raise UserError(f"interpolation {interpolation!r}: expected one of {', '.join(_FILTERS)}")
    return _FILTERS[interpolation]


def _source(start: int, length: int, rescaled: int, source: int, radius: float) -> tuple[float, float, int, int]:
    """Return the edges of the region in source pixels, and the range of source pixels the filter reads."""
    scale = source / rescaled
    low, high = start * scale, min((start + length) * scale, source)
    reach = radius * max(scale, 1.0)
    return low, high, max(floor(low - reach), 0), min(ceil(high + reach), source)
