"""The figures of `verydeep bench inference` as a chart: milliseconds an image by runtime, for each size and batch."""

from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside

_COLORS = {"native": "#c8553d", "native fast": "#e39774", "native fixed16": "#e39774"}
_PEER = "#8d99ae"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw bars to a .png or .svg file, a panel for each size and batch.

    Parameters
    ----------
    result : dict
        From `benchmarks.inference.run`.
    path : Path
        The file.

    Raises
    ------
    UserError
        Another suffix than .png or .svg.
    """
    from matplotlib.figure import Figure

    if path.suffix not in (".png", ".svg"):
        raise UserError(f"{path}: a chart is a .png or .svg file; give it that suffix")
    cases = list(dict.fromkeys(_case(row) for row in result["rows"]))
    figure = Figure(figsize=(4.2 * len(cases), 3.2), layout="constrained")
    for i, case in enumerate(cases, 1):
        axes = figure.add_subplot(1, len(cases), i)
        rows = [row for row in result["rows"] if _case(row) == case][::-1]
        colors = [_COLORS.get(row["runtime"], _PEER) for row in rows]
        bars = axes.barh([row["runtime"] for row in rows], [row["milliseconds"] for row in rows], color=colors)
        axes.bar_label(bars, fmt="%.0f", padding=2)
        axes.set_title(f"{result['net']}, {case[0]} x {case[1]}, batch {case[2]}", fontsize=10)
        axes.set_xlabel("milliseconds an image")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
    with write_aside(path) as aside:
        figure.savefig(aside, dpi=110, format=path.suffix[1:])


def _case(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["height"], row["width_pixels"], row["batch"]
