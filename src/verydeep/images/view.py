"""One training view of an image: scale, place, flip and color, drawn at random (section 3.1 of the paper)."""

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import BadImageError, UserError
from verydeep.images.decode import Header, decode_part
from verydeep.images.rescale import REACH, linear_crop, rescaled_crop, rescaled_size, too_long


@dataclass(frozen=True, slots=True)
class View:
    """What was drawn for one use of one image."""

    side: int  # S, the smallest side after rescaling
    top: int  # corner of the crop in the rescaled image
    left: int
    flip: bool  # whether the crop is mirrored left to right
    normals: tuple[float, float, float]  # standard normal numbers for the color shift


def draw_view(
    height: int, width: int, crop: int, scales: tuple[int, int], generator: np.random.Generator, flip: bool = True
) -> View:
    """Draw a view of an image of `height` x `width` pixels; UserError if the crop is larger than the smallest side.

    The side is uniform over the integers from scales[0] to scales[1], both included; the place is uniform over
    all crops that fit; flips have probability 1/2 (where `flip` allows them).
    """
    least, most = scales
    if not crop <= least <= most:
        raise UserError(f"scales [{least};{most}] with crops of {crop}: expected crop <= Smin <= Smax")
    side = int(generator.integers(least, most, endpoint=True))
    rows, columns = rescaled_size(height, width, side)
    top = int(generator.integers(rows - crop, endpoint=True))
    left = int(generator.integers(columns - crop, endpoint=True))
    mirrored = generator.random() < 0.5
    a, b, c = generator.standard_normal(3).tolist()
    return View(side, top, left, flip and mirrored, (a, b, c))


def apply_view(image: NDArray[np.uint8], view: View, crop: int, interpolation: str = "bilinear") -> NDArray[np.uint8]:
    """Return the view's pixels, uint8 of shape (crop, crop, 3), without the color shift."""
    return _flipped(rescaled_crop(image, view.side, view.top, view.left, crop, crop, interpolation), view)


def decode_view(
    data: bytes, header: Header, view: View, crop: int, interpolation: str = "bilinear"
) -> NDArray[np.uint8]:
    """Return `apply_view` of the decoded file, decoding no more of it than the view needs.

    The same to the grey level, but for JPEG files at least twice as large as the view asks for: they are reduced
    by a power of two while they are decoded, which differs by less than 2 grey levels on average. Interpolations
    other than bilinear reach further and have the whole file decoded.
    """
    if reason := too_long(header.height, header.width, view.side):
        raise BadImageError(header.name, reason)
    rows, columns = rescaled_size(header.height, header.width, view.side)
    down, across = header.height / rows, header.width / columns
    # libjpeg reduces by 8 at most, and the rest is to be less than 2.
    if min(down, across) >= 16 or interpolation != "bilinear":
        return apply_view(decode_part(data, header, header.height)[0], view, crop, interpolation)
    reduction = max(n for n in (1, 2, 4, 8) if n == 1 or n <= min(down, across))
    bottom = min(ceil((view.top + crop) * down) + REACH * reduction, header.height)
    image, reduced = decode_part(data, header, bottom, reduction)
    if reduced != reduction:
        return apply_view(image, view, crop)
    step = (down / reduction, across / reduction)
    return _flipped(linear_crop(image, step, view.top, view.left, crop, crop), view)


def place_view(
    image: NDArray[np.uint8],
    view: View,
    shape: tuple[int, int],
    fill: tuple[int, int, int],
    interpolation: str = "bilinear",
) -> NDArray[np.uint8]:
    """Return the view's pixels, uint8 (*shape, 3): what the picture has less of the crop, at its end, is `fill`."""
    rows, columns = rescaled_size(image.shape[0], image.shape[1], view.side)
    height, width = min(shape[0], rows), min(shape[1], columns)
    placed = np.full((*shape, 3), fill, np.uint8)
    part = rescaled_crop(image, view.side, view.top, view.left, height, width, interpolation)
    placed[:height, :width] = _flipped(part, view)
    return placed


def place_mask(mask: NDArray[np.uint8], view: View, shape: tuple[int, int], fill: int) -> NDArray[np.uint8]:
    """Return the labels that belong to `place_view`'s pixels, each the one at the pixel's center, uint8 `shape`."""
    rows, columns = rescaled_size(mask.shape[0], mask.shape[1], view.side)
    height, width = min(shape[0], rows), min(shape[1], columns)
    down = ((2 * np.arange(view.top, view.top + height) + 1) * mask.shape[0]) // (2 * rows)
    across = ((2 * np.arange(view.left, view.left + width) + 1) * mask.shape[1]) // (2 * columns)
    placed = np.full(shape, fill, np.uint8)
    placed[:height, :width] = mask[down][:, across[::-1] if view.flip else across]
    return placed


def _flipped(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    return np.asarray(cv2.flip(pixels, 1), np.uint8) if view.flip else pixels
