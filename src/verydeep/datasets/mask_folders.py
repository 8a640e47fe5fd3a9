"""Readers of pictures with masks: VOC's segmentation folders, CamVid's, plain folders, areas that a file says."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from verydeep.basics.errors import UserError
from verydeep.basics.progress import track
from verydeep.datasets.dataset import Sample
from verydeep.datasets.drawn_masks import read_drawn
from verydeep.datasets.layout import Layout, few, name_of, without_outer_folders
from verydeep.datasets.masks import IGNORED, VOID, SegmentedDataset, Values, read_values
from verydeep.datasets.splits import SPLITS, choose_split
from verydeep.datasets.storage import Storage, open_storage

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
TABLES = ("classes.txt", "classes.csv", "class_dict.csv")
ALIASES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
IMAGES = ("images", "image", "imgs", "JPEGImages", "pictures", "photos")
MASKS = ("masks", "mask", "labels", "annotations", "annots", "SegmentationClass", "segmentation")
ENDINGS = ("", "_mask", "_label", "_labels", "_L", "_seg", "_gt")
EXPECTED = (
    "expected VOC's folders (JPEGImages, SegmentationClass, ImageSets/Segmentation), CamVid's (train, trainannot), "
    "images beside masks (images/ and masks/, perhaps below or above train, val, test), or pictures beside an export "
    "of CVAT (for images), Label Studio (JSON) or COCO that has areas"
)

Pairs = dict[str, str]
"""The mask of each picture, by their names in the storage."""


def open_segmented(source: str | Path, split: str, *, seed: int = 0, holdout: float = 0.2) -> SegmentedDataset:
    """Open one split of a data set with masks, a folder or an archive; other parameters are `open_dataset`'s.

    UserError where nothing is found that would be one, pictures lack masks, or nothing says what the masks mean.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    if str(source) == "scenes":
        raise UserError("scenes: has no masks; give a folder or an archive of pictures with masks")
    storage = without_outer_folders(open_storage(Path(source)))
    if parts := _voc(storage) or _folders(storage):
        masks = {image: mask for pairs in parts.values() for image, mask in pairs.items()}
        classes, values = _meaning(storage, masks)
    elif drawn := read_drawn(storage):
        parts, classes, values, storage = drawn.parts, drawn.classes, drawn.values, drawn.storage
        masks = {image: mask for pairs in parts.values() for image, mask in pairs.items()}
    else:
        raise UserError(f"{source}: no pictures with masks found; {EXPECTED}")
    samples = {name: [Sample(image, -1) for image in sorted(pairs)] for name, pairs in parts.items()}
    voc = any(name.startswith("ImageSets/Segmentation/") for name in storage.files)
    layout = Layout(name_of(storage), classes, samples, storage, val_is_test=voc)
    chosen, provenance = choose_split(layout, split, seed, holdout)
    return SegmentedDataset.of((layout.name, split, classes), chosen, storage, provenance, masks, values)


def _voc(storage: Storage) -> dict[str, Pairs]:
    """Return each split's pairs by VOC's lists; nothing where there are none."""
    parts = {}
    for split in SPLITS:
        listed = f"ImageSets/Segmentation/{split}.txt"
        names = storage.text(listed).split() if listed in storage.files else []
        pairs = {f"JPEGImages/{name}.jpg": f"SegmentationClass/{name}.png" for name in names}
        absent = [file for pair in pairs.items() for file in pair if file not in storage.files]
        if absent and split != "test":  # whose masks VOC keeps to itself
            raise UserError(f"{storage.path}: {len(absent)} files that {listed} lists are missing ({few(absent)})")
        if pairs and not absent:
            parts[split] = pairs
    return parts


