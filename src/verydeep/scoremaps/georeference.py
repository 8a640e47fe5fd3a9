"""Where an image lies on the earth: GeoTIFF's tags, read from the image and scaled for its map."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.basics.extras import need

_SCALE, _TIEPOINT, _TRANSFORMATION = 33550, 33922, 34264
_KEYS = {34735: "H", 34736: "d", 34737: "s"}  # what the coordinates mean; passed on as it stands
_RASTER_TYPE = 1025
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Georeference:
    """An affine map from pixels to coordinates, and the keys that say what the coordinates mean.

    Attributes
    ----------
    matrix : tuple of 6 floats
        a, b, c, d, e, f: x = a column + b row + c, y = d column + e row + f, of a pixel's top left corner.
    keys : dict
        GeoTIFF's key tags, by number.
    """

    matrix: tuple[float, float, float, float, float, float]
    keys: dict[str, Any]

    def at(self, y: float, x: float) -> tuple[float, float]:
        """Return the coordinates of a place given in pixels."""
        a, b, c, d, e, f = self.matrix
        return a * x + b * y + c, d * x + e * y + f

    def scaled(self, top: float, left: float, down: float, across: float) -> "Georeference":
        """Return that of a grid that begins at (top, left) and has pixels of `down` x `across` original ones."""
        a, b, _, d, e, _ = self.matrix
        x, y = self.at(top, left)
        return Georeference((a * across, b * down, x, d * across, e * down, y), self.keys)

    def tags(self) -> list[tuple[int, str, int, Any, bool]]:
        """Return the tags for tifffile's `extratags`."""
        a, b, c, d, e, f = self.matrix
        if b == d == 0 and e < 0 < a:
            found: list[tuple[int, str, int, Any, bool]] = [
                (_SCALE, "d", 3, (a, -e, 0.0), True),
                (_TIEPOINT, "d", 6, (0.0, 0.0, 0.0, c, f, 0.0), True),
            ]
        else:
            rows = ((a, b, 0.0, c), (d, e, 0.0, f), (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
            found = [(_TRANSFORMATION, "d", 16, tuple(np.ravel(rows).tolist()), True)]
        for number, kind in _KEYS.items():
            value = self.keys.get(str(number))
            if value is not None:
                found.append((number, kind, 0 if kind == "s" else len(value), value, True))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Georeference":
        """Make the object from `to_dict`'s values."""
        a, b, c, d, e, f = values["matrix"]
        return cls((a, b, c, d, e, f), values["keys"])


def read_georeference(image: Any) -> Georeference | None:
    """Return where an image lies: None where it is no TIFF file or says nothing."""
    if not isinstance(image, str | Path) or not Path(image).is_file():
        return None
    with Path(image).open("rb") as file:
        if file.read(4) not in _TIFF:
            return None
    tifffile = need("tifffile", "maps")
    try:
        with tifffile.TiffFile(image) as tiff:
            tags = {tag.code: tag.value for tag in tiff.pages[0].tags}
    except Exception:  # damaged metadata does not make the picture bad
        return None
    keys = {str(number): _plain(tags[number]) for number in _KEYS if number in tags}
    matrix = _matrix(tags)
    for start in range(4, len(keys.get("34735", [])) - 3, 4):
        if keys["34735"][start] == _RASTER_TYPE:
            keys["34735"][start + 3] = 1  # pixels are areas here, whatever they were there
    return None if matrix is None else Georeference(matrix, keys)


def _matrix(tags: dict[int, Any]) -> tuple[float, float, float, float, float, float] | None:
    if len(tags.get(_TRANSFORMATION, ())) == 16:
        a, b, _, c, d, e, _, f = map(float, tags[_TRANSFORMATION][:8])
    elif _SCALE in tags and len(tags.get(_TIEPOINT, ())) >= 6:
        column, row, _, x, y, _ = map(float, tags[_TIEPOINT][:6])
        a, e = float(tags[_SCALE][0]), -float(tags[_SCALE][1])
        b, c, d, f = 0.0, x - a * column, 0.0, y - e * row
    else:
        return None
    if _raster_type(tags) == 2:  # the tie is to a pixel's center
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return a, b, c, d, e, f


def _raster_type(tags: dict[int, Any]) -> int:
    """Return GTRasterTypeGeoKey: 1 where pixels are areas, 2 where they are points."""
    keys = tags.get(34735, ())
    for start in range(4, len(keys) - 3, 4):
        if keys[start] == _RASTER_TYPE:
            return int(keys[start + 3])
    return 1


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else [item.item() if hasattr(item, "item") else item for item in value]
