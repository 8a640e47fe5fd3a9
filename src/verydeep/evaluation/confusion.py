"""Which classes are taken for which: a confusion matrix as a picture and as a table in a file."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from verydeep.basics.files import write_aside
from verydeep.basics.formatting import chart_text
from verydeep.evaluation.parquet import write

NAMED, COUNTED = 120, 20  # most classes whose names, and whose counts, can be read in the picture


def write_confusion(folder: Path, name: str, confusion: NDArray[np.int64], classes: tuple[str, ...]) -> list[Path]:
    """Write `NAME.png` and `NAME.parquet`, each whole or not at all; return their paths.

    The table has a row for each class and each class that images of it were taken for: class, predicted, images.
    """
    picture, table = folder / f"{name}.png", folder / f"{name}.parquet"
    with write_aside(picture) as aside, aside.open("wb") as file:
        draw_confusion(file, confusion, classes)
    rows, columns = np.nonzero(confusion)
    names = np.array(classes, dtype=object)
    values = {"class": names[rows].tolist(), "predicted": names[columns].tolist(), "images": confusion[rows, columns]}
    write(table, values, {"kind": "confusion", "classes": classes})
    return [picture, table]


def draw_confusion(file: BinaryIO, confusion: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Write a PNG: each row, a class, in shares of its images; with names and counts as far as these can be read."""
    count = len(classes)
    side = max(4.0, min(0.35 * count + 2, 12.0))
    figure = Figure(figsize=(side + 1, side), dpi=max(100, round(count / (0.7 * side))))  # a pixel a class at least
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=axes, label="share of the class's images", fraction=0.04, pad=0.02)
    axes.set(xlabel="taken for", ylabel="class", title=f"{int(confusion.sum()):,} images")
    if count <= NAMED:
        size = min(8.0, 62 * side / count)  # as large as lines of this height allow
        names = [chart_text(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    for row, column in np.argwhere(confusion) if count <= COUNTED else ():
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=7, color=color)
    figure.savefig(file, format="png", bbox_inches="tight")
