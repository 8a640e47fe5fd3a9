"""Places of pictures, drawn: where two differ, what speaks for a class."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from verydeep.basics.files import write_aside
from verydeep.basics.formatting import chart_text

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


def draw_places(path: Path, picture: Picture, places: NDArray[np.float32], title: str) -> None:
    """Write a picture, and beside it in grays, with what its places, H x W, say: red above 0, blue below if any is."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(10, 10 / 2 * height / width + 0.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(picture)
    right.imshow(picture.mean(axis=2), cmap="gray", vmin=-128, vmax=255)
    most = float(np.quantile(np.abs(places), 0.999)) or 1.0  # single pixels would leave all others pale
    signed = bool((places < 0).any())
    heat = right.imshow(places, cmap="RdBu_r" if signed else "Reds", alpha=0.7, vmin=-most if signed else 0, vmax=most)
    figure.colorbar(heat, ax=right, fraction=0.04, pad=0.02)
    for axes, words in ((left, "picture"), (right, chart_text(title))):
        axes.set(xticks=[], yticks=[], title=words)
    with write_aside(path) as aside:
        figure.savefig(aside)
