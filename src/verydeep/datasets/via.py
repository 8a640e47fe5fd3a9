"""Reader of the VGG Image Annotator, VIA 1 and 2: projects, and annotations exported as JSON or CSV."""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets.folder_names import split_in
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Edges, Finder, Labeled, Objects, around, corners, layout_of, number
from verydeep.datasets.layout import Layout, few
from verydeep.datasets.storage import Storage

KEYS = re.compile(rb'"_via_(?:img_metadata|settings)"\s*:|"(?:file_attributes|shape_attributes)"\s*:')
COLUMNS = re.compile(rb"[^\r\n]*region_shape_attributes")
# What people call the attribute that says what is to be seen; the likeliest first.
ATTRIBUTES = ("label", "class", "category", "name", "type", "object", "species")
NOT_CLASSES = frozenset({"caption", "public_domain", "image_url"})  # that VIA itself proposes for files
Entry = dict[str, Any]


def matches(storage: Storage) -> bool:
    """Say whether a file is a project or an export of VIA."""
    return bool(_files(storage))


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read every file, or that of `--reader via:FILE:ATTRIBUTE`, of which each may be empty.

    UserError where two files are for the same pictures, or it is not clear which attribute is the class.
    """
    file, _, attribute = options.partition(":")
    if file and file not in storage.files:
        raise UserError(f"{storage.path}: has no {file}; it has {few(_files(storage), 10) or 'no such files'}")
    entries = {name: _entries(storage, name) for name in ([file] if file else _files(storage))}
    _check_different(storage, entries)
    labeled = (record for name, found in entries.items() for record in _labeled(storage, name, found, attribute))
    return layout_of(storage, labeled, Finder(storage), choice=choice)


def _files(storage: Storage) -> list[str]:
    found = [name for name in storage.outermost("json") if KEYS.search(storage.files[name].read(1 << 16))]
    return found + [name for name in storage.outermost("csv") if COLUMNS.match(storage.files[name].read(4096))]


def _check_different(storage: Storage, entries: Mapping[str, list[Entry]]) -> None:
    """Refuse a project beside its own exports: the same regions twice, or an earlier state of them."""
    first: dict[tuple[str, str], str] = {}
    for file, found in entries.items():
        for entry in found:
            other = first.setdefault((file.rpartition("/")[0], str(entry.get("filename"))), file)
            if other != file:
                raise UserError(
                    f"{storage.path}: {other} and {file} are for the same pictures; say which: --reader via:{other}"
                )


def _entries(storage: Storage, file: str) -> list[Entry]:
    """Return what a file says, a dictionary a picture: `filename`, `regions`, `file_attributes`."""
    try:
        if file.lower().endswith("csv"):
            return list(_of_csv(storage.text(file)))
        content = storage.json(file)
        entries = content.get("_via_img_metadata", content).values()
        return [{**entry, "regions": _listed(entry.get("regions"))} for entry in entries if "filename" in entry]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{storage.where(file)}: is not as VIA writes it ({what})") from None


def _listed(regions: Any) -> list[Entry]:
    """Return regions as a list; VIA 1 numbers them in a dictionary."""
    return list(regions.values()) if isinstance(regions, dict) else list(regions or ())


def _of_csv(text: str) -> Iterator[Entry]:
    found: dict[str, Entry] = {}
    for row in csv.DictReader(StringIO(text)):
        row = {str(key).lstrip("#"): cell or "" for key, cell in row.items()}
        entry = found.setdefault(
            row["filename"],
            {"filename": row["filename"], "regions": [], "file_attributes": json.loads(row["file_attributes"] or "{}")},
        )
        shape = json.loads(row["region_shape_attributes"] or "{}")
        if shape:  # a picture without regions has a row, too
            about = json.loads(row["region_attributes"] or "{}")
            entry["regions"].append({"shape_attributes": shape, "region_attributes": about})
    yield from found.values()


def _labeled(storage: Storage, file: str, entries: list[Entry], attribute: str) -> Iterator[Labeled]:
    try:
        of_regions = [region.get("region_attributes") or {} for entry in entries for region in entry["regions"]]
        of_files = [entry.get("file_attributes") or {} for entry in entries]
        regions = any(value for about in of_regions for value in about.values())
        key = attribute or _attribute(storage.where(file), file, of_regions if regions else of_files)
        for entry in entries:
            objects: Objects = ()
            if regions:
                for region in entry["regions"]:
                    names = _names((region.get("region_attributes") or {}).get(key))
                    objects += tuple((name, _edges(region["shape_attributes"])) for name in names)
            else:
                objects = tuple((name, None) for name in _names((entry.get("file_attributes") or {}).get(key)))
            yield Labeled(
                str(entry["filename"]), objects, file, split_in(file), nothing=regions and not entry["regions"]
            )
    except (KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{storage.where(file)}: is not as VIA writes it ({what})") from None


def _attribute(where: str, file: str, described: Iterable[Mapping[str, Any]]) -> str:
    """Return the only attribute that says something, or the one whose name says that it is the class."""
    keys = dict.fromkeys(key for about in described for key, value in about.items() if value and key not in NOT_CLASSES)
    if not keys:
        raise UserError(f"{where}: no region or file has an attribute with a value, so nothing says what is to be seen")
    named = [key for key in keys if key.lower().strip() in ATTRIBUTES]
    if len(keys) > 1 and len(named) != 1:
        raise UserError(
            f"{where}: attributes {few(keys, 10)} may each be the class; say which: --reader via:{file}:ATTRIBUTE"
        )
    return next(iter(named or keys))


def _names(value: Any) -> list[str]:
    """Return the classes that an attribute's value names; of check boxes those that are ticked."""
    if isinstance(value, dict):
        return [str(name) for name, there in value.items() if there]
    text = "" if value is None else str(value).strip()
    return [text] if text else []


def _edges(shape: Mapping[str, Any]) -> Edges:
    """Return the edges of the box around a shape; NaN for one that VIA does not know."""
    kind = shape.get("name")
    if kind == "rect":
        return corners([shape.get(key) for key in ("x", "y", "width", "height")])
    if kind in ("polygon", "polyline"):
        return around(shape.get("all_points_x") or (), shape.get("all_points_y") or ())
    x, y = number(shape.get("cx")), number(shape.get("cy"))
    if kind == "point":
        return x, y, x, y
    if kind == "circle":
        radii = number(shape.get("r")), number(shape.get("r"))
    else:
        radii = number(shape.get("rx")), number(shape.get("ry"))
    turned = number(shape.get("theta", 0))
    half = [math.hypot(radii[0] * math.cos(a), radii[1] * math.sin(a)) for a in (turned, turned + math.pi / 2)]
    return x - half[0], y - half[1], x + half[0], y + half[1]
