"""Pictures on which an export is calibrated and checked: the user's, or two photographs that are always there."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.progress import track
from verydeep.images.files import find_pictures, read_picture
from verydeep.images.rescale import rescaled_crop, rescaled_size
from verydeep.nets.network import Network

Picture = NDArray[np.uint8]

SIZES = ((224, 224), (256, 341), (384, 512))
"""A crop, and two whole pictures of which one has a side that no pool divides; for a window of 224 pixels."""


def sizes(net: Network) -> list[tuple[int, int]]:
    """Return `SIZES` in proportion to the network's window, (height, width) in pixels.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> sizes(create("A", width=1 / 64, image_size=64, fc_width=8))
    [(64, 64), (73, 97), (110, 146)]
    """
    return [(round(h * net.image_size / 224), round(w * net.image_size / 224)) for h, w in SIZES]


def photographs() -> list[Picture]:
    """Return the two photographs that come with scikit-learn, 427 x 640 pixels: a temple and a flower."""
    from sklearn.datasets import load_sample_images

    return [np.asarray(image, np.uint8) for image in load_sample_images().images]


def from_folder(folder: Path, most: int) -> list[Path]:
    """Return the picture files of a folder and below, at most so many, spread evenly over all.

    UserError: no such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of pictures")
    files = find_pictures([folder])
    step = max(1, ceil(len(files) / most))
    return files[::step]


def fit(pictures: Sequence[Picture], height: int, width: int, interpolation: str) -> Picture:
    """Return pictures rescaled to cover height x width and cropped to it around their centers, N x H x W x 3."""
    return np.stack([_fit(picture, height, width, interpolation) for picture in pictures])


def _fit(picture: Picture, height: int, width: int, interpolation: str) -> Picture:
    short = min(picture.shape[:2])
    side = ceil(short * max(height / picture.shape[0], width / picture.shape[1]))
    rows, columns = rescaled_size(picture.shape[0], picture.shape[1], side)
    top, left = (rows - height) // 2, (columns - width) // 2
    return rescaled_crop(picture, side, top, left, height, width, interpolation)


class Calibration:
    """Pictures whose activations decide the ranges of 8-bit numbers, at each of `sizes` in turn.

    Of more than `MOST` in the folder as many are taken, spread evenly.
    """

    MOST = 300

    def __init__(self, folder: Path, net: Network) -> None:
        self.files = from_folder(folder, self.MOST)
        self.net = net

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Picture]:
        """Yield one picture after another, uint8 1 x H x W x 3; BadImageError for one that cannot be read."""
        turns = zip(self.files, cycle(sizes(self.net)))
        for file, size in track(turns, len(self), "calibrating"):
            yield fit([read_picture(file)], *size, self.net.preprocessing.interpolation)
