"""Isotropic rescaling: the smallest side becomes S (training) or Q (test)."""

from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling, fromarray

from verydeep.basics.errors import UserError
from verydeep.images.decode import MAX_PIXELS

FILTERS = {
    "bilinear": Resampling.BILINEAR,
    "bicubic": Resampling.BICUBIC,
    "box": Resampling.BOX,
    "lanczos": Resampling.LANCZOS,
}
REACH = 4  # source pixels around a region that smoothing, interpolation and color upsampling may look at


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


def too_long(height: int, width: int, side: int) -> str:
    """Say why a picture cannot be rescaled as a whole: 1 x 60,000 pixels become 256 x 15,360,000; else nothing."""
    rows, columns = rescaled_size(height, width, side)
    if rows * columns <= MAX_PIXELS:
        return ""
    return (
        f"{width} x {height} pixels become {columns} x {rows} at a smallest side of {side}, more than the limit of "
        f"{MAX_PIXELS:,}; cut the picture, or take a smaller scale"
    )


def rescale(image: NDArray[np.uint8], side: int, interpolation: str = "bilinear") -> NDArray[np.uint8]:
    """Rescale an image, (height, width, 3), so that its smallest side is S or Q (sections 3.1, 3.2), up or down.

    Shrinking is antialiased: the filter covers as many source pixels as one output pixel stands for. The paper does not
    say which interpolation it used; see `FILTERS`.
    """
    height, width = rescaled_size(image.shape[0], image.shape[1], side)
    return rescaled_crop(image, side, 0, 0, height, width, interpolation)


def rescaled_crop(
    image: NDArray[np.uint8],
    side: int,
    top: int,
    left: int,
    height: int,
    width: int,
    interpolation: str = "bilinear",
) -> NDArray[np.uint8]:
    """Return `rescale(image, side)[top : top + height, left : left + width]`, usually without computing the rest.

    UserError if the region is not inside the rescaled image.
    """
    if interpolation not in FILTERS:
        raise UserError(f"interpolation {interpolation!r}: expected one of {', '.join(FILTERS)}")
    rows, columns = rescaled_size(image.shape[0], image.shape[1], side)
    if reason := too_long(image.shape[0], image.shape[1], side):
        raise UserError(reason)
    if top < 0 or left < 0 or top + height > rows or left + width > columns:
        raise UserError(
            f"a crop of {height} x {width} at ({top}, {left}) does not fit into an image of {rows} x {columns}"
        )
    step = (image.shape[0] / rows, image.shape[1] / columns)
    if interpolation == "bilinear" and min(step) < 2:
        return linear_crop(image, step, top, left, height, width)
    # Columns first, always: of very tall images Pillow's newer versions would rescale the rows first, which rounds
    # differently and cannot be done while an image is read from top to bottom.
    wide = fromarray(image).resize((columns, image.shape[0]), FILTERS[interpolation])
    whole = wide.resize((columns, rows), FILTERS[interpolation])
    return np.array(whole.crop((left, top, left + width, top + height)))


def linear_crop(
    image: NDArray[np.uint8], step: tuple[float, float], top: int, left: int, height: int, width: int
) -> NDArray[np.uint8]:
    """Rescale bilinearly and return a region of the result, given in rescaled pixels, computing little more.

    `step` are source pixels per rescaled pixel, down and across; about 2 at most. An antialiasing filter is a triangle
    whose half-width is the step. For steps from 1 to 2 that is nearly (at 1 and 2 exactly) a linear interpolation of
    the image smoothed by (w, 1 - 2w, w), where 1 - 2w = 1 / step, the triangle's peak. It is not Pillow's filter: on
    the 168 of 200 ILSVRC photographs that go to a smallest side of 256 by such a step the mean difference from Pillow's
    bilinear is 0.9 grey levels (3.0 in the worst photograph, 64 in single pixels), and posteriors of networks trained
    with the one move by up to 0.005 under the other.
    """
    # OpenCV's rescaling starts at the first pixel, so the rows and columns before the region are computed, too.
    first = [max(int(start * s) - REACH, 0) for start, s in zip((top, left), step, strict=True)]
    last = [ceil(end * s) + REACH for end, s in zip((top + height, left + width), step, strict=True)]
    source = image[: last[0], : last[1]]
    if all(round(extent / s) == extent for extent, s in zip(source.shape, step, strict=False)):
        source = image  # OpenCV copies, whatever the scale, where rounding makes the size stay the same
    if max(step) > 1:
        smooth = np.empty_like(source)
        down, across = (smoothing(s) for s in step)
        part = (slice(first[0], None), slice(first[1], None))
        cv2.sepFilter2D(source[part], -1, across, down, dst=smooth[part], borderType=cv2.BORDER_REPLICATE)
        source = smooth
    scaled = cv2.resize(source, None, fx=1 / step[1], fy=1 / step[0], interpolation=cv2.INTER_LINEAR)
    return np.array(scaled[top : top + height, left : left + width], np.uint8)


def smoothing(step: float) -> NDArray[np.float32]:
    """Return the three weights that smooth an image before it is interpolated with a step of 1 to 2."""
    side = max(0.0, 1 - 1 / step) / 2
    return np.array([side, 1 - 2 * side, side], np.float32)
