"""Reader of the common form: one folder a class, perhaps within folders train, val and test."""

import re
from dataclasses import replace

from verydeep.basics.errors import UserError
from verydeep.datasets.annotations import XmlBoxes
from verydeep.datasets.dataset import Sample
from verydeep.datasets.folder_names import (
    are_parts,
    holds_pictures,
    is_generic,
    is_mask,
    split_folders,
    split_of,
)
from verydeep.datasets.layout import Layout, few, left_out, name_of, without_outer_folders
from verydeep.datasets.storage import Storage
from verydeep.images.formats import SUFFIXES

# In a split: images in a folder that says nothing have no label.
NO_CLASS = frozenset({"images", "test", "unknown", "unlabeled", "unlabelled"})
MASK = re.compile(r"(.+?)[ _-]+(?:masks?|segmentation|seg|gt)(?:[_-]?\d+)?\.\w+", re.IGNORECASE)
HOW = (
    "put them into a folder for each class (train/cat/1.jpg), or a table with columns file_name,label (labels.csv) "
    "beside them"
)
ByClass = dict[str, list[str]]


def matches(storage: Storage) -> bool:
    """Say yes: what no other reader knows is read as class folders, or refused by `read` with the reason."""
    return True


def read(storage: Storage, options: str = "") -> Layout:
    """Read `<class>/*` or `train/<class>/*`, `val/<class>/*`, `test/<class>/*`, or `<class>/train/*` and so on.

    The class of an image is the first folder it lies in; folders further in belong to it. Classes are in sorted
    order. Files that are no images, masks among them, and folders without any, are left out and noted; XML files of
    VOC's form hold boxes, beside the images (`cat/1.jpg`, `cat/1.xml`) or in a folder Annotations
    (`Annotations/cat/1.xml`). With the option `top` the outermost folders are classes although each holds the same
    folders. UserError where the folders are no classes, or images lie beside them.
    """
    annotations = storage.ending("xml")
    images, notes = _without_masks(storage.images)
    images, again = _without_copies(images)
    notes += again
    if not images:
        raise UserError(f"{storage.path}: holds no images; expected one folder of images a class")
    if (top := _only_folder(images)) is not None:
        inner = read(without_outer_folders(storage.below(top)), options)
        return replace(inner, notes=(*inner.notes, f"{top}/ alone is read; what lies beside it is no class"))
    found, more = _by_split(images, storage, options == "top")
    classes = tuple(sorted(found["train"] if "train" in found else set().union(*found.values())))
    if len(classes) < 2:
        raise UserError(f"{storage.path}: holds one class only ({classes[0]}); expected a folder each for two or more")
    notes += [*more, *_compare(found, classes, storage)]
    notes += left_out(sorted(set(storage.others).difference(annotations)), images)
    parts = {split: _samples(by_class, classes) for split, by_class in found.items()}
    own = {label: (name,) for label, name in enumerate(classes)}
    boxes = XmlBoxes(storage, own, 1, annotations, images, _beside) if annotations else None
    return Layout(name_of(storage), classes, parts, storage, notes=tuple(notes), annotate=boxes)


def are_there(storage: Storage) -> bool:
    """Say whether `read` can read it."""
    try:
        read(storage)
    except UserError:
        return False
    return True


def _beside(name: str) -> str:
    """Return a name without its ending and without folders called Annotations."""
    folders, _, last = name.rpartition("/")
    kept = [folder for folder in folders.split("/") if folder.lower() != "annotations"]
    return "/".join([*kept, last.rpartition(".")[0]])


def _without_masks(images: list[str]) -> tuple[list[str], list[str]]:
    """Leave out what lies in `masks` beside `images`, and `1_mask.png` beside `1.png`; note how many there are."""
    folders = {name.rpartition("/")[0] for name in images}
    folders |= {above for folder in folders for above in _above(folder)}
    siblings = {folder.rpartition("/")[0] for folder in folders if holds_pictures(folder.rpartition("/")[2])}
    masks = {f for f in folders if f.rpartition("/")[0] in siblings and is_mask(f.rpartition("/")[2])}
    drawn = {name: match[1] for name in images if (match := MASK.fullmatch(name))}
    every = set(images) if drawn else set()
    beside = {name for name, stem in drawn.items() if any(f"{stem}.{ending}" in every for ending in SUFFIXES)}
    kept = [n for n in images if n not in beside and masks.isdisjoint(_above(n))] if masks or beside else images
    notes = []
    if masks:
        lost = len(images) - len(kept) - len(beside)
        notes.append(f"{few(sorted(masks))}: {lost} masks beside images/ are no pictures to learn, and left out")
    if beside:
        notes.append(f"{few(sorted(beside))}: masks of the pictures beside them are left out")
    return kept, notes


def _without_copies(images: list[str]) -> tuple[list[str], list[str]]:
    """Leave out a folder that holds all the folders beside it once more, as `set/cat` beside `cat` and `dog`."""
    inner: dict[str, set[str]] = {}
    for name in images:
        if "/" in name:
            inner.setdefault(name.partition("/")[0], set()).add(name.split("/")[1] if name.count("/") > 1 else "")
    copies = [top for top, names in inner.items() if len(names) > 1 and names == set(inner) - {top}]
    if not copies:
        return images, []
    note = f"{copies[0]}/ holds the folders beside it once more: not used"
    return [name for name in images if name.partition("/")[0] != copies[0]], [note]


