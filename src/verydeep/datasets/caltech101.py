"""Reader of Caltech-101 (Fei-Fei, Fergus, Perona 2004): 9,144 photographs, 101 categories and one of clutter."""

import re
from dataclasses import replace

from verydeep.datasets import class_folders
from verydeep.datasets.layout import Layout
from verydeep.datasets.storage import Storage

FOLDER = "101_ObjectCategories"
CLUTTER = "BACKGROUND_Google"
IMAGE = re.compile(r"[^/]+/image_\d{4}\.jpg")
TELLING = frozenset({"Faces_easy", "accordion", "yin_yang"})  # categories that together no other set has


def matches(storage: Storage) -> bool:
    """Say whether this is Caltech-101: its folder of categories, or the categories themselves."""
    return set(_categories(storage).folders()) >= TELLING


def read(storage: Storage, options: str = "") -> Layout:
    """Read `<category>/image_NNNN.jpg`, alone or in `101_ObjectCategories` beside the annotations; there are no splits.

    All 102 categories are classes, the clutter of BACKGROUND_Google among them, and all 9,144 images are used (the
    nameless one that the archive also holds, BACKGROUND_Google/tmp, is none of these).
    """
    found = _categories(storage)
    pictures = Storage(found.path, {name: file for name, file in found.files.items() if IMAGE.fullmatch(name)})
    layout = class_folders.read(pictures)
    clutter = f", {CLUTTER} among them" if CLUTTER in layout.classes else f" ({CLUTTER} is absent)"
    return replace(layout, name="caltech-101", notes=(f"{len(layout.classes)} categories{clutter}", *layout.notes))


def _categories(storage: Storage) -> Storage:
    return storage.below(FOLDER) if FOLDER in storage.folders() else storage
