"""Reader of PASCAL VOC (Everingham et al. 2010): images with several classes each, and people with their actions."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.datasets.annotations import make_box, parse_objects
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.datasets.layout import few
from verydeep.datasets.storage import Storage, open_storage

SPLITS = ("train", "val", "test")
NOT_AN_ACTION = "other"  # listed with the ten actions, but not among those that the challenge scores


@dataclass(frozen=True, eq=False)
class Voc:
    """The images of a challenge, all its splits together."""

    dataset: Dataset  # for actions an image for each person, so perhaps several times; labels are -1
    ids: tuple[str, ...]  # unique: the image's name, for a person `<image>#<object>`
    classes: tuple[str, ...]  # in alphabetical order
    # N x K: 1 where the class is there, -1 where not, 0 where it is "difficult": not counted in training and tests.
    targets: NDArray[np.int8]
    splits: dict[str, NDArray[np.int64]]  # indices of train, val and, where its labels are there, test
    boxes: tuple[Box, ...] = ()  # for actions, each person's


def read_voc(path: str | Path, year: int, actions: bool = False) -> Voc:
    """Read VOC's folder or archive, `VOC<year>` or anything around it, such as `VOCdevkit`.

    With `actions` the people of `ImageSets/Action` instead of the images of `ImageSets/Main`. UserError, naming it,
    where something that is needed is missing, or lists disagree.
    """
    storage = _root(open_storage(Path(path)), year)
    folder = f"ImageSets/{'Action' if actions else 'Main'}"
    lists = _lists(storage, folder)
    classes = tuple(sorted({name for name, _ in lists} - {NOT_AN_ACTION}))
    found = [split for split in SPLITS if any((name, split) in lists for name in classes)]
    rows: dict[str, list[int]] = {}
    splits: dict[str, NDArray[np.int64]] = {}
    for split in found:
        start = len(rows)
        for k, name in enumerate(classes):
            if (name, split) not in lists:
                raise UserError(f"{storage.path}: {folder}/{name}_{split}.txt is missing; other classes have one")
            _enter(rows, _entries(storage, lists[name, split], actions), k, len(classes), split)
        splits[split] = np.arange(start, len(rows))
        ragged = [entry for entry in list(rows)[start:] if len(rows[entry]) < len(classes)]
        if ragged:
            raise UserError(f"{storage.path}: {few(ragged)}: not in the {split} lists of all {len(classes)} classes")
    if "train" not in splits or "val" not in splits:
        raise UserError(f"{storage.path}: {folder} has no <class>_train.txt and <class>_val.txt for VOC{year}")
    images = [f"JPEGImages/{entry.partition('#')[0]}.jpg" for entry in rows]
    absent = [image for image in images if image not in storage.files]
    if absent:
        raise UserError(f"{storage.path}: {len(absent)} listed images are missing ({few(absent)})")
    dataset = Dataset(f"voc{year}", "all", classes, [Sample(image, -1) for image in images], storage)
    boxes = tuple(_person(storage, entry) for entry in rows) if actions else ()
    return Voc(dataset, tuple(rows), classes, np.array(list(rows.values()), np.int8), splits, boxes)


def _root(storage: Storage, year: int) -> Storage:
    """Return the storage from the folder on that holds `ImageSets`: that of the year, or the only one."""
    roots = sorted({name.partition("ImageSets/")[0] for name in storage.files if "ImageSets/" in name})
    named = [root for root in roots if f"VOC{year}" in root] or (roots if len(roots) == 1 else [])
    others = [root for root in roots if "VOC" in root and f"VOC{year}" not in root]
    if not named or (named == others):
        has = f" (has: {few(roots)})" if roots else ""
        raise UserError(f"{storage.path}: no VOC{year} with its folder ImageSets in it{has}")
    return storage.below(named[0].rstrip("/")) if named[0] else storage


def _lists(storage: Storage, folder: str) -> dict[tuple[str, str], str]:
    """Return the file that lists the images of a class and split, by both."""
    lists = {}
    for file in storage.files:
        name, _, split = file.removeprefix(f"{folder}/").removesuffix(".txt").rpartition("_")
        if file.startswith(f"{folder}/") and file.endswith(".txt") and name and split in SPLITS:
            lists[name, split] = file
    if not lists:
        raise UserError(f"{storage.path}: {folder} holds no <class>_<split>.txt")
    return lists


def _entries(storage: Storage, file: str, actions: bool) -> Iterable[tuple[str, int]]:
    """Yield what a list names, `image` or `image#object`, and its target."""
    for number, line in enumerate(storage.text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 + actions or words[-1] not in ("1", "-1", "0"):
            form = "image object 1|0|-1" if actions else "image 1|0|-1"
            raise UserError(f"{storage.where(file)}, line {number}: {line.strip()!r}; expected {form}")
        yield "#".join(words[:-1]), int(words[-1])


def _enter(rows: dict[str, list[int]], entries: Iterable[tuple[str, int]], k: int, classes: int, split: str) -> None:
    for entry, target in entries:
        row = rows.setdefault(entry, [])
        if len(row) != k:
            raise UserError(f"VOC: {entry} is listed twice, or in some classes' lists only (last seen in {split})")
        row.append(target)


def _person(storage: Storage, entry: str) -> Box:
    """Return the box of the object `image#number`, counted from 1 in the image's annotation."""
    image, _, number = entry.partition("#")
    name = f"Annotations/{image}.xml"
    if name not in storage.files:
        raise UserError(f"{storage.path}: {name} is missing, which holds the box of {entry}")
    where = storage.where(name)
    objects = parse_objects(storage.read(name), where)
    if not number.isdecimal() or not 1 <= int(number) <= len(objects):
        raise UserError(f"{where}: holds no box of object {number}")
    return make_box(objects[int(number) - 1][1], 1, where)
