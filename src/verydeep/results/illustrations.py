"""What a report shows beside tables: charts as SVG, and pictures named right and wrong, boxes that hit and miss."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from verydeep.basics.formatting import markup
from verydeep.basics.rng import generator
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.heatmap import class_map, spread
from verydeep.evaluation.metrics import ErrorRate
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.forward import Forward
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime
from verydeep.localization.detections import Detections
from verydeep.localization.drawing import draw_boxes
from verydeep.localization.metrics import HIT, overlaps
from verydeep.nets.families import load

HEIGHT = 180  # px of a picture in the report

# Charts are plain elements with classes, and the page styles them, for light, dark and print alike.


def curves(title: str, epochs: Sequence[Mapping[str, Any]], error: str = "top1_error") -> str:
    """Return a run's training curves by epoch from its log: `train_error` and the validation error, in [0, 1]."""
    width, height, left, top, bottom = 300, 190, 40, 26, 36
    last = max(2, len(epochs))

    def x(epoch: float) -> float:
        return left + (width - left - 12) * (epoch - 1) / (last - 1)

    def y(rate: float) -> float:
        return top + (height - top - bottom) * (1 - rate)

    parts = [_text("title", left, 15, title)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_line("grid", (left, width - 12), (y(tick), y(tick))))
        parts.append(_text("tick", left - 6, y(tick) + 3.5, f"{tick:.0%}", "end"))
    # Every epoch of a few, else five of them with the first and the last.
    count = last if last <= 8 else 5
    for epoch in [1 + round(i * (last - 1) / (count - 1)) for i in range(count)]:
        parts.append(_text("tick", x(epoch), height - bottom + 14, str(epoch), "middle"))
    parts.append(_text("axis", (left + width - 12) / 2, height - 5, "epoch", "middle"))
    for name, key in (("training", "train_error"), ("validation", error)):
        points = [(x(line["epoch"]), y(line[key])) for line in epochs]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f"<polyline class='{name}' points='{path}'/>")
        if len(points) == 1:
            parts.append(f"<circle class='{name}' cx='{points[0][0]:.1f}' cy='{points[0][1]:.1f}' r='3'/>")
    final = f"{title}: validation error {epochs[-1][error]:.1%} after {len(epochs)} epochs" if epochs else title
    return _svg(width, height, final, parts)


