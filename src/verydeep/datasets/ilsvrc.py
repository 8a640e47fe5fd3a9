"""Reader of ILSVRC-2012 (Russakovsky et al. 2015), as the official archives or as a tree unpacked from them."""

import re
from collections.abc import Iterator

from verydeep.basics.errors import UserError
from verydeep.datasets.annotations import XmlBoxes, stem
from verydeep.datasets.dataset import Sample
from verydeep.datasets.ilsvrc_truth import TRUTH_FILES, read_truth
from verydeep.datasets.layout import WNID, Layout, few
from verydeep.datasets.storage import Storage, expand

NAME = "ilsvrc-2012"
CLASSES = 1000
TARS = re.compile(r"(?:.*/)?(?:ILSVRC2012_img_(?:train|val)|n\d{8})\.tar")
TRAIN = re.compile(r"(?:.*/)?(?:ILSVRC2012_img_)?train/(n\d{8})/[^/]+\.jpe?g", re.IGNORECASE)
TRAIN_ALONE = re.compile(r"(n\d{8})/(?!ILSVRC2012_val_)[^/]+\.jpe?g", re.IGNORECASE)  # in ILSVRC2012_img_train.tar
PACKED_BOXES = re.compile(r"ILSVRC2012_bbox_[^/]*(?:\.tar\.gz|\.tgz)$")
VAL = re.compile(r"(?:.*/)?(?:ILSVRC2012_img_)?val/(?:(n\d{8})/)?([^/]+)\.jpe?g", re.IGNORECASE)
VAL_ALONE = re.compile(r"(?:(n\d{8})/)?(ILSVRC2012_val_\d{8})\.jpe?g", re.IGNORECASE)  # what the folder val holds


def matches(storage: Storage) -> bool:
    """Say whether this is ILSVRC-2012: one of its archives, its validation labels, or 1,000 WordNet classes.

    Trees of fewer classes with validation images in class folders, such as the smaller sets made of ImageNet,
    are class folders: their splits are not ILSVRC's.
    """
    folders = {part for name in storage.files for part in name.split("/")[-2:-1] if WNID.fullmatch(part)}
    names = {name.rpartition("/")[2] for name in storage.files}
    flat = any((found := VAL.fullmatch(name)) and not found[1] for name in storage.files)
    return (
        any(map(TARS.fullmatch, storage.files))
        or len(folders) >= CLASSES
        or (bool(folders) and flat and not names.isdisjoint(TRUTH_FILES))
    )


def read(storage: Storage, options: str = "") -> Layout:
    """Read training images by class, and validation images by class folder or by ground truth.

    From `ILSVRC2012_img_train.tar` (a tar of one tar a class), `ILSVRC2012_img_val.tar` and the devkit, packed or not;
    or `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG` or `val/*.JPEG` with ground truth, as `read_truth` finds it; or
    what the folder `val` holds, alone. Boxes are XML files anywhere in it. Classes are the WordNet ids in sorted order,
    the usual one of ILSVRC's 1,000. Results are reported on the validation images, as in the paper; the challenge's
    test images have no labels. The name is "ilsvrc-2012" for all 1,000 classes alone.
    UserError if there are no such images, or the ground truth is not whole or has a class that train lacks.
    """
    storage = _unpacked(storage)
    train = list(_train(storage))
    val = list(_val(storage))
    wnids = {wnid for _, wnid in train} or {wnid for _, wnid, _ in val if wnid}
    truth: dict[str, str] = {}
    notes = []
    if any(wnid is None for _, wnid, _ in val):
        truth = read_truth(storage, sorted(wnids))
        wnids = wnids or set(truth.values())
        if not truth:
            val = [image for image in val if image[1]]
            notes.append(f"val images have no labels ({' or '.join(TRUTH_FILES)} is missing): not used")
    _check(storage, wnids, [(name, wnid or truth.get(stem)) for name, wnid, stem in val])
    classes = tuple(sorted(wnids))
    labels = {wnid: label for label, wnid in enumerate(classes)}
    parts = {
        "train": [Sample(name, labels[wnid]) for name, wnid in train],
        "val": [Sample(name, labels[wnid or truth[stem]]) for name, wnid, stem in val],
    }
    return Layout(
        NAME if len(classes) == CLASSES else f"{NAME}-{len(classes)}",
        classes,
        {split: samples for split, samples in parts.items() if samples},
        storage,
        val_is_test=True,
        notes=(*notes, *_packed(storage)),
        annotate=_boxes(storage, classes, [sample.id for samples in parts.values() for sample in samples]),
    )


def _boxes(storage: Storage, classes: tuple[str, ...], images: list[str]) -> XmlBoxes | None:
    """Return what reads the challenge's boxes, XML files by the images' names; their pixels count from 0.

    Of fewer than all classes the files of the others belong to no image, and that is no fault.
    """
    files = [name for name in storage.files if name.endswith(".xml")]
    if len(classes) < CLASSES:
        there = set(map(stem, images))
        files = [name for name in files if stem(name).partition("_")[0] in classes or stem(name) in there]
    names = {label: (wnid,) for label, wnid in enumerate(classes)}
    return XmlBoxes(storage, names, 0, files, images) if files else None


def _packed(storage: Storage) -> list[str]:
    packed = [name for name in storage.files if PACKED_BOXES.search(name)]
    return [f"{few(packed)}: compressed, so unpack what boxes are wanted of"] if packed else []


def _unpacked(storage: Storage) -> Storage:
    """Return the storage with the archives of images indexed: first the two, then the one of each class."""
    for _ in range(2):
        storage = expand(storage, TARS)
    return storage


def _train(storage: Storage) -> Iterator[tuple[str, str]]:
    """Yield (name, WordNet id) of the training images, class after class."""
    for pattern in (TRAIN, TRAIN_ALONE):
        found = [(name, match[1]) for name in storage.files if (match := pattern.fullmatch(name))]
        if found:
            yield from sorted(found, key=lambda image: (image[1], image[0]))
            return


def _val(storage: Storage) -> Iterator[tuple[str, str | None, str]]:
    """Yield (name, WordNet id where a folder says it, name without folder and ending) of the validation images."""
    for name in sorted(storage.files):
        if found := VAL.fullmatch(name) or VAL_ALONE.fullmatch(name):
            yield name, found[1], found[2]


def _check(storage: Storage, wnids: set[str], val: list[tuple[str, str | None]]) -> None:
    """Raise UserError unless there are classes, and every validation image is of one of them."""
    if len(wnids) < 2:
        raise UserError(
            f"{storage.path}: holds no ILSVRC images of two or more classes; expected ILSVRC2012_img_train.tar and "
            "ILSVRC2012_img_val.tar, or train/<wnid>/*.JPEG and val/"
        )
    absent = [name for name, wnid in val if wnid is None]
    if absent:
        raise UserError(f"{storage.path}: {len(absent)} val images are not in the ground truth ({few(absent)})")
    strange = sorted({wnid for _, wnid in val if wnid} - wnids)
    if strange:
        raise UserError(f"{storage.path}: val has classes that train lacks: {few(strange)}")
