"""Maps as TIFF pyramids, georeferenced where the image is: the best class of every cell, or one class's values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.files import write_aside
from verydeep.scoremaps.score_map import Level, ScoreMap

_ROWS = 64  # of a map that are read together
_TILE = 256
_NODATA = 42113  # GDAL's tag


def best_class(level: Level) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the index of each cell's best class, and its value; 65535 and NaN where nothing was computed."""
    rows, columns = level.values.shape[1:]
    best, value = np.full((rows, columns), 65535, np.uint16), np.full((rows, columns), np.nan, np.float32)
    for top in range(0, rows, _ROWS):
        block = np.asarray(level.values[:, top : top + _ROWS])
        known = ~np.isnan(block[0])
        best[top : top + _ROWS][known] = block.argmax(axis=0)[known]
        value[top : top + _ROWS] = block.max(axis=0)
    return best, value


def write_raster(found: ScoreMap, path: Path, label: str | None = None) -> None:
    """Write the first scale's map as a tiled TIFF pyramid.

    A cell becomes a pixel of one stride around the center of its window. Given a class's `label`, its values are
    written in float32; else the index of the best class, in 16 bits. Class names are in the file's description.
    UserError for another suffix than `.tif` and `.tiff`, or no such class.
    """
    check_raster(path, label, found.classes)
    tifffile = need("tifffile", "maps")
    level = found.levels[0]
    if label is None:
        pixels: NDArray[Any] = best_class(level)[0]
        empty, content = "65535", "index of the best class"
    else:
        pixels = np.asarray(level.values[found.classes.index(label)])
        empty, content = "nan", f"{found.kind} of {label}"
    about = {"content": content, "classes": list(found.classes), "image": found.image, "scale": level.scale}
    tags: list[tuple[int, str, int, Any, bool]] = [(_NODATA, "s", 0, empty, True)]
    if found.georeference:
        down, across = (level.stride * step for step in level.step)
        y, x = level.center(0, 0)
        tags += found.georeference.scaled(y - down / 2, x - across / 2, down, across).tags()
    smaller = _pyramid(pixels)
    options = {"tile": (_TILE, _TILE), "compression": "zlib", "photometric": "minisblack", "metadata": None}
    with write_aside(path) as aside, tifffile.TiffWriter(aside, bigtiff=pixels.nbytes > 2**31) as tiff:
        text = json.dumps(about)
        tiff.write(pixels, subifds=len(smaller), description=text, extratags=tags, **options)
        for small in smaller:
            tiff.write(small, subfiletype=1, **options)


def check_raster(path: Path, label: str | None, classes: tuple[str, ...]) -> None:
    """Refuse a name that is no TIFF's, or a class that is not there."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"raster {path}: the name must end in .tif or .tiff")
    if label is not None and label not in classes:
        raise UserError(f"class {label!r} is not in the map; it has {', '.join(classes[:10])} ...")


def _pyramid(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return every second pixel of every second row, again and again, down to one tile."""
    found = []
    while max(pixels.shape) > _TILE:
        pixels = np.ascontiguousarray(pixels[::2, ::2])
        found.append(pixels)
    return found
