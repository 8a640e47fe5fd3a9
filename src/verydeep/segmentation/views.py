"""Training views of pictures with masks: both are rescaled, cropped and mirrored alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verydeep.datasets.masks import IGNORED, SegmentedDataset
from verydeep.images.rescale import rescaled_size
from verydeep.images.view import View, place_mask


def side_at(height: int, width: int, factor: float) -> int:
    """Return the smallest side of a picture, px, whose sides are multiplied by a factor."""
    return max(1, round(min(height, width) * factor))


@dataclass(frozen=True)
class MaskViews:
    """Draws views of a data set's pictures, and as their answer the label of each pixel.

    Parameters
    ----------
    dataset : SegmentedDataset
        Pictures and masks.
    crop : (int, int)
        Rows and columns of a view.
    factors : (float, float)
        Least and greatest factor on a picture's sides, between which each view's is drawn, log-uniform.
    flip : bool
        Whether half of the views are mirrored.
    """

    dataset: SegmentedDataset
    crop: tuple[int, int]
    factors: tuple[float, float]
    flip: bool

    @property
    def numbers(self) -> int:
        """One for each pixel."""
        return self.crop[0] * self.crop[1]

    def __call__(
        self, index: int, height: int, width: int, rng: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        """Return a view and the labels of its pixels, row after row; `IGNORED` where there is no picture."""
        low, high = np.log(self.factors)
        side = side_at(height, width, float(np.exp(rng.uniform(low, high))))
        rooms = (max(a - b, 0) for a, b in zip(rescaled_size(height, width, side), self.crop, strict=True))
        top, left = (int(rng.integers(room, endpoint=True)) for room in rooms)
        mirrored = rng.random() < 0.5
        a, b, c = rng.standard_normal(3).tolist()
        view = View(side, top, left, self.flip and mirrored, (a, b, c))
        return view, place_mask(self.dataset.mask(index), view, self.crop, IGNORED).astype(np.float32).ravel()
