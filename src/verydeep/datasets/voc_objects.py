"""Reader of PASCAL VOC's XML (Everingham et al. 2010), for one class an image: that of its largest object."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from verydeep.basics.errors import BadBoxError, BadImageError, UserError
from verydeep.datasets import class_folders
from verydeep.datasets.annotations import parse_annotation, picture_named, stem
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Edges, Finder, Labeled, layout_of, number, owned
from verydeep.datasets.layout import Layout, few
from verydeep.datasets.storage import Storage

IMAGE = re.compile(r"(?:.*/)?JPEGImages/[^/]+\.jpe?g", re.IGNORECASE)
ROOT = re.compile(rb"<annotation[\s>]")
LOOKED_AT = 20  # files that are opened to see whether they name pictures that are called otherwise than they
LIST = re.compile(r"(?:.*/)?ImageSets/Main/(train|val|test)\.txt")


def matches(storage: Storage) -> bool:
    """Say whether this is VOC: XML files, and images in JPEGImages or in folders that are no classes."""
    files = storage.ending("xml")
    if not files or not ROOT.search(storage.files[files[0]].read(512)):
        return False
    if any(map(IMAGE.fullmatch, storage.files)):
        return True
    finder = Finder(storage)
    there = any(finder.find(file.rpartition(".")[0], file) for file in files) or any(
        finder.find(picture_named(storage.read(file)), file) for file in files[:LOOKED_AT]
    )
    return there and not class_folders.are_there(storage)


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read images, the XML files beside them or in Annotations, and the lists of `ImageSets/Main`.

    VOC's images show objects of several classes; here an image has the class of its largest object, and boxes are
    those of all objects of that class. Without lists splits are the folders' (Roboflow's), or all images are for
    training. UserError if a list names an image that is not there, or there are fewer than two classes.
    """
    images = sorted(filter(IMAGE.fullmatch, storage.files)) or storage.images
    splits = _lists(storage, images)
    bad: list[BadBoxError] = []
    finder = Finder(storage, images)
    own = owned(finder, {file: _named(storage, file) for file in storage.ending("xml")})
    labeled = _labeled(storage, own.pictures, splits, bad)
    layout = layout_of(storage, labeled, finder, bad=bad, choice=choice, notes=own.notes)
    return replace(layout, name=layout.name.lower())


def _named(storage: Storage, file: str) -> str:
    try:
        return picture_named(storage.read(file))
    except BadImageError:  # whoever reads its objects says so
        return ""


def _labeled(
    storage: Storage, pictures: Mapping[str, str | None], splits: dict[str, str], bad: list[BadBoxError]
) -> Iterator[Labeled]:
    """Yield what each file says, with boxes by their edges: their first and last pixels count from 1."""
    for file, picture in pictures.items():
        where = storage.where(file)
        if picture is None:
            named = _named(storage, file)
            words = f"{named}, an image that is not there; nor is one called as the file is" if named else ""
            bad.append(BadBoxError(where, f"annotates {words or 'an image that is not there'}"))
        elif not splits or stem(picture) in splits:
            try:
                found, size = parse_annotation(storage.read(file), where)
            except (BadBoxError, BadImageError) as error:
                bad.append(BadBoxError(where, error.reason))
                continue
            if not found:
                bad.append(BadBoxError(where, "has no objects"))
            objects = tuple((name, _edges(edges)) for name, edges in found)
            yield Labeled(picture, objects, file, splits.get(stem(picture)), size, nothing=True)


def _edges(words: list[str]) -> Edges:
    xmin, ymin, xmax, ymax = map(number, words)
    return xmin - 1, ymin - 1, xmax, ymax


def _lists(storage: Storage, images: list[str]) -> dict[str, str]:
    """Return the split of each image by its name without folder and ending; {} where there are no lists."""
    splits: dict[str, str] = {}
    for name in storage.files:
        if match := LIST.fullmatch(name):
            # Some lists have a second column, which says whether an object of a class is there.
            splits |= {line.split()[0]: match[1] for line in storage.text(name).splitlines() if line.strip()}
    absent = sorted(set(splits) - set(map(stem, images)))
    if absent:
        raise UserError(f"{storage.path}: {len(absent)} listed images are missing ({few(absent)})")
    return splits
