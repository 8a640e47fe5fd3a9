"""Reader of COCO's JSON (Lin et al. 2014), as COCO, Roboflow, CVAT, Label Studio and others write it."""

import re
from collections.abc import Iterator
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets.folder_names import split_in
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Finder, Labeled, corners, layout_of
from verydeep.datasets.layout import Layout, few
from verydeep.datasets.storage import Storage

HEAD = re.compile(rb'\s*\{\s*"(?:images|annotations|categories|info|licenses|type)"\s*:')
OTHERS = re.compile(r"captions|keypoints|panoptic|stuff|image_info")  # of COCO itself, beside its instances


def matches(storage: Storage) -> bool:
    """Say whether a JSON file begins as COCO's do."""
    return bool(files(storage))


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read the files that have categories and annotations, or those of `--reader coco:FILE,FILE`."""
    order: list[str] = []
    chosen = options.split(",") if options else files(storage)
    if absent := [file for file in chosen if file not in storage.files]:
        raise UserError(f"{storage.path}: has no {few(absent)}; it has {few(files(storage), 10) or 'no such files'}")
    labeled = [record for file in chosen for record in _labeled(storage, file, order)]
    used = sorted({record.file for record in labeled})
    splits = [split_in(file) for file in used]
    if len(set(splits)) < len(splits):
        raise UserError(
            f"{storage.path}: {few(used, 10)} are for the same pictures; say which: --reader coco:{used[0]}"
        )
    return layout_of(storage, labeled, Finder(storage), order=order, choice=choice)


def files(storage: Storage) -> list[str]:
    """Return the names of the files of labels, of COCO's own the instances alone."""
    found = [name for name in storage.outermost("json") if HEAD.match(storage.files[name].read(4096))]
    return sorted(name for name in found if not OTHERS.search(name)) or sorted(found)


def _labeled(storage: Storage, file: str, order: list[str]) -> Iterator[Labeled]:
    content = storage.json(file)
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
        order += categories.values()
        of_image: dict[Any, list[dict[str, Any]]] = {}
        for entry in content.get("annotations", []) if categories else []:
            if not entry.get("iscrowd"):
                of_image.setdefault(entry["image_id"], []).append(entry)
        for image in content.get("images", []) if categories else []:
            objects = tuple(
                (categories[entry["category_id"]], corners(entry["bbox"]) if entry.get("bbox") else None)
                for entry in of_image.get(image["id"], [])
            )
            size = (image["height"], image["width"]) if image.get("height") and image.get("width") else None
            # A file without any annotation says nothing of its images.
            yield Labeled(str(image["file_name"]), objects, file, split_in(file), size, bool(of_image))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{storage.where(file)}: is not as COCO writes it ({type(error).__name__}: {error})") from None
