"""Readers of areas drawn in CVAT, Label Studio or COCO's files: each picture's become a mask."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from verydeep.basics.errors import BadImageError, UserError
from verydeep.datasets import coco, cvat, label_studio
from verydeep.datasets.brush import brush_mask
from verydeep.datasets.folder_names import split_in
from verydeep.datasets.labels import Finder, number
from verydeep.datasets.layout import few
from verydeep.datasets.masks import IGNORED, VOID, Values
from verydeep.datasets.shapes import Mask, Shape, coco_counts, ellipse, polygon, runs
from verydeep.datasets.storage import File, Storage

BACKGROUND = "background"
"""What no area covers."""
CROWD = "ignored"
"""Label of COCO's areas of many things: its pixels do not count."""
ENDING = "#drawn.pgm"
"""Behind a picture's name, the name of the mask drawn for it."""


@dataclass(frozen=True)
class Drawn:
    """What a file says of a picture: the areas drawn on it, what covers being behind what is covered."""

    picture: str
    size: tuple[int, int]  # height, width
    shapes: tuple[Shape, ...]
    split: str | None = None


@dataclass(frozen=True)
class DrawnFile:
    """A mask as if it were a gray picture's file, drawn when it is read; see `File`."""

    drawn: Drawn
    labels: dict[str, int]
    where: str
    source: File = field(repr=False)

    def read(self, limit: int | None = None) -> bytes:
        """Return the content; BadImageError where an area is damaged."""
        height, width = self.drawn.size
        values = np.full((height, width), self.labels[BACKGROUND], np.uint8)
        for shape in self.drawn.shapes:
            try:
                values[shape.mask(height, width)] = self.labels[shape.label]
            except ValueError as error:
                raise BadImageError(self.where, f"the area of {shape.label} is damaged ({error})") from None
        return (b"P5 %d %d 255\n" % (width, height) + values.tobytes())[:limit]

    def stamp(self) -> tuple[int, int]:
        """Return the stamp of the file that says what is drawn."""
        return self.source.stamp()


@dataclass(frozen=True)
class DrawnMasks:
    """Each split's masks by their pictures, classes, what values mean, and a storage that has the masks, too."""

    parts: dict[str, dict[str, str]]
    classes: tuple[str, ...]
    values: Values
    storage: Storage


def read_drawn(storage: Storage) -> DrawnMasks | None:
    """Read the areas that exports beside the pictures say; None where there is no such file, or no area in any.

    Pictures without any area are left out: nothing says whether they were looked at. UserError for a file that is not
    as its tool writes it, a picture that several draw on, or areas on pictures that are missing.
    """
    finder, found, absent = Finder(storage), dict[str, tuple[str, Drawn]](), list[str]()
    for file, drawn in _exports(storage, finder):
        if not drawn.shapes:
            continue
        picture = finder.find(drawn.picture, file, drawn.split)
        if picture is None:
            absent.append(drawn.picture)
        elif picture in found:
            raise UserError(f"{storage.where(file)}: draws on {picture}, and so does {found[picture][0]}; keep one")
        else:
            found[picture] = file, drawn
    if absent:
        raise UserError(
            f"{storage.path}: {len(absent)} pictures with areas are missing ({few(absent)}); put them beside"
        )
    if not found:
        return None
    names = {shape.label for _, drawn in found.values() for shape in drawn.shapes}
    classes = (BACKGROUND, *sorted(name for name in names if name != BACKGROUND and name.lower() not in VOID))
    if len(classes) >= IGNORED:
        raise UserError(f"{storage.path}: its areas are of {len(classes)} classes, expected at most {IGNORED - 1}")
    labels = {name: classes.index(name) if name in classes else IGNORED for name in {*names, BACKGROUND}}
    files, parts = dict(storage.files), dict[str, dict[str, str]]()
    for picture, (file, drawn) in found.items():
        where = f"{storage.where(file)}: areas on {picture}"
        files[picture + ENDING] = DrawnFile(drawn, labels, where, storage.files[file])
        parts.setdefault(drawn.split or "train", {})[picture] = picture + ENDING
    values = Values({**{k: k for k in range(len(classes))}, IGNORED: IGNORED})
    return DrawnMasks(parts, classes, values, Storage(storage.path, files))


