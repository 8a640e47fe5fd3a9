"""Reader of the common form: one folder a class, perhaps within folders train, val and test."""

from verydeep.basics.errors import UserError
from verydeep.datasets.annotations import XmlBoxes
from verydeep.datasets.dataset import Sample
from verydeep.datasets.layout import Layout, few, image_names
from verydeep.datasets.storage import Storage

# What people call the folders of a split, in lower case.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# In val and test: images right in the split's folder, or in a folder that says nothing, have no label.
NO_CLASS = frozenset({"", "images", "test", "unknown"})


def matches(storage: Storage) -> bool:
    """Say yes: what no other reader knows is read as class folders, or refused by `read` with the reason."""
    return True


def read(storage: Storage) -> Layout:
    """Read `<class>/*` or `train/<class>/*`, `val/<class>/*`, `test/<class>/*`.

    The class of an image is the first folder it lies in; folders further in belong to it. Classes are in sorted
    order. Files that are no images, and folders without any, are left out and noted; XML files of VOC's form hold
    boxes, beside the images (`cat/1.jpg`, `cat/1.xml`) or in a folder Annotations (`Annotations/cat/1.xml`).

    Parameters
    ----------
    storage : Storage
        The source.

    Returns
    -------
    Layout
        Its images.

    Raises
    ------
    UserError
        If images lie beside the class folders, there are fewer than two classes, or val or test has a class
        that train lacks.
    """
    images, others = image_names(storage, storage.files)
    annotations = [name for name in others if name.lower().endswith(".xml")]
    others = sorted(set(others) - set(annotations))
    notes = [f"left out, as they are no images: {few(others)}"] if others else []
    if not images:
        raise UserError(f"{storage.path}: holds no images; expected one folder of images a class")
    folders = split_folders(images)
    if not folders:
        found = {"train": _by_class(images, "", storage)}
    else:
        found, more = _by_split(images, folders, storage)
        notes += more
    classes = tuple(sorted(found["train"] if "train" in found else set().union(*found.values())))
    if len(classes) < 2:
        raise UserError(f"{storage.path}: holds one class only ({classes[0]}); expected a folder each for two or more")
    notes += _compare(found, classes, storage)
    parts = {split: _samples(by_class, classes) for split, by_class in found.items()}
    path = storage.path.resolve()  # "." has no name of its own
    name = path.name if path.is_dir() else path.stem
    own = {label: (name,) for label, name in enumerate(classes)}
    boxes = XmlBoxes(storage, own, 1, annotations, images, _beside) if annotations else None
    return Layout(name, classes, parts, storage, notes=tuple(notes), annotate=boxes)


def _beside(name: str) -> str:
    """Return a name without its ending and without folders called Annotations."""
    folders, _, last = name.rpartition("/")
    kept = [folder for folder in folders.split("/") if folder.lower() != "annotations"]
    return "/".join([*kept, last.rpartition(".")[0]])


def split_folders(images: list[str]) -> dict[str, str]:
    """Return which top folder holds which split, {} if the top folders are classes.

    Folders with a split's name are splits if class folders lie in one of them: with images right in it, and
    nothing else, `train` may well be a class of vehicles.
    """
    tops = {name.partition("/")[0] for name in images if "/" in name}
    found = {split: top for split, known in SPLIT_FOLDERS.items() for top in sorted(tops) if top.lower() in known}
    nested = {name.partition("/")[0] for name in images if name.count("/") > 1}
    return found if nested.intersection(found.values()) else {}


def _by_split(
    images: list[str], folders: dict[str, str], storage: Storage
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Return image names by split and class, and notes on what is not used."""
    found, notes, used = {}, [], 0
    for split, folder in folders.items():
        prefix = f"{folder}/"
        own = [name for name in images if name.startswith(prefix)]
        used += len(own)
        inside = {name.split("/")[1] if name.count("/") > 1 else "" for name in own}
        if split != "train" and inside <= NO_CLASS:
            notes.append(f"{len(own)} images in {folder}/ have no class folder, so no label: not used")
        else:
            found[split] = _by_class(own, prefix, storage)
    if used < len(images):
        notes.append(f"{len(images) - used} images outside {few(folders.values())} are not used")
    return found, notes


def _by_class(images: list[str], prefix: str, storage: Storage) -> dict[str, list[str]]:
    """Return image names by the folder they lie in below `prefix`; UserError if one lies in none."""
    by_class: dict[str, list[str]] = {}
    for name in images:
        folder, slash, _ = name[len(prefix) :].partition("/")
        if not slash:
            where = storage.where(name)
            raise UserError(f"{where}: this image lies in no class folder; move it into the folder of its class")
        by_class.setdefault(folder, []).append(name)
    return by_class


def _compare(found: dict[str, dict[str, list[str]]], classes: tuple[str, ...], storage: Storage) -> list[str]:
    """Raise UserError if a split has a class that train lacks; note the classes that a split lacks."""
    notes = []
    for split, by_class in found.items():
        strange = sorted(set(by_class) - set(classes))
        if strange:
            raise UserError(f"{storage.path}: {split} has classes that train lacks: {few(strange)}")
        absent = sorted(set(classes) - set(by_class))
        if absent:
            notes.append(f"{split} has no image of {len(absent)} classes ({few(absent)})")
    return notes


def _samples(by_class: dict[str, list[str]], classes: tuple[str, ...]) -> list[Sample]:
    return [Sample(name, label) for label, folder in enumerate(classes) for name in by_class.get(folder, ())]
