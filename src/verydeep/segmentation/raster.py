"""A map of classes as a tiled TIFF with its palette, georeferenced where the image is; written tile by tile."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.extras import need
from verydeep.basics.files import write_aside
from verydeep.scoremaps.georeference import Georeference
from verydeep.segmentation.drawing import palette

_TILE = 256
_NODATA = 42113  # GDAL's tag


def write_classes(labels: Any, path: Path, classes: tuple[str, ...], place: Georeference | None, factor: float) -> None:
    """Write labels, an array of H x W of numpy's or zarr's, of an image that was run at `factor` times its size.

    Class names are in the file's description.
    """
    tifffile = need("tifffile", "maps")
    height, width = labels.shape
    tags: list[tuple[int, str, int, Any, bool]] = [(_NODATA, "s", 0, "255", True)]
    if place:
        tags += place.scaled(0.0, 0.0, 1 / factor, 1 / factor).tags()
    with write_aside(path) as aside, tifffile.TiffWriter(aside, bigtiff=height * width > 2**31) as tiff:
        tiff.write(
            _tiles(labels),
            shape=(height, width),
            dtype="uint8",
            tile=(_TILE, _TILE),
            compression="zlib",
            photometric="palette",
            colormap=palette().T.astype(np.uint16) * 257,
            description=json.dumps({"content": "index of the class", "classes": list(classes), "factor": factor}),
            extratags=tags,
            metadata=None,
        )


def _tiles(labels: Any) -> Iterator[NDArray[np.uint8]]:
    """Yield tiles in reading order; what lies beyond the map's edge is 255."""
    height, width = labels.shape
    for top in range(0, height, _TILE):
        rows = np.asarray(labels[top : top + _TILE])
        for left in range(0, width, _TILE):
            part = rows[:, left : left + _TILE]
            yield np.pad(part, ((0, _TILE - part.shape[0]), (0, _TILE - part.shape[1])), constant_values=255)
