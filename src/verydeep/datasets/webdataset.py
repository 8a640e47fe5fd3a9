"""Reader of WebDataset's tars: samples of files that share a name, `0001.jpg` and `0001.cls` or `0001.json`."""

import re
from collections.abc import Iterator

from verydeep.datasets.folder_names import split_in
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice, names_in
from verydeep.datasets.labels import Finder, Labeled, class_names, layout_of
from verydeep.datasets.layout import Layout
from verydeep.datasets.storage import Storage, expand
from verydeep.images.formats import SUFFIXES

TARS = re.compile(r".*\.tar")
LABEL = re.compile(r"(.+/)?([^/.]+)\.(cls|label|class|(?:cls|label)\.txt|json)", re.IGNORECASE)
KEYS = ("label_name", "class_name", "label", "class", "cls", "category")


def matches(storage: Storage) -> bool:
    """Say whether files `.cls` and the like stand beside pictures, in tars or out of them."""
    if not storage.ending("cls", "label", "class", "json", "tar"):
        return False
    storage = expand(storage, TARS)
    first = next(_pairs(storage), None)
    return first is not None and _labels(storage, first[1], "") is not None


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read all shards; the name of a shard may say its split, and a list of class names what numbers mean."""
    storage = expand(storage, TARS)
    names = class_names(storage)
    return layout_of(storage, _labeled(storage, names, choice.separator), Finder(storage), order=names, choice=choice)


def _pairs(storage: Storage) -> Iterator[tuple[str, str]]:
    """Yield picture and file of the label."""
    pictures = {}
    for name in storage.files:
        folder, slash, last = name.rpartition("/")
        key, _, ending = last.partition(".")
        if ending.lower() in SUFFIXES:
            pictures[f"{folder}{slash}{key}"] = name
    labels: dict[str, str] = {}
    for name in storage.files:
        if found := LABEL.fullmatch(name):
            key = f"{found[1] or ''}{found[2]}"
            if key in pictures and (key not in labels or not found[3].lower().endswith("json")):
                labels[key] = name
    yield from ((pictures[key], file) for key, file in labels.items())


def _labeled(storage: Storage, names: list[str], separator: str) -> Iterator[Labeled]:
    for picture, file in _pairs(storage):
        labels = _labels(storage, file, separator)
        found = [names[int(text)] if text.isdecimal() and int(text) < len(names) else text for text in labels or ()]
        split = next((split for part in picture.split("/")[:-1] if (split := split_in(part))), None)
        yield Labeled(picture, tuple((name, None) for name in found), file, split, nothing=labels == [])


def _labels(storage: Storage, file: str, separator: str) -> list[str] | None:
    """Return a sample's labels, several where they are a list; None where its file says nothing."""
    if not file.lower().endswith("json"):
        return names_in(storage.text(file), separator)
    values = storage.json(file)
    return (
        names_in(next((values[key] for key in KEYS if key in values), None), separator)
        if isinstance(values, dict)
        else None
    )
