"""Where crops lie: the center, and the regular grid of multi-crop testing."""

import numpy as np

from verydeep.basics.errors import UserError


def center(height: int, width: int, size: int) -> tuple[int, int]:
    """Return (top, left) of the central `size` x `size` crop, rounded down.

    Examples
    --------
    >>> center(256, 341, 224)
    (16, 58)
    """
    _check(height, width, size)
    return (height - size) // 2, (width - size) // 2


def grid(height: int, width: int, size: int, n: int = 5) -> list[tuple[int, int]]:
    """Return (top, left) of an n x n grid of crops from edge to edge, row by row.

    The positions are round(linspace(0, side - size, n)): the last crop ends at the far edge (section 3.2 of the
    paper uses 5 x 5, at each of three scales, with flips).

    Examples
    --------
    >>> grid(256, 352, 224, n=3)[:4]
    [(0, 0), (0, 64), (0, 128), (16, 0)]
    """
    _check(height, width, size)
    tops, lefts = (np.rint(np.linspace(0, side - size, n)).astype(int).tolist() for side in (height, width))
    return [(top, left) for top in tops for left in lefts]


def corners(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Return (top, left) of the crops in the four corners and of the central one (Krizhevsky et al. 2012).

    Examples
    --------
    >>> corners(256, 256, 224)
    [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    """
    middle = center(height, width, size)
    return [(top, left) for top in (0, height - size) for left in (0, width - size)] + [middle]


def squares(height: int, width: int) -> list[tuple[int, int]]:
    """Return (top, left) of the largest squares at both ends and in the middle (Szegedy et al. 2014).

    Examples
    --------
    >>> squares(256, 341), squares(300, 256)
    ([(0, 0), (0, 42), (0, 85)], [(0, 0), (22, 0), (44, 0)])
    """
    side = min(height, width)
    top, left = height - side, width - side
    return [(0, 0), center(height, width, side), (top, left)]


def _check(height: int, width: int, size: int) -> None:
    if size > min(height, width):
        raise UserError(f"a crop of {size} does not fit into an image of {height} x {width}: rescale to {size} or more")
