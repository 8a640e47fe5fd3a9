"""The score map of a class, drawn over the picture it was computed from."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside
from verydeep.basics.formatting import chart_text
from verydeep.inference.forward import Forward
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import Picture, prepare
from verydeep.nets.network import Network

SUFFIXES = (".png", ".jpg", ".pdf", ".svg")


def class_map(forward: Forward, original: Picture, scale: int, index: int) -> tuple[Picture, NDArray[np.float32]]:
    """Return the picture at smallest side `scale`, and a class's score map over it, (h, w), before the soft-max.

    Cell (i, j) belongs to the window with its top left corner at pixel (stride i, stride j) of the picture returned.
    """
    picture = prepare(Protocol("dense", (scale,)), forward.net, original)
    return picture, forward.score_maps([picture])[0, index].cpu().numpy()


def spread(scores: NDArray[np.float32], height: int, width: int, net: Network) -> NDArray[np.float64]:
    """Spread a score map over the `height` x `width` pixels of its picture.

    A cell's score stands at the center of its window; between centers it is interpolated linearly, and beyond the
    outermost ones it stays as it is.
    """
    rows = (np.arange(height) + 0.5 - net.window / 2) / net.stride
    columns = (np.arange(width) + 0.5 - net.window / 2) / net.stride
    across = np.stack([np.interp(columns, np.arange(scores.shape[1]), row) for row in scores])
    return np.stack([np.interp(rows, np.arange(scores.shape[0]), column) for column in across.T], axis=1)


def draw_heatmap(path: Path, picture: Picture, scores: NDArray[np.float32], net: Network, name: str) -> None:
    """Write the drawing of `heatmap`: PNG, JPEG, PDF or SVG by its suffix, whole or not at all.

    UserError for another suffix.
    """
    check_suffix(path)
    figure = heatmap(picture, scores, net, name)
    with write_aside(path) as aside:
        figure.savefig(aside, bbox_inches="tight")


def heatmap(picture: Picture, scores: NDArray[np.float32], net: Network, name: str) -> Figure:
    """Draw the score map over its picture, both from `class_map`, with the window of the highest score."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(10 * width / (width + height) + 1.5, 10 * height / (width + height) + 0.5), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # The picture in light grays, the scores in hues: neither is taken for the other.
    axes.imshow(picture.mean(axis=2), cmap="gray", vmin=-128, vmax=255, interpolation="bilinear")
    heat = axes.imshow(spread(scores, height, width, net), cmap="turbo", alpha=0.45)
    figure.colorbar(heat, ax=axes, label="score before soft-max", fraction=0.04, pad=0.02)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    corner = (float(net.stride * column) - 0.5, float(net.stride * row) - 0.5)
    outline = Rectangle(corner, net.window, net.window, fill=False, edgecolor="black", linewidth=1.5, linestyle="--")
    outline.set_label("window of the highest score")
    axes.add_patch(outline)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(f"{chart_text(name)}: score map of {scores.shape[0]} x {scores.shape[1]} cells")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.09), frameon=False, fontsize="small")
    return figure


def check_suffix(path: Path) -> None:
    """Refuse a file name that does not say one of the formats that can be drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: the name must end in {', '.join(SUFFIXES)}")
