"""Reader of Tiny ImageNet (Stanford CS231n): 64x64 images of up to 200 ImageNet classes, one box an image."""

import re
from collections.abc import Iterable

from verydeep.basics.errors import BadBoxError, UserError
from verydeep.datasets.annotations import make_box
from verydeep.datasets.dataset import Box, Sample
from verydeep.datasets.layout import Layout, class_name, few
from verydeep.datasets.storage import Storage

ANNOTATIONS = "val/val_annotations.txt"
TRAIN_IMAGE = re.compile(r"train/[^/]+/images/")


def matches(storage: Storage) -> bool:
    """Say whether this is Tiny ImageNet: a list of WordNet ids and annotated validation images."""
    return "wnids.txt" in storage.files and ANNOTATIONS in storage.files


def read(storage: Storage, options: str = "") -> Layout:
    """Read `wnids.txt`, `words.txt`, `train/<wnid>/images`, `val/images` and the boxes of both.

    Classes are in the order of `wnids.txt`, named as `layout.class_name` says ("n01641577 bullfrog"). The
    published test images have no labels: results on this set are reported on its validation images.
    UserError if a listed file is missing or a line of a list is not as published.
    """
    for name in ("wnids.txt", ANNOTATIONS):
        if name not in storage.files:
            raise UserError(f"{storage.path}: has no {name}, so it is not Tiny ImageNet as published")
    wnids = storage.text("wnids.txt").split()
    words = read_words(storage, "words.txt")
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    bad: list[BadBoxError] = []
    parts = {"train": _train(storage, labels, bad), "val": _val(storage, labels, bad)}
    unlabeled = sum(name.startswith("test/images/") for name in storage.files)
    notes = (f"{unlabeled} test images have no labels: not used",) if unlabeled else ()
    return Layout(
        f"tiny-imagenet-{len(wnids)}",
        tuple(class_name(wnid, words.get(wnid)) for wnid in wnids),
        {split: samples for split, samples in parts.items() if samples},
        storage,
        val_is_test=True,
        notes=notes,
        bad_boxes=tuple(bad),
    )


def read_words(storage: Storage, name: str) -> dict[str, str]:
    """Return the words of each WordNet id from lines `wnid<TAB>words`; {} if there is no such file."""
    if name not in storage.files:
        return {}
    lines = (line.partition("\t") for line in storage.text(name).splitlines())
    return {wnid: words for wnid, _, words in lines}


def _train(storage: Storage, labels: dict[str, int], bad: list[BadBoxError]) -> list[Sample]:
    """Return the images of the class folders, with their boxes as far as these are listed."""
    boxes = {}
    for wnid in labels:
        source = f"train/{wnid}/{wnid}_boxes.txt"
        for name, *edges in _table(storage, source, 5):
            image = f"train/{wnid}/images/{name}"
            boxes[image] = _boxes(storage, source, image, edges, bad)
    for image in boxes:
        if image not in storage.files:
            source = f"train/{image.split('/')[1]}/{image.split('/')[1]}_boxes.txt"
            bad.append(BadBoxError(storage.where(source), f"annotates {image}, which is not there"))
    images = filter(TRAIN_IMAGE.match, storage.images)
    return [
        Sample(name, labels[wnid], boxes.get(name, ())) for name in images if (wnid := name.split("/")[1]) in labels
    ]


def _val(storage: Storage, labels: dict[str, int], bad: list[BadBoxError]) -> list[Sample]:
    samples = []
    for name, wnid, *edges in _table(storage, ANNOTATIONS, 6):
        if wnid not in labels:
            raise UserError(f"{storage.where(ANNOTATIONS)}: {name} has class {wnid}, which wnids.txt lacks")
        image = f"val/images/{name}"
        samples.append(Sample(image, labels[wnid], _boxes(storage, ANNOTATIONS, image, edges, bad)))
    _require(storage, (sample.id for sample in samples))
    return samples


def _table(storage: Storage, name: str, columns: int) -> list[list[str]]:
    """Return the tab-separated rows of a list, none if there is no such file; UserError if one is not whole."""
    if name not in storage.files:
        return []
    rows = [line.split("\t") for line in storage.text(name).splitlines()]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise UserError(f"{storage.where(name)}: line {number} has {len(row)} columns, expected {columns}")
    return rows


def _boxes(storage: Storage, source: str, image: str, edges: list[str], bad: list[BadBoxError]) -> tuple[Box, ...]:
    """Return the box of a row, published as first and last pixel from 0; none where it is bad, which is noted."""
    where = f"{storage.where(source)}, {image.rpartition('/')[2]}"
    try:
        return (make_box(edges, 0, where),)
    except BadBoxError as error:
        bad.append(BadBoxError(where, error.reason, image))
        return ()


def _require(storage: Storage, names: Iterable[str]) -> None:
    absent = [name for name in names if name not in storage.files]
    if absent:
        raise UserError(f"{storage.path}: {len(absent)} listed images are missing ({few(absent)})")
