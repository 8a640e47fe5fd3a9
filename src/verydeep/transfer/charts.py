"""Charts of a transfer's report: confusion matrix, recall of each class, map of the descriptors, reliability."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from verydeep.basics.formatting import chart_text
from verydeep.evaluation.confusion import draw_confusion
from verydeep.evaluation.metrics import calibration_curve

MOST_POINTS = 1500
"""Test images on the map: t-SNE's time grows faster than their number."""
LABEL = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.7, "linewidth": 0}


def confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the confusion matrix."""
    file = io.BytesIO()
    draw_confusion(file, counts, tuple(name.replace("_", " ") for name in classes))
    return _embedded(file, "confusion matrix")


def bars(values: Sequence[float], classes: Sequence[str], name: str) -> str:
    """Return one bar a class, the least first; NaN is left out."""
    known = [k for k, value in enumerate(values) if not np.isnan(value)]
    order = sorted(known, key=lambda k: values[k])
    figure = _figure(9, max(2.5, 0.16 * len(order) + 0.8))
    axes = figure.add_subplot()
    axes.barh(range(len(order)), [100 * values[k] for k in order], color="#1f5fa8", height=0.7)
    axes.set_yticks(range(len(order)), [chart_text(classes[k].replace("_", " ")) for k in order], fontsize=7)
    axes.set(xlabel=f"{name}, %", xlim=(0, 100), ylim=(-0.6, len(order) - 0.4))
    _plain(axes)
    return _image(figure, f"{name} of each class")


def reliability(posteriors: NDArray[np.float64], right: NDArray[np.bool_]) -> str:
    """Return the share of statements that are right over their posterior; on the diagonal both agree."""
    bins = calibration_curve(posteriors, right)
    figure = _figure(4.6, 4)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    axes.plot([mean for _, mean, _ in bins], [share for _, _, share in bins], marker="o", color="#1f5fa8")
    for count, mean, share in bins:
        axes.annotate(f"{count:,}", (mean, share), textcoords="offset points", xytext=(5, -9), fontsize=7)
    axes.set(xlim=(0, 1.05), ylim=(0, 1.05), xlabel="posterior", ylabel="share that is right")
    _plain(axes)
    return _image(figure, "reliability diagram")


def descriptor_map(rows: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return the descriptors in the plane by t-SNE (after PCA to 50 numbers), at most `MOST_POINTS` of them.

    Classes are named where their images lie, those that lie closest together first, as far as there is room.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    step = -(-len(rows) // MOST_POINTS)
    rows, labels = rows[::step], labels[::step]
    few = PCA(min(50, *rows.shape), random_state=0).fit_transform(rows)
    places = TSNE(random_state=0, perplexity=min(30.0, (len(rows) - 1) / 3), init="pca").fit_transform(few)
    figure = _figure(9, 7)
    axes = figure.add_subplot()
    axes.scatter(places[:, 0], places[:, 1], c=labels, cmap="gist_rainbow", s=9, linewidths=0)
    for k, place in _with_room(places, labels):
        axes.annotate(chart_text(classes[k].replace("_", " ")), place, fontsize=7, ha="center", va="center", bbox=LABEL)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return _image(figure, "descriptors of test images in the plane")


def _with_room(places: NDArray[Any], labels: NDArray[np.int64]) -> list[tuple[int, tuple[float, float]]]:
    """Return classes and the middle of their points, leaving out those whose names would lie on another's."""
    own = {k: places[labels == k] for k in np.unique(labels).tolist()}
    middles = {k: np.median(points, axis=0) for k, points in own.items()}
    spread = {k: float(np.median(np.linalg.norm(points - middles[k], axis=1))) for k, points in own.items()}
    room = np.ptp(places, axis=0) * (0.1, 0.022)  # of a name of ordinary length
    named: list[tuple[int, tuple[float, float]]] = []
    for k in sorted(own, key=lambda k: spread[k]):
        if all((np.abs(middles[k] - place) > room).any() for _, place in named):
            named.append((k, (float(middles[k][0]), float(middles[k][1]))))
    return named


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _image(figure: Figure, words: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, transparent=True)
    return _embedded(file, words)


def _embedded(file: io.BytesIO, words: str) -> str:
    data = base64.b64encode(file.getvalue()).decode()
    return f"<p class='chart'><img alt='{words}' src='data:image/png;base64,{data}'></p>"
