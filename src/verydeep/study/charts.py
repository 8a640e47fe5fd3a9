"""Charts as SVG elements that take their colors from the page's style sheet."""

import html
from collections.abc import Sequence
from typing import Any

from verydeep.evaluation.metrics import ErrorRate

# Plain elements with classes: the page styles them, for light, dark and print alike.


def curves(title: str, epochs: Sequence[dict[str, Any]], error: str = "top1_error") -> str:
    """Return a run's training curves: error of training crops and of validation images, by epoch.

    Parameters
    ----------
    title : str
        Stands above the axes.
    epochs : sequence of dict
        Lines of the run's log, with `epoch`, `train_error` and the key `error`; errors in [0, 1].
    error : str
        Key of the error on validation images.
    """
    width, height, left, top, bottom = 300, 190, 40, 26, 36
    last = max(2, len(epochs))

    def x(epoch: float) -> float:
        return left + (width - left - 12) * (epoch - 1) / (last - 1)

    def y(rate: float) -> float:
        return top + (height - top - bottom) * (1 - rate)

    parts = [f"<text class='title' x='{left}' y='15'>{html.escape(title)}</text>"]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f"<line class='grid' x1='{left}' x2='{width - 12}' y1='{y(tick):.1f}' y2='{y(tick):.1f}'/>")
        parts.append(f"<text class='tick' x='{left - 6}' y='{y(tick) + 3.5:.1f}' text-anchor='end'>{tick:.0%}</text>")
    for epoch in _ticks(last):
        parts.append(
            f"<text class='tick' x='{x(epoch):.1f}' y='{height - bottom + 14}' text-anchor='middle'>{epoch}</text>"
        )
    middle = (left + width - 12) / 2
    parts.append(f"<text class='axis' x='{middle}' y='{height - 5}' text-anchor='middle'>epoch</text>")
    for name, key in (("training", "train_error"), ("validation", error)):
        points = [(x(line["epoch"]), y(line[key])) for line in epochs]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f"<polyline class='{name}' points='{path}'/>")
        if len(points) == 1:
            parts.append(f"<circle class='{name}' cx='{points[0][0]:.1f}' cy='{points[0][1]:.1f}' r='3'/>")
    final = f"{title}: validation error {epochs[-1][error]:.1%} after {len(epochs)} epochs" if epochs else title
    return _svg(width, height, final, parts)


def _ticks(last: int) -> list[int]:
    """Return every epoch of a few, else five of them with the first and the last."""
    count = last if last <= 8 else 5
    return [1 + round(i * (last - 1) / (count - 1)) for i in range(count)]


def intervals(rows: Sequence[tuple[str, Sequence[tuple[str, ErrorRate]]]]) -> str:
    """Return error rates as points with their 95 % intervals, a row for each system.

    Parameters
    ----------
    rows : sequence of (str, sequence of (str, ErrorRate))
        Name of the system, and its errors, each with the class that styles it.
    """
    left, right, line, top = 200, 20, 28, 8
    width, height = 880, top + line * len(rows) + 40
    rates = [rate for _, marks in rows for _, rate in marks]
    low = max(0.0, min(rate.low for rate in rates) - 0.01)
    high = min(1.0, max(rate.high for rate in rates) + 0.01)

    def x(rate: float) -> float:
        return left + (width - left - right) * (rate - low) / (high - low)

    parts = []
    for tick in _round_numbers(low, high):
        parts.append(f"<line class='grid' x1='{x(tick):.1f}' x2='{x(tick):.1f}' y1='{top}' y2='{height - 34}'/>")
        parts.append(
            f"<text class='tick' x='{x(tick):.1f}' y='{height - 20}' text-anchor='middle'>{100 * tick:g}</text>"
        )
    parts.append(
        f"<text class='axis' x='{(left + width) / 2}' y='{height - 4}' text-anchor='middle'>top-1 error, %</text>"
    )
    for number, (name, marks) in enumerate(rows):
        middle = top + line * (number + 0.5)
        parts.append(
            f"<text class='row' x='{left - 12}' y='{middle + 4:.1f}' text-anchor='end'>{html.escape(name)}</text>"
        )
        for place, (kind, rate) in enumerate(marks):
            at = middle + 7 * (place - (len(marks) - 1) / 2)
            parts.append(
                f"<line class='{kind}' x1='{x(rate.low):.1f}' x2='{x(rate.high):.1f}' y1='{at:.1f}' y2='{at:.1f}'/>"
            )
            parts.append(
                f"<circle class='{kind}' cx='{x(rate.rate):.1f}' cy='{at:.1f}' r='4'><title>{rate}</title></circle>"
            )
    return _svg(width, height, "Top-1 errors with their 95 % intervals; the tables give the figures", parts)


def _round_numbers(low: float, high: float) -> list[float]:
    """Return four to eight round numbers between two rates."""
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 8)
    first = int(low / step) + (low % step > 1e-9)
    return [round(step * i, 4) for i in range(first, int(high / step + 1e-9) + 1)]


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{html.escape(label, quote=True)}'>{body}</svg>"
