"""Reader of LabelMe's JSON: one file a picture, of shapes with labels, or of flags for the whole picture."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Edges, Finder, Labeled, around, layout_of, number, owned
from verydeep.datasets.layout import Layout
from verydeep.datasets.storage import Storage

SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
OTHERS = re.compile(rb'"(?:version|flags|imagePath)"\s*:')
HEAD = 1 << 16
LOOKED_AT = 20  # JSON files that are opened to see whether they are LabelMe's


def matches(storage: Storage) -> bool:
    """Say whether JSON files hold a list of shapes."""
    return any(_is_one(storage, file) for file in storage.ending("json")[:LOOKED_AT])


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read every file; the picture itself, which may stand in it a second time, is not looked at."""
    finder = Finder(storage)
    contents = {file: _content(storage, file) for file in storage.ending("json") if _is_one(storage, file)}
    own = owned(finder, {file: str(content["imagePath"] or "") for file, content in contents.items()})
    return layout_of(storage, _labeled(storage, contents, own.pictures), finder, choice=choice, notes=own.notes)


def _is_one(storage: Storage, file: str) -> bool:
    head = storage.files[file].read(HEAD)
    return bool(SHAPES.search(head) and OTHERS.search(head))


def _content(storage: Storage, file: str) -> dict[str, Any]:
    """Return what counts of a file: the picture within would fill the memory."""
    content = storage.json(file)
    return {key: content.get(key) for key in ("shapes", "flags", "imagePath", "imageHeight", "imageWidth")}


def _labeled(
    storage: Storage, contents: Mapping[str, dict[str, Any]], pictures: Mapping[str, str | None]
) -> Iterator[Labeled]:
    for file, content in contents.items():
        sides = number(content["imageHeight"]), number(content["imageWidth"])
        size = (int(sides[0]), int(sides[1])) if min(sides) >= 1 else None
        try:
            boxes = _boxes(content["shapes"])
            flags = [(str(name), None) for name, there in (content["flags"] or {}).items() if there]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"{storage.where(file)}: is not as LabelMe writes it ({what})") from None
        name = pictures[file] or str(content["imagePath"] or file)
        # A picture with shapes has its class from these; flags then say other things.
        yield Labeled(name, tuple(boxes or flags), file, None, size, nothing=True)


def _boxes(shapes: list[dict[str, Any]]) -> list[tuple[str, Edges | None]]:
    """Return the boxes around shapes; those of one group are parts of one object."""
    boxes: list[tuple[str, Edges | None]] = []
    groups: dict[tuple[str, Any], list[Edges]] = {}
    for shape in shapes:
        group = shape.get("group_id")
        if group is None:
            boxes.append((str(shape["label"]), _edges(shape)))
        else:
            groups.setdefault((str(shape["label"]), group), []).append(_edges(shape))
    for (label, _), parts in groups.items():
        xs, ys = ([value for part in parts for value in part[first::2]] for first in (0, 1))
        boxes.append((label, around(xs, ys)))
    return boxes


def _edges(shape: dict[str, Any]) -> Edges:
    points = [(number(x), number(y)) for x, y in shape["points"]]
    if shape.get("shape_type") == "circle" and len(points) == 2:  # its center, and a point on it
        (x, y), edge = points[0], math.dist(*points)
        return x - edge, y - edge, x + edge, y + edge
    return around([x for x, _ in points], [y for _, y in points])
