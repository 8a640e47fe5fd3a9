"""Open a data set by its path: recognize what it is, make its splits, leave out damaged files."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from verydeep.basics.errors import UserError
from verydeep.datasets.boxes import with_marks
from verydeep.datasets.checking import without_bad
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.layout import Layout, Reader, without_outer_folders
from verydeep.datasets.scenes import Scenes
from verydeep.datasets.splits import SPLITS, choose_split
from verydeep.datasets.storage import open_storage

# Readers by name; the first that recognizes a source's content reads it.
READERS = {
    "tiny-imagenet": "tiny_imagenet",
    "caltech-101": "caltech101",
    "ilsvrc": "ilsvrc",
    "voc": "voc_objects",
    "coco": "coco",
    "label-studio": "label_studio",
    "cvat": "cvat",
    "yolo": "yolo",
    "webdataset": "webdataset",
    "table": "tables",
    "class-folders": "class_folders",
}
OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class Reading:
    """How a data set is read that a command opens several splits of; see `open_dataset`."""

    reader: str | None = None
    on_bad_image: OnBadImage = "error"
    boxes_as_stored: bool | None = None

    def open(self, source: str | Path, split: str, boxes: bool = False) -> Dataset:
        """Open one split of a data set."""
        return open_dataset(source, split, boxes=boxes, **vars(self))

    @property
    def words(self) -> dict[str, str]:
        """What differs from the usual, by the names of the command's options."""
        return {key: str(value) for key, value in vars(self).items() if value not in (None, "error")}


def open_dataset(
    source: str | Path,
    split: str,
    *,
    reader: str | None = None,
    seed: int = 0,
    holdout: float = 0.2,
    on_bad_image: OnBadImage = "error",
    boxes: bool = False,
    boxes_as_stored: bool | None = None,
) -> Dataset:
    """Open one split of a data set.

    Parameters
    ----------
    source : str or Path
        A folder, a .tar or .zip (read in place), a .tar.gz (unpacked into the cache once), or "scenes", the embedded
        data set (a folder of that name is "./scenes").
    split : str
        "train", "val" or "test". One that the source lacks is held out of its training images; see
        `splits.choose_split`, and `.provenance` of the result.
    reader : str, optional
        Kind of source, one of `READERS` or "scenes", perhaps with what it is to be told: "class-folders:top"; by
        default recognized by its content.
    seed : int
        Seed of the hold-out. Training and test have to use the same, or test images are trained on.
    holdout : float
        Share of each class to hold out for a missing split.
    on_bad_image : str
        What happens to a file that is damaged, empty or no image: "error" raises BadImageError when it is read;
        "skip" decodes every image of the split once (the result is remembered; see `checking.without_bad`),
        leaves the bad ones out and lists them in `.bad`. Splits are made before, so both leave the same images
        in each.
    boxes : bool
        Whether to read boxes also where they stand in files of their own, one an image. What is wrong with them
        is in `.bad_boxes`: no box, one of another class, or drawn on an image of another size.
    boxes_as_stored : bool, optional
        Of images that EXIF turns: whether boxes were drawn on the pixels as they are stored, or on the image as it is
        shown. Where nothing is said and sizes do not tell, such boxes are bad.

    Returns
    -------
    Dataset
        The split; its order is the same every time.

    Raises
    ------
    UserError
        If there is no such source, its content is not as the reader expects, or a split cannot be made.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    if on_bad_image not in ("error", "skip"):
        raise UserError(f"on_bad_image {on_bad_image!r}: expected error or skip")
    if str(source) == "scenes" and reader in (None, "scenes"):
        return Scenes(split, seed)
    layout = read_layout(Path(source), reader)
    samples, provenance = choose_split(layout, split, seed, holdout)
    dataset = Dataset(layout.name, split, layout.classes, samples, layout.storage, provenance, (), layout.bad_boxes)
    if boxes and layout.annotate:
        dataset = with_marks(dataset, layout.annotate(samples), boxes_as_stored)
    ids = {"", *(sample.id for sample in samples)}  # an annotation without an image is every split's
    dataset.bad_boxes = tuple(error for error in dataset.bad_boxes if error.image in ids)
    return without_bad(dataset) if on_bad_image == "skip" else dataset


def read_layout(path: Path, reader: str | None = None) -> Layout:
    """Read a folder or archive as it lies there, with the reader named or the first that recognizes it."""
    wanted, _, options = (reader or "").partition(":")
    if reader is not None and wanted not in READERS:
        raise UserError(f"reader {reader!r}: expected one of {', '.join(READERS)} (or the data set scenes)")
    storage = without_outer_folders(open_storage(path))
    for name, module in READERS.items():
        kind = cast(Reader, import_module(f"verydeep.datasets.{module}"))
        if wanted == name or (not wanted and kind.matches(storage)):
            return kind.read(storage, options)
    raise AssertionError("class-folders matches everything")
