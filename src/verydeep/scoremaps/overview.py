"""A picture to look at: the map's classes in color over the image, with a legend."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside
from verydeep.basics.formatting import chart_text
from verydeep.images.rescale_rows import Source
from verydeep.scoremaps.rasters import best_class
from verydeep.scoremaps.score_map import ScoreMap

SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
_SIDE = 1600  # pixels of the overview's long side
_NAMED = 12  # classes in the legend; the others share a gray


def draw_overview(found: ScoreMap, source: Source, path: Path, threshold: float = 0.5) -> None:
    """Draw the first scale's best classes over the image, in small, where their value is at least `threshold`.

    PNG, JPEG, PDF or SVG by its suffix; UserError for another one.
    """
    check_suffix(path)
    level = found.levels[0]
    best, value = best_class(level)
    shown = np.nan_to_num(value, nan=-np.inf) >= threshold
    indices, counts = np.unique(best[shown], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = indices[order][:_NAMED].tolist()
    colors: list[Any] = [colormaps["tab20"](2 * i % 20 + i // 10)[:3] for i in range(_NAMED)]
    layer = np.zeros((*best.shape, 4))
    layer[shown] = (0.3, 0.3, 0.3, 0.45)
    for color, k in zip(colors, named, strict=False):
        layer[shown & (best == k)] = (*color, 0.6)
    height, width = found.height, found.width
    figure = Figure(figsize=(12 * width / max(width, height) + 3.5, 12 * height / max(width, height) + 0.6), dpi=120)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    gray = thumbnail(source).mean(axis=2)
    axes.imshow(gray, cmap="gray", vmin=-96, vmax=255, extent=(0, width, height, 0))
    (y, x), (down, across) = level.center(0, 0), (level.stride * step for step in level.step)
    left, top = x - across / 2, y - down / 2
    box = (left, left + across * best.shape[1], top + down * best.shape[0], top)
    axes.imshow(layer, extent=box, interpolation="nearest")
    axes.set(xlim=(0, width), ylim=(height, 0), xlabel="pixels of the original")
    axes.set_title(f"best class of {best.shape[0]} x {best.shape[1]} cells where its {found.kind} is {threshold:g} up")
    total = best.size
    handles = [
        Patch(color=(*color, 0.6), label=f"{chart_text(found.classes[k])} ({counts[order][i] / total:.1%})")
        for i, (color, k) in enumerate(zip(colors, named, strict=False))
    ]
    if len(indices) > _NAMED:
        rest = counts[order][_NAMED:].sum() / total
        handles.append(Patch(color=(0.3, 0.3, 0.3, 0.45), label=f"{len(indices) - _NAMED} others ({rest:.1%})"))
    if handles:
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="share of cells")
    with write_aside(path) as aside:
        figure.savefig(aside, bbox_inches="tight")


def check_suffix(path: Path) -> None:
    """Refuse a file name that does not say one of the formats that can be drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"overview {path}: the name must end in {', '.join(SUFFIXES)}")


def thumbnail(source: Source) -> NDArray[np.uint8]:
    """Return an image shrunk to about 1600 pixels, read once from top to bottom: means of square blocks."""
    block = max(1, -(-max(source.height, source.width) // _SIDE))
    rows, columns = source.height // block, source.width // block
    small = np.empty((rows, columns, 3), np.uint8)
    for row in range(rows):
        pixels = source.read(row * block, 0, block, columns * block)
        small[row] = pixels.reshape(block, columns, block, 3).mean(axis=(0, 2))
    return small
