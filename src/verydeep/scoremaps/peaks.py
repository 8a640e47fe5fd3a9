"""Peaks of score maps: where what was found, one place for each thing."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nsmallest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_text
from verydeep.scoremaps.score_map import Level, ScoreMap

_ROWS = 64  # of a map that are looked at together: a map may be larger than memory, too


@dataclass(frozen=True)
class Peak:
    """A local maximum of one class's map.

    Attributes
    ----------
    label : str
        The class.
    value : float
        Of the map: a posterior, or a score.
    scale : float
        At which the image was run.
    x, y : float
        Center of the window, in pixels of the original.
    width, height : float
        Of the window, in pixels of the original.
    """

    label: str
    value: float
    scale: float
    x: float
    y: float
    width: float
    height: float


def find_peaks(found: ScoreMap, threshold: float = 0.5, most: int | None = None) -> list[Peak]:
    """Return the local maxima of all classes and scales of at least `threshold`, the highest first.

    A cell is a local maximum where none of its eight neighbors is higher. Of two peaks of one class, of whatever
    scales, the lower is dropped where its center lies in the middle half of the higher one's window. Of more than
    `most` maxima the highest are looked at.
    """
    maxima = (peak for level in found.levels for peak in _maxima(found, level, threshold))
    candidates = sorted(maxima, key=_order) if most is None else nsmallest(most, maxima, key=_order)
    kept: dict[str, list[Peak]] = {}
    for peak in candidates:
        others = kept.setdefault(peak.label, [])
        if not any(_beside(peak, other) for other in others):
            others.append(peak)
    return sorted((peak for peaks in kept.values() for peak in peaks), key=_order)


def _order(peak: Peak) -> tuple[float, float, float]:
    return -peak.value, peak.y, peak.x


def _maxima(found: ScoreMap, level: Level, threshold: float) -> Iterator[Peak]:
    rows = level.values.shape[1]
    for start in range(0, rows, _ROWS):
        top, bottom = max(start - 1, 0), min(start + _ROWS + 1, rows)
        values = np.nan_to_num(np.asarray(level.values[:, top:bottom]), nan=-np.inf)
        highest = maximum_filter(values, (1, 3, 3), mode="constant", cval=-np.inf)
        places = np.argwhere((values == highest) & (values >= threshold))
        for k, i, j in places[(places[:, 1] + top >= start) & (places[:, 1] + top < start + _ROWS)].tolist():
            y, x = level.center(i + top, j)
            height, width = (level.window * step for step in level.step)
            yield Peak(found.classes[k], float(values[k, i, j]), level.scale, x, y, width, height)


def _beside(peak: Peak, higher: Peak) -> bool:
    return abs(peak.x - higher.x) < higher.width / 4 and abs(peak.y - higher.y) < higher.height / 4


def write_peaks(peaks: list[Peak], path: Path, found: ScoreMap) -> None:
    """Write peaks as a CSV table or as GeoJSON features, by the suffix; UserError for another one.

    They are in pixels of the original, with coordinates added where the image has them.
    """
    check_suffix(path)
    write_text(path, _csv(peaks, found) if path.suffix == ".csv" else _geojson(peaks, found))


def check_suffix(path: Path) -> None:
    """Refuse a name that does not say CSV or GeoJSON."""
    if path.suffix not in (".csv", ".geojson"):
        raise UserError(f"peaks {path}: the name must end in .csv or .geojson")


def _fields(peak: Peak, found: ScoreMap) -> dict[str, str | float]:
    fields: dict[str, str | float] = {
        "class": peak.label,
        found.kind: float(f"{peak.value:.6g}"),
        "scale": peak.scale,
        **{name: round(getattr(peak, name), 2) for name in ("x", "y", "width", "height")},
    }
    if found.georeference:
        fields["map_x"], fields["map_y"] = found.georeference.at(peak.y, peak.x)
    return fields


def _csv(peaks: list[Peak], found: ScoreMap) -> str:
    names = list(_fields(Peak("", 0, 0, 0, 0, 0, 0), found))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_fields(peak, found) for peak in peaks)
    return file.getvalue()


def _geojson(peaks: list[Peak], found: ScoreMap) -> str:
    features = []
    for peak in peaks:
        left, right = peak.x - peak.width / 2, peak.x + peak.width / 2
        top, bottom = peak.y - peak.height / 2, peak.y + peak.height / 2
        ring: NDArray[np.float64] = np.array(
            [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
        ).round(2)
        geometry = {"type": "Polygon", "coordinates": [ring.tolist()]}
        features.append({"type": "Feature", "geometry": geometry, "properties": _fields(peak, found)})
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"
