"""Reader of YOLO's text files: one a picture, in each line a class's number and a box, or a polygon around it."""

import re
from collections.abc import Iterator

from verydeep.datasets import class_folders
from verydeep.datasets.annotations import RELATIVE
from verydeep.datasets.folder_names import split_of
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Edges, Finder, Labeled, around, class_names, layout_of, number
from verydeep.datasets.layout import Layout
from verydeep.datasets.storage import Storage

LINE = re.compile(rb"\s*\d+(?:[ \t]+-?[\d.]+(?:[eE]-?\d+)?){4,}\s*(?:[\r\n]|$)")
LOOKED_AT = 200  # text files that are looked into: many pictures may show nothing, and their files be empty
PATH = re.compile(r"^(train|val|test):[ \t]*[\"']?([^\"'\n\[\]#]+)", re.MULTILINE)


def matches(storage: Storage) -> bool:
    """Say whether there are text files of such lines for pictures."""
    texts = [name for name in _texts(storage) if LINE.match(storage.files[name].read(512))]
    finder = Finder(storage) if texts else None
    if not any(finder and finder.find(name[:-4], name) for name in texts):
        return False
    return bool(class_names(storage)) or not class_folders.are_there(storage)  # folders have names, numbers none


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read the files beside the pictures, or in `labels` beside `images`; names are those of data.yaml or a list.

    Whoever writes such files shows pictures upright, so boxes are shares of the upright picture's sides.
    """
    names, finder = class_names(storage), Finder(storage)
    return layout_of(storage, _labeled(storage, names, finder), finder, order=names, choice=choice)


def _texts(storage: Storage) -> list[str]:
    texts = storage.ending("txt")
    return texts[:: max(1, len(texts) // LOOKED_AT)]


def _labeled(storage: Storage, names: list[str], finder: Finder) -> Iterator[Labeled]:
    folders = _split_folders(storage)
    for file in storage.ending("txt"):
        picture = finder.find(file[:-4], file)
        if picture is None:
            continue
        split = next((split for folder, split in folders.items() if f"/{folder}/" in f"/{picture}"), None)
        rows = [line.split() for line in storage.text(file).splitlines() if line.strip()]
        objects = tuple((_name(row[0], names), _edges([number(word) for word in row[1:]])) for row in rows)
        yield Labeled(picture, objects, file, split, RELATIVE, nothing=True)


def _name(word: str, names: list[str]) -> str:
    return names[int(word)] if word.isdecimal() and int(word) < len(names) else word


def _edges(numbers: list[float]) -> Edges:
    if len(numbers) >= 6 and len(numbers) % 2 == 0:  # a polygon
        return around(numbers[::2], numbers[1::2])
    x, y, width, height = (*numbers, *[float("nan")] * 4)[:4]  # the center, and perhaps a confidence behind
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _split_folders(storage: Storage) -> dict[str, str]:
    """Return folders whose split data.yaml says, where their names do not."""
    found = {}
    for file in storage.ending("yaml", "yml"):
        for split, path in PATH.findall(storage.text(file)):
            folder = re.sub(r"^(\.*/)+", "", path.strip()).rstrip("/")
            if folder and not any(map(split_of, folder.split("/"))):
                found[folder] = split
    return found
