"""What a trained network's descriptor is measured against: random weights, raw pixels, gradient histograms."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.machine import cores
from verydeep.basics.threads import in_threads
from verydeep.basics.version import VERSION
from verydeep.datasets.dataset import Dataset
from verydeep.nets.vgg import VGG, with_random_weights
from verydeep.transfer.store import Rows

BASELINES = ("random", "pixels", "hog")
PIXELS_SIDE, HOG_SIDE = 32, 128


def random_weights(net: VGG, seed: int = 0) -> VGG:
    """Return a network of the same architecture and preprocessing whose weights are random (He et al. 2015).

    He's initialization, because it carries the signal through any depth: of the schemes here it is the strongest
    opponent.
    """
    return with_random_weights(net.config, "he", seed).eval()


class PicturePart:
    """A descriptor that needs no network: a function of the picture squeezed to a square.

    Parameters
    ----------
    kind : {"pixels", "hog"}
        `pixels`: the 32 x 32 RGB values in [0, 1], 3,072 numbers. `hog`: histograms of gradients (Dalal & Triggs
        2005) of the 128 x 128 gray picture, 9 orientations, cells of 16 x 16 pixels in overlapping blocks of 2 x 2:
        1,764 numbers; needs scikit-image.
    """

    def __init__(self, kind: str) -> None:
        self.name = kind
        self._describe, self.width = _function(kind)

    @property
    def identity(self) -> dict[str, Any]:
        """All that the values depend on beside the picture."""
        return {"baseline": self.name, "created_by": f"verydeep {VERSION}"}

    def rows(self, dataset: Dataset) -> Iterator[tuple[list[int], Rows]]:
        """Yield indices of pictures and their descriptors."""
        described = in_threads(lambda index: self._describe(dataset.image(index)), range(len(dataset)), cores())
        for index, values in enumerate(described):
            yield [index], values[None]


def _function(kind: str) -> tuple[Callable[[NDArray[np.uint8]], Rows], int]:
    if kind == "pixels":
        return lambda picture: np.float32(_square(picture, PIXELS_SIDE).ravel() / 255), 3 * PIXELS_SIDE**2
    try:
        from skimage.feature import hog
    except ImportError:
        raise UserError("baseline hog needs scikit-image: pip install 'verydeep[study]'") from None

    def describe(picture: NDArray[np.uint8]) -> Rows:
        gray = _square(picture, HOG_SIDE) @ np.array([0.299, 0.587, 0.114]) / 255
        return np.asarray(hog(gray, 9, (16, 16), (2, 2), block_norm="L2-Hys"), np.float32)

    blocks = HOG_SIDE // 16 - 1
    return describe, 9 * 4 * blocks**2


def _square(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