def intervals(rows: Sequence[tuple[str, Sequence[tuple[str, ErrorRate]]]]) -> str:
    """Return error rates as points with their 95 % intervals: a row a system, each with the class that styles it."""
    left, right, line, top = 200, 20, 28, 8
    width, height = 880, top + line * len(rows) + 40
    rates = [rate for _, marks in rows for _, rate in marks]
    low = max(0.0, min(rate.low for rate in rates) - 0.01)
    high = min(1.0, max(rate.high for rate in rates) + 0.01)

    def x(rate: float) -> float:
        return left + (width - left - right) * (rate - low) / (high - low)

    parts = []
    for tick in _round_numbers(low, high):
        parts.append(_line("grid", (x(tick), x(tick)), (top, height - 34)))
        parts.append(_text("tick", x(tick), height - 20, f"{100 * tick:g}", "middle"))
    parts.append(_text("axis", (left + width) / 2, height - 4, "top-1 error, %", "middle"))
    for number, (name, marks) in enumerate(rows):
        middle = top + line * (number + 0.5)
        parts.append(_text("row", left - 12, middle + 4, name, "end"))
        for place, (kind, rate) in enumerate(marks):
            at = middle + 7 * (place - (len(marks) - 1) / 2)
            parts.append(_line(kind, (x(rate.low), x(rate.high)), (at, at)))
            title = f"<title>{rate}</title>"
            parts.append(f"<circle class='{kind}' cx='{x(rate.rate):.1f}' cy='{at:.1f}' r='4'>{title}</circle>")
    return _svg(width, height, "Top-1 errors with their 95 % intervals; the tables give the figures", parts)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return four to eight round numbers between two rates."""
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 8)
    first = int(low / step) + (low % step > 1e-9)
    return [round(step * i, 4) for i in range(first, int(high / step + 1e-9) + 1)]


def _text(kind: str, x: float, y: float, words: str, anchor: str = "") -> str:
    place = f"x='{_number(x)}' y='{_number(y)}'" + (f" text-anchor='{anchor}'" if anchor else "")
    return f"<text class='{kind}' {place}>{markup(words)}</text>"


def _line(kind: str, x: tuple[float, float], y: tuple[float, float]) -> str:
    x1, x2, y1, y2 = map(_number, (*x, *y))
    return f"<line class='{kind}' x1='{x1}' x2='{x2}' y1='{y1}' y2='{y2}'/>"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{markup(label)}'>{body}</svg>"


@dataclass(frozen=True)
class Example:
    """One picture."""

    picture: str  # data URI; of boxes with the true ones in white and the one for its class in color
    label: str
    guess: str  # the most probable class; of boxes, which are given the class, that one
    score: float  # posterior of the guess, or IoU of the box with the true one that it fits best
    score_map: str | None = None  # data URI, of the guessed class; None where it has only one cell, and of boxes


def draw_examples(
    weights: Path, posteriors: Posteriors, dataset: Dataset, scale: int, right: bool, count: int, device: str = "auto"
) -> list[Example]:
    """Draw images that a network names right, or others, by chance, the same ones every time.

    They are of different classes while there are enough. Score maps are computed at Q = `scale`.
    """
    forward = Forward(load(weights, "classify"), Options(), Runtime(device), 1)
    place = places(dataset)
    chosen = [index for index in _drawn(posteriors, right) if posteriors.ids[index] in place][:count]
    return [
        _example(forward, posteriors, index, dataset.image(place[posteriors.ids[index]]), scale) for index in chosen
    ]


def _drawn(posteriors: Posteriors, right: bool) -> Iterator[int]:
    """Yield images that are right (or wrong) in a random order, first one of each class."""
    predicted = posteriors.probabilities.argmax(axis=1)
    labeled = posteriors.labels >= 0
    order = generator(0).permutation(np.flatnonzero(labeled & ((predicted == posteriors.labels) == right)))
    seen: set[int] = set()
    later = []
    for index in order.tolist():
        label = int(posteriors.labels[index])
        if label in seen:
            later.append(index)
        else:
            seen.add(label)
            yield index
    yield from later


def _example(forward: Forward, posteriors: Posteriors, index: int, original: NDArray[np.uint8], scale: int) -> Example:
    guess = int(posteriors.probabilities[index].argmax())
    picture, scores = class_map(forward, original, scale, guess)
    size = (round(HEIGHT * original.shape[1] / original.shape[0]), HEIGHT)
    shown = np.asarray(Image.fromarray(original).resize(size, Image.Resampling.LANCZOS))
    heat = None
    if scores.size > 1:  # one cell alone, stretched from its least to its greatest score, shows nothing
        heat = _data_uri(_overlaid(shown, spread(scores, picture.shape[0], picture.shape[1], forward.net)))
    label, score = posteriors.classes[posteriors.labels[index]], float(posteriors.probabilities[index, guess])
    return Example(_data_uri(shown), label, posteriors.classes[guess], score, heat)


def _overlaid(picture: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the picture in light grays, colored by its score map: from pale, the least score, to red."""
    height, width = picture.shape[:2]
    span = max(float(heat.max() - heat.min()), 1e-9)
    levels = Image.fromarray(((heat - heat.min()) / span * 180).astype(np.uint8)).resize((width, height))
    colors = colormaps["YlOrRd"](np.asarray(levels))[..., :3] * 255
    gray = 0.3 + 0.7 * picture.mean(axis=2, keepdims=True) / 255
    return np.asarray(gray * colors, np.uint8)


def _data_uri(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def draw_box_examples(detections: Detections, dataset: Dataset, hit: bool, count: int) -> list[Example]:
    """Draw images whose box, given the class, has an IoU of at least 0.5, or others, the same ones every time."""
    detections, place = detections.tested, places(dataset)
    rows, found = np.flatnonzero(detections.counted), overlaps(detections)[:, -1]
    there = np.array([detections.ids[row] in place for row in rows.tolist()], np.bool_)
    chosen = generator(0).permutation(np.flatnonzero(there & ((found >= HIT) == hit)))[:count]
    examples = []
    for row, iou in zip(rows[chosen].tolist(), found[chosen].tolist(), strict=True):
        truths: Sequence[Sequence[float]] = detections.truths[row].tolist()
        picture = dataset.image(place[detections.ids[row]])
        drawn = draw_boxes(picture, [detections.boxes[row, -1].tolist()], [""], truths, HEIGHT)
        drawn.thumbnail((2 * HEIGHT, HEIGHT))
        label = detections.names[int(detections.labels[row])]
        examples.append(Example(_data_uri(np.asarray(drawn)), label, label, iou))
    return examples


def places(dataset: Dataset) -> Mapping[str, int]:
    """Return the place of each image by its name."""
    return {sample.id: index for index, sample in enumerate(dataset.samples)}
