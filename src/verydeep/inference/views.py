"""The views of a picture that a protocol shows to the network: whole or crops, each with its flip."""

from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.images.crops import center, corners, grid, squares
from verydeep.images.rescale import rescale, rescaled_crop, rescaled_size
from verydeep.inference.protocol import Protocol
from verydeep.nets.network import Network

Picture = NDArray[np.uint8]


def view_size(part: Protocol, crop: int, height: int, width: int) -> tuple[int, int]:
    """Return (height, width) in pixels of the views of a picture whose original size is given."""
    whole = part.kind in ("dense", "descriptor")
    return rescaled_size(height, width, part.scales[0]) if whole else (crop, crop)


def prepare(part: Protocol, net: Network, original: Picture) -> Picture:
    """Rescale a picture, upright RGB, to the part's scale; for ``center`` compute the central crop alone."""
    scale, crop = part.scales[0], net.image_size
    interpolation = cast(Literal["bilinear"], net.preprocessing.interpolation)
    if part.kind != "center":
        return rescale(original, scale, interpolation)
    top, left = center(*rescaled_size(original.shape[0], original.shape[1], scale), crop)
    return rescaled_crop(original, scale, top, left, crop, crop, interpolation)


def views(part: Protocol, crop: int, picture: Picture, interpolation: str = "bilinear") -> list[Picture]:
    """Return the views of a picture from `prepare`, as many as `VIEWS` says.

    The grid of 5x5 crops reaches all four edges; each crop is followed by its flip (paper section 3.2). All are of one
    shape, and windows onto the picture, no copies, but for squares that are rescaled.
    """
    if part.kind == "center":
        return [picture]
    if part.kind == "dense":
        windows = [picture]
    elif part.kind == "crops":
        windows = [
            picture[top : top + crop, left : left + crop]
            for top, left in grid(picture.shape[0], picture.shape[1], crop)
        ]
    elif part.kind == "ten-crops":
        windows = _corner_crops(_squares(picture)[1], crop)
    elif part.kind == "square-crops":
        every = _squares(picture)
        windows = [window for square in every for window in _corner_crops(square, crop)]
        windows += [rescale(square, crop, interpolation) for square in every]
    else:
        raise UserError(f"protocol {part} has no views whose posteriors are averaged")
    return [view for window in windows for view in (window, window[:, ::-1])]


def _squares(picture: Picture) -> list[Picture]:
    """Return the left, the central and the right square of a picture, or the upper, the central and the lower one."""
    height, width = picture.shape[:2]
    side = min(height, width)
    return [picture[top : top + side, left : left + side] for top, left in squares(height, width)]


def _corner_crops(square: Picture, crop: int) -> list[Picture]:
    side = len(square)
    return [square[top : top + crop, left : left + crop] for top, left in corners(side, side, crop)]


VIEWS = {"center": 1, "dense": 2, "crops": 50, "descriptor": 2, "ten-crops": 10, "square-crops": 36}
"""Views of a picture at each scale that a protocol of each kind runs the network on."""
