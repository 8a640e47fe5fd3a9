"""Reader of PASCAL VOC (Everingham et al. 2010), for one class an image: that of its largest object."""

import re

from verydeep.basics.errors import BadBoxError, BadImageError, UserError
from verydeep.datasets.annotations import XmlBoxes, make_box, parse_objects, stem
from verydeep.datasets.dataset import Sample
from verydeep.datasets.layout import Layout, few
from verydeep.datasets.storage import Storage

IMAGE = re.compile(r"(?:.*/)?JPEGImages/[^/]+\.jpe?g", re.IGNORECASE)
ANNOTATION = re.compile(r"(?:.*/)?Annotations/[^/]+\.xml")
LIST = re.compile(r"(?:.*/)?ImageSets/Main/(train|val|test)\.txt")


def matches(storage: Storage) -> bool:
    """Say whether this is VOC: images in JPEGImages and XML files in Annotations."""
    return any(map(IMAGE.fullmatch, storage.files)) and any(map(ANNOTATION.fullmatch, storage.files))


def read(storage: Storage, options: str = "") -> Layout:
    """Read `JPEGImages`, `Annotations` and the lists of `ImageSets/Main`.

    VOC's images show objects of several classes; here an image has the class of its largest object, and boxes are
    those of all objects of that class. Without lists all images are training images.

    Parameters
    ----------
    storage : Storage
        A folder `VOC2007` or `VOC2012`.

    Returns
    -------
    Layout
        Its annotated images; classes in alphabetical order.

    Raises
    ------
    UserError
        If a list names an image that is not there, or there are fewer than two classes.
    """
    files = {stem(name): name for name in storage.files if ANNOTATION.fullmatch(name)}
    images = {stem(name): name for name in sorted(storage.files) if IMAGE.fullmatch(name)}
    bad: list[BadBoxError] = []
    label_of = {key: found for key in images if key in files and (found := _largest(storage, files[key], bad))}
    classes = tuple(sorted(set(label_of.values())))
    if len(classes) < 2:
        raise UserError(f"{storage.path}: its annotations name objects of fewer than two classes")
    parts = {
        split: [Sample(images[key], classes.index(label_of[key])) for key in keys if key in label_of]
        for split, keys in _lists(storage, images).items()
    }
    names = {label: (name,) for label, name in enumerate(classes)}
    left_out = len(images) - len(label_of)
    return Layout(
        storage.path.resolve().stem.lower(),
        classes,
        {split: samples for split, samples in parts.items() if samples},
        storage,
        notes=(f"{left_out} images without readable objects are left out",) if left_out else (),
        bad_boxes=tuple(bad),
        annotate=XmlBoxes(storage, names, 1, files.values(), images.values()),
    )


def _largest(storage: Storage, file: str, bad: list[BadBoxError]) -> str | None:
    """Return the class of the largest object, None where there is none; what is wrong is noted."""
    where = storage.where(file)
    areas: dict[str, float] = {}
    try:
        for name, edges in parse_objects(storage.read(file), where):
            box = make_box(edges, 1, where)
            areas[name] = max(areas.get(name, 0.0), (box.xmax - box.xmin) * (box.ymax - box.ymin))
    except (BadBoxError, BadImageError) as error:
        bad.append(BadBoxError(error.name, error.reason))
        return None
    if not areas:
        bad.append(BadBoxError(where, "has no objects"))
        return None
    return max(areas, key=lambda name: areas[name])


def _lists(storage: Storage, images: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in storage.files:
        if match := LIST.fullmatch(name):
            # Some lists have a second column, which says whether an object of a class is there.
            found[match[1]] = [line.split()[0] for line in storage.text(name).splitlines() if line.strip()]
    absent = sorted({key for keys in found.values() for key in keys} - set(images))
    if absent:
        raise UserError(f"{storage.path}: {len(absent)} listed images are missing ({few(absent)})")
    return found or {"train": list(images)}
