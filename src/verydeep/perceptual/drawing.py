"""Where two pictures differ, drawn."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from verydeep.basics.files import write_aside

Picture = NDArray[np.uint8]


def draw_difference(path: Path, picture: Picture, reference: Picture, places: NDArray[np.float32], title: str) -> None:
    """Write both pictures, and the distances of their places, H x W, over the first in grays; PNG, JPEG, PDF or SVG."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(12, 12 / 3 * height / width + 0.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    left.imshow(picture)
    middle.imshow(reference)
    right.imshow(picture.mean(axis=2), cmap="gray", vmin=-128, vmax=255)
    heat = right.imshow(places, cmap="turbo", alpha=0.6, vmin=0)
    figure.colorbar(heat, ax=right, label="LPIPS of the place", fraction=0.04, pad=0.02)
    for axes, words in ((left, "picture"), (middle, "reference"), (right, title)):
        axes.set(xticks=[], yticks=[], title=words)
    with write_aside(path) as aside:
        figure.savefig(aside)
