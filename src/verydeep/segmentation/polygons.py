"""Regions of one class as polygons along the edges of pixels."""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.datasets.masks import IGNORED
from verydeep.scoremaps.georeference import Georeference

Ring = list[list[float]]
_FINE = 3
"""Times that a region is enlarged, so that OpenCV's contours, which run through pixels' centers, tell the edges."""
MOST_PIXELS = 1 << 28


def polygons(labels: NDArray[np.uint8]) -> Iterator[tuple[int, list[Ring]]]:
    """Yield the class of each connected region (by edges, not corners) and its rings, the outer one first, then holes.

    Corners are x and y in pixels, the picture's first one being from 0 to 1; rings are closed, and their areas are
    exactly the pixels'. UserError for a map that is too large to be held in memory several times.
    """
    if labels.size > MOST_PIXELS:
        raise UserError(f"polygons: {labels.size:,} pixels are more than {MOST_PIXELS:,}; take a part of the map")
    for value in np.unique(labels[labels != IGNORED]).tolist():
        count, regions, boxes, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8), connectivity=4)
        for number in range(1, count):
            left, top, width, height, _ = boxes[number].tolist()
            region = regions[top : top + height, left : left + width] == number
            yield value, _rings(region, top, left)


def _rings(region: NDArray[np.bool_], top: int, left: int) -> list[Ring]:
    """Return the rings of one connected region; it has one outer ring and perhaps holes."""
    fine = region.astype(np.uint8).repeat(_FINE, 0).repeat(_FINE, 1)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    order = sorted(range(len(contours)), key=lambda i: int(hierarchy[0][i][3] >= 0))  # the outer ring has no parent
    rings = []
    for i in order:
        # A contour's points lie in the pixels beside an edge, so that the nearest whole third is the edge itself.
        corners = np.rint((contours[i][:, 0].astype(np.float64) + 0.5) / _FINE).astype(int)
        kept = _without_repeats(corners + np.array([left, top]))
        rings.append([[float(x), float(y)] for x, y in [*kept, kept[0]]])
    return rings


def _without_repeats(corners: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return corners without those that repeat the one before or lie on a straight line."""
    points = [tuple(point) for point in corners.tolist()]
    points = [point for i, point in enumerate(points) if point != points[i - 1]]
    found = []
    for i, (x, y) in enumerate(points):
        (a, b), (c, d) = points[i - 1], points[(i + 1) % len(points)]
        if (x - a) * (d - y) != (y - b) * (c - x):
            found.append((x, y))
    return found


def feature_collection(
    labels: NDArray[np.uint8], classes: Sequence[str], place: Georeference | None = None
) -> dict[str, Any]:
    """Return GeoJSON: a polygon for each region, with its class and its area in pixels.

    Coordinates are the georeference's; without one they are pixels, x to the right and y downwards.
    """
    features = []
    for value, rings in polygons(labels):
        area = sum(_area(ring) for ring in rings)
        if place is not None:
            rings = [[list(place.at(y, x)) for x, y in ring] for ring in rings]
        features.append(
            {
                "type": "Feature",
                "properties": {"class": classes[value], "pixels": round(area)},
                "geometry": {"type": "Polygon", "coordinates": rings},
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _area(ring: Ring) -> float:
    """Return a ring's area, of a hole's below 0: OpenCV goes around it the other way."""
    x, y = np.array(ring).T
    return float((x[1:] * y[:-1] - x[:-1] * y[1:]).sum() / 2)