def _above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _only_folder(images: list[str]) -> str | None:
    """Return the one folder that holds class folders, where pictures lie beside it or it is the only one."""
    tops = {name.partition("/")[0] for name in images if "/" in name}
    top = next(iter(tops)) if len(tops) == 1 else None
    if top is None or split_of(top) or len({n.split("/")[1] for n in images if n.count("/") > 1}) < 2:
        return None
    return top


def _by_split(images: list[str], storage: Storage, top: bool) -> tuple[dict[str, ByClass], list[str]]:
    """Return image names by split and class, and notes on what is not used; UserError where folders are no classes."""
    tops = sorted({name.partition("/")[0] for name in images if "/" in name})
    splits = split_folders(tops)
    inside = {
        folder: _class_level([n for n in images if n.startswith(f"{folder}/")], f"{folder}/") for folder in splits
    }
    # `train` alone, beside other folders and with images right in it, may well be a class of vehicles.
    if splits and not any(inside.values()) and [folder.lower() for folder in splits] == ["train"] and len(tops) > 1:
        splits = {}
    if splits:
        return _own_splits(images, splits, inside, storage)
    if not top:
        nested = _check_tops(images, tops, storage)
        if nested:
            return nested, []
    return {"train": _by_class(images, "", storage)}, []


def _own_splits(
    images: list[str], splits: dict[str, str], inside: dict[str, str | None], storage: Storage
) -> tuple[dict[str, ByClass], list[str]]:
    found: dict[str, ByClass] = {}
    notes, used = [], 0
    for folder, split in splits.items():
        own = [name for name in images if name.startswith(f"{folder}/")]
        used += len(own)
        if prefix := inside[folder]:
            for name, members in _by_class(own, prefix, storage).items():
                found.setdefault(split, {}).setdefault(name, []).extend(members)
        elif split == "train" or not any(inside.values()):
            there = [each for each in splits if not inside[each]]
            what = f"{few(f'{each}/' for each in there)}: no class folders in {'it' if len(there) == 1 else 'them'}"
            raise UserError(f"{storage.path}: {what}, so the images have no labels; splits are no classes: {HOW}")
        else:
            notes.append(f"{len(own)} images in {folder}/ have no class folder, so no label: not used")
    if used < len(images):
        notes.append(f"{len(images) - used} images outside {few(splits)} are not used")
    return found, notes


def _class_level(images: list[str], prefix: str) -> str | None:
    """Return the folder, below `prefix`, that holds the class folders; None where there are none.

    `seg_train/seg_train/cat`: folders that are alone and say nothing are passed.
    """
    while True:
        inner = {name[len(prefix) :].partition("/")[0] for name in images if name.count("/", len(prefix))}
        if len(inner) == 1:
            (only,) = inner
            if is_generic(only) or split_of(only) or only.lower() in NO_CLASS:
                prefix = f"{prefix}{only}/"
                continue
        return None if not inner or are_parts(inner) else prefix


def _check_tops(images: list[str], tops: list[str], storage: Storage) -> dict[str, ByClass] | None:
    """Raise UserError where the outermost folders are no classes; return splits that lie within the classes."""
    inner: dict[str, set[str]] = {top: set() for top in tops}
    for name in images:
        if "/" in name:  # the first folder within the outermost one that says something, "" where there is none
            top, *folders, _ = name.split("/")
            inner[top].add(next((folder for folder in folders if not is_generic(folder)), ""))

    def place(top: str) -> str:
        first = next(name for name in images if name.startswith(f"{top}/"))
        return storage.where(first)[: len(top) - len(first)]

    every = set().union(*inner.values())
    if are_parts(tops):
        level = next((top for top in tops if inner[top] != {""}), None)
        how = f"give one with class folders in it, such as {place(level)}" if level else HOW
        raise UserError(f"{storage.path}: {few(f'{top}/' for top in tops)}: such names are no classes; {how}")
    if len(tops) < 2 or "" in every:
        return None
    if all(map(split_of, every)):
        if any(name.count("/") > 2 for name in images):
            raise UserError(f"{storage.path}: {few(tops)} have splits of their own; give one, such as {place(tops[0])}")
        return _splits_within(images)
    shared = set.intersection(*inner.values())
    if len(shared) > 1 and 2 * len(shared) >= len(every):
        raise UserError(
            f"{storage.path}: {few(tops)} all hold the same folders ({few(sorted(shared))}), so these look like the "
            f"classes; give one, such as {place(tops[0])}, or --reader class-folders:top if the outer ones are classes"
        )
    return None


def _splits_within(images: list[str]) -> dict[str, ByClass]:
    """Return the pictures of `cat/train/1.jpg`, `cat/test/2.jpg` and so on."""
    found: dict[str, ByClass] = {}
    for name in images:
        folder, split, *_ = name.split("/")
        found.setdefault(str(split_of(split)), {}).setdefault(folder, []).append(name)
    return found


def _by_class(images: list[str], prefix: str, storage: Storage) -> ByClass:
    """Return image names by the folder they lie in below `prefix`; UserError if one lies in none."""
    by_class: ByClass = {}
    for name in images:
        folder, slash, _ = name[len(prefix) :].partition("/")
        if not slash:
            where = storage.where(name)
            raise UserError(f"{where}: this image lies in no class folder; move it into the folder of its class")
        by_class.setdefault(folder, []).append(name)
    return by_class


def _compare(found: dict[str, ByClass], classes: tuple[str, ...], storage: Storage) -> list[str]:
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


def _samples(by_class: ByClass, classes: tuple[str, ...]) -> list[Sample]:
    return [Sample(name, label) for label, folder in enumerate(classes) for name in by_class.get(folder, ())]