def _folders(storage: Storage) -> dict[str, Pairs]:
    """Return each split's pairs by the names of folders; all of them as `train` where no folder says a split."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in storage.images:
        by_folder[name.rpartition("/")[0]].append(name)
    lower = {folder.lower(): folder for folder in by_folder}
    parts = {}
    for split, aliases in ALIASES.items():
        for images, masks in _candidates(aliases):
            if images.lower() in lower and masks.lower() in lower:
                found = lower[images.lower()], lower[masks.lower()]
                parts[split] = _paired(storage, by_folder, *found)
                break
    if not parts:
        for images, masks in ((i, m) for i in IMAGES for m in MASKS):
            if images.lower() in lower and masks.lower() in lower:
                return {"train": _paired(storage, by_folder, lower[images.lower()], lower[masks.lower()])}
    return parts


def _candidates(aliases: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the folders of pictures and of masks that a split's may be."""
    for split in aliases:
        yield from ((split, f"{split}{ending}") for ending in ("annot", "_labels", "_masks", "masks"))
        for images in IMAGES:
            for masks in MASKS:
                yield f"{split}/{images}", f"{split}/{masks}"
                yield f"{images}/{split}", f"{masks}/{split}"


def _paired(storage: Storage, by_folder: Mapping[str, list[str]], images: str, masks: str) -> Pairs:
    """Return the mask of each picture of a folder: the same name, or that and an ending; UserError for one without."""
    stems = {_stem(mask): mask for mask in by_folder[masks]}
    pairs, absent = Pairs(), []
    for image in by_folder[images]:
        mask = next((stems[_stem(image) + ending] for ending in ENDINGS if _stem(image) + ending in stems), None)
        if mask is None:
            absent.append(image)
        else:
            pairs[image] = mask
    if absent:
        raise UserError(
            f"{storage.path}: {len(absent)} of {len(by_folder[images])} pictures in {images} have no mask of their "
            f"name in {masks} ({few(absent)}); add them, or take the pictures away"
        )
    return pairs


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _meaning(storage: Storage, masks: Pairs) -> tuple[tuple[str, ...], Values]:
    """Return the classes, and what the masks' values mean: by a table beside them, VOC's own, or what they hold."""
    table = next((name for name in TABLES if name in storage.files), None)
    if table is not None:
        return _by_table(storage, table)
    if any(name.startswith("SegmentationClass/") for name in storage.files):
        return VOC_CLASSES, Values({**{k: k for k in range(len(VOC_CLASSES))}, IGNORED: IGNORED})
    found: set[int] = set()
    for mask in track(sorted(masks.values()), len(masks), "looking at masks"):
        found.update(np.unique(read_values(storage.read(mask), storage.where(mask), of_colors=False)).tolist())
    if found == {0, IGNORED} or max(found) > IGNORED:
        raise UserError(
            f"{storage.path}: its masks hold the values {few(map(str, sorted(found)))}; write a file classes.txt with "
            "a line NAME,VALUE for each class, which says what they mean"
        )
    labels = sorted(found - {IGNORED})
    return tuple(map(str, labels)), Values({**{v: k for k, v in enumerate(labels)}, IGNORED: IGNORED})


def _by_table(storage: Storage, table: str) -> tuple[tuple[str, ...], Values]:
    """Read lines of NAME, NAME,VALUE or NAME,RED,GREEN,BLUE; without values they count from 0."""
    where = storage.where(table)
    lines = [line.strip() for line in storage.text(table).splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line.replace("\t", ",").split(",")] for line in lines]
    if rows and not all(cell.isdecimal() for cell in rows[0][1:]):
        rows = rows[1:]  # a line of headings
    columns = {len(row) for row in rows}
    if len(columns) != 1 or not columns <= {1, 2, 4} or not all(cell.isdecimal() for row in rows for cell in row[1:]):
        raise UserError(f"{where}: expected a line NAME, NAME,VALUE or NAME,RED,GREEN,BLUE for each class, all alike")
    classes, labels = list[str](), dict[int | tuple[int, int, int], int]()
    for number, (name, *cells) in enumerate(rows):
        numbers = [int(cell) for cell in cells]
        value = (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else [*numbers, number][0]
        if name in classes or value in labels:
            raise UserError(f"{where}: {name}: its name or its value is there twice")
        void = name.lower() in VOID
        labels[value] = IGNORED if void else len(classes)
        classes += [] if void else [name]
    if not classes or len(classes) >= IGNORED:
        raise UserError(f"{where}: names {len(classes)} classes, expected 1 to {IGNORED - 1}")
    if columns != {4}:
        labels.setdefault(IGNORED, IGNORED)
    return tuple(classes), Values(labels, of_colors=columns == {4})
