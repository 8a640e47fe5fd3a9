"""Reader of Caltech-101 (Fei-Fei, Fergus, Perona 2004): 9,144 photographs, 101 categories and one of clutter."""

from dataclasses import replace

from verydeep.datasets import class_folders
from verydeep.datasets.layout import Layout
from verydeep.datasets.storage import Storage

FOLDER = "101_ObjectCategories"
CLUTTER = "BACKGROUND_Google"
TELLING = frozenset({"Faces_easy", "accordion", "yin_yang"})  # categories that together no other set has


def matches(storage: Storage) -> bool:
    """Say whether this is Caltech-101: its folder of categories, or the categories themselves."""
    return set(_categories(storage).folders()) >= TELLING


def read(storage: Storage) -> Layout:
    """Read `<category>/image_NNNN.jpg`, alone or in `101_ObjectCategories` beside the annotations.

    All 102 categories are classes, the clutter of BACKGROUND_Google among them, and every image is used. The set
    comes without splits.

    Parameters
    ----------
    storage : Storage
        The source.

    Returns
    -------
    Layout
        Its images, all "train".

    Raises
    ------
    UserError
        As `class_folders.read`.
    """
    layout = class_folders.read(_categories(storage))
    clutter = f", {CLUTTER} among them" if CLUTTER in layout.classes else f" ({CLUTTER} is absent)"
    return replace(layout, name="caltech-101", notes=(f"{len(layout.classes)} categories{clutter}", *layout.notes))


def _categories(storage: Storage) -> Storage:
    return storage.below(FOLDER) if FOLDER in storage.folders() else storage