def _exports(storage: Storage, finder: Finder) -> Iterator[tuple[str, Drawn]]:
    for files, read in ((cvat.files, _cvat), (label_studio.files, _label_studio), (coco.files, _coco)):
        for file in files(storage):
            try:
                for drawn in read(storage, file, finder):
                    yield file, drawn
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
                if isinstance(error, UserError):
                    raise
                what = f"{type(error).__name__}: {error}"
                raise UserError(f"{storage.where(file)}: its areas are not as the tool writes them ({what})") from None


def _cvat(storage: Storage, file: str, finder: Finder) -> Iterator[Drawn]:
    for image in cvat.root(storage, file).iter("image"):
        areas = [(int(area.get("z_order", 0)), shape) for area in image if (shape := _cvat_shape(area))]
        shapes = tuple(shape for _, shape in sorted(areas, key=lambda one: one[0]))
        size = int(image.get("height", 0)), int(image.get("width", 0))
        yield Drawn(image.get("name", ""), size, shapes, split_in(image.get("subset", "")))


def _cvat_shape(area: ElementTree.Element) -> Shape | None:
    given, label = area.attrib, area.get("label", "")
    if area.tag == "polygon":
        pairs = [pair.split(",") for pair in given["points"].split(";")]
        return Shape(label, partial(polygon, [(float(x), float(y)) for x, y in pairs]))
    if area.tag == "ellipse":
        center, radii = (float(given["cx"]), float(given["cy"])), (float(given["rx"]), float(given["ry"]))
        return Shape(label, partial(polygon, ellipse(center, radii, float(given.get("rotation", 0)))))
    if area.tag == "mask":
        counts = [int(count) for count in given["rle"].split(",")]
        place = [int(given[key]) for key in ("top", "left", "height", "width")]
        return Shape(label, partial(_within, counts, place))
    return None


def _within(counts: list[int], place: list[int], height: int, width: int) -> Mask:
    """Return the mask of which runs are known within a rectangle alone."""
    top, left, rows, columns = place
    if min(place) < 0 or top + rows > height or left + columns > width:
        raise ValueError("it lies beyond the picture")
    whole = np.zeros((height, width), bool)
    whole[top : top + rows, left : left + columns] = runs(counts, rows, columns)
    return whole


def _label_studio(storage: Storage, file: str, finder: Finder) -> Iterator[Drawn]:
    for task in storage.json(file):
        results = label_studio.results(task) if "data" in task else []
        found = [(shape, label_studio.size_of(each)) for each in results for shape in _label_studio_shapes(each)]
        if found:
            yield Drawn(label_studio.picture(task, finder, file), found[0][1], tuple(shape for shape, _ in found))


def _label_studio_shapes(result: dict[str, Any]) -> Iterator[Shape]:
    value = result["value"]
    make: Callable[[int, int], Mask] | None = None
    if "polygonlabels" in value:
        height, width = label_studio.size_of(result)
        make = partial(polygon, [(x * width / 100, y * height / 100) for x, y in value["points"]])
    elif "brushlabels" in value:
        make = partial(brush_mask, value["rle"])
    elif "ellipselabels" in value:
        height, width = label_studio.size_of(result)
        x, y, rx, ry = (number(value[key]) / 100 for key in ("x", "y", "radiusX", "radiusY"))
        turned = ellipse((x * width, y * height), (rx * width, ry * height), number(value.get("rotation", 0)))
        make = partial(polygon, turned)
    for name in value.get(result["type"], []) if make else []:
        assert make is not None
        yield Shape(str(name), make)


def _coco(storage: Storage, file: str, finder: Finder) -> Iterator[Drawn]:
    content = storage.json(file)
    categories = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
    of_image: dict[Any, list[Shape]] = {}
    for entry in content.get("annotations", []) if categories else []:
        label = CROWD if entry.get("iscrowd") else categories[entry["category_id"]]
        if area := entry.get("segmentation"):
            of_image.setdefault(entry["image_id"], []).append(Shape(label, partial(_coco_mask, area)))
    for image in content.get("images", []):
        size = int(image["height"]), int(image["width"])
        yield Drawn(str(image["file_name"]), size, tuple(of_image.get(image["id"], ())), split_in(file))


def _coco_mask(area: Any, height: int, width: int) -> Mask:
    if isinstance(area, list):
        parts = [polygon(list(zip(ring[::2], ring[1::2], strict=True)), height, width) for ring in area]
        return np.asarray(np.logical_or.reduce(parts))
    counts = coco_counts(area["counts"]) if isinstance(area["counts"], str) else area["counts"]
    if [height, width] != list(area["size"]):
        raise ValueError(f"it is of a picture of {area['size']}")
    return np.asarray(runs(counts, width, height).T)  # column by column
