"""Training views that show the object, and the answer to each (paper: appendix A.1)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from verydeep.datasets.dataset import Dataset
from verydeep.images.rescale import rescaled_size
from verydeep.images.view import View, draw_view
from verydeep.localization.boxes import Boxes, Frame, as_array, encode, intersection, mirror

REDRAWS = 20
"""Places tried before one is drawn among those that show the most of the object."""


def visible_share(boxes: Boxes, size: float) -> NDArray[np.float64]:
    """Return how much of each object a crop shows, as a share of the most that a crop of this size could show.

    Of an object larger than the crop no crop shows all, so its whole area would be too much to ask. Boxes are in pixels
    of the crop.

    Examples
    --------
    >>> visible_share(np.array([[0, 0, 10, 10], [-5, 0, 5, 10], [-50, 0, 150, 50]]), 100).tolist()
    [1.0, 0.5, 1.0]
    """
    sides = np.minimum(boxes[..., 2:] - boxes[..., :2], size)
    seen = intersection(boxes.astype(np.float64), np.array([0.0, 0.0, size, size]))
    return np.asarray(seen / np.maximum(sides[..., 0] * sides[..., 1], 1e-9))


@dataclass(frozen=True)
class ObjectViews:
    """Draws views of a data set's images that show enough of an object.

    Of several objects the view's answer is the one of which it shows the most.

    Parameters
    ----------
    dataset : Dataset
        Every image with at least one box, inside it.
    crop : int
        Side of the crops in pixels.
    scales : (int, int)
        Least and greatest S.
    flip : bool
        Whether half of the views are mirrored.
    least_visible : float
        Least `visible_share`, in [0, 1]. A place that shows less is drawn anew; after `REDRAWS` in vain it is drawn
        uniformly among the places that show as much of the first object as any.
    numbers : int
        Four, those of a box.
    """

    dataset: Dataset
    crop: int
    scales: tuple[int, int]
    flip: bool
    least_visible: float
    numbers: int = 4

    def __call__(
        self, index: int, height: int, width: int, rng: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        """Return a view, and center x, center y, width and height of the object's box, divided by the crop's side."""
        boxes = as_array(self.dataset.samples[index].boxes)
        view = draw_view(height, width, self.crop, self.scales, rng, self.flip)
        rows, columns = rescaled_size(height, width, view.side)
        for _ in range(REDRAWS):
            inside, share = self._look(boxes, height, width, view)
            if share.max() >= self.least_visible:
                break
            top, left = (int(rng.integers(side - self.crop, endpoint=True)) for side in (rows, columns))
            view = replace(view, top=top, left=left)
        else:
            whole = Frame(height, width, view.side).to_window(boxes[0])
            top = self._showing_most(whole[1], whole[3], rows, rng)
            view = replace(view, top=top, left=self._showing_most(whole[0], whole[2], columns, rng))
            inside, share = self._look(boxes, height, width, view)
        box = inside[share.argmax()]
        return view, encode(mirror(box, self.crop) if view.flip else box, self.crop).astype(np.float32)

    def _look(self, boxes: Boxes, height: int, width: int, view: View) -> tuple[Boxes, NDArray[np.float64]]:
        """Return the boxes in pixels of the view before any flip, and how much of each it shows."""
        inside = Frame(height, width, view.side, view.top, view.left).to_window(boxes)
        return inside, visible_share(inside, self.crop)

    def _showing_most(self, low: float, high: float, side: int, rng: np.random.Generator) -> int:
        """Draw a crop's first row or column so that it shows all of [low, high], or lies in it where that is longer."""
        ends = sorted((high - self.crop, low))
        first, last = (int(np.clip(round(end), 0, side - self.crop)) for end in ends)
        return int(rng.integers(first, last, endpoint=True))
