"""Open a data set by its path: recognize what it is, make its splits, leave out damaged files."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, TypedDict, cast

from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.datasets.boxes import with_marks
from verydeep.datasets.checking import without_bad
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.layout import Layout, without_outer_folders
from verydeep.datasets.scenes import Scenes
from verydeep.datasets.splits import SPLITS, choose_split
from verydeep.datasets.storage import Storage, open_storage

# Readers by name; the first that recognizes a source's content reads it.
READERS = {
    "tiny-imagenet": "tiny_imagenet",
    "caltech-101": "caltech101",
    "ilsvrc": "ilsvrc",
    "voc": "voc_objects",
    "coco": "coco",
    "label-studio": "label_studio",
    "cvat": "cvat",
    "labelme": "labelme",
    "via": "via",
    "yolo": "yolo",
    "webdataset": "webdataset",
    "table": "tables",
    "class-folders": "class_folders",
}
ONE_LABEL = ("tiny-imagenet", "caltech-101", "ilsvrc", "class-folders")  # readers of one class an image, by folders
OnBadImage = Literal["error", "skip"]


class Reader(Protocol):
    """How one kind of source is recognized and read; each is a module of this package."""

    def matches(self, storage: Storage) -> bool:
        """Say whether the source's content is of this kind."""

    def read(self, storage: Storage, options: str = "") -> Layout:
        """Read it; UserError if it is not of this kind or not whole. What `options` may be is the reader's matter."""


class LabelReader(Reader, Protocol):
    """A reader of labels in files, of which an image may have several."""

    def read(self, storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
        """Read it as `Reader` does, with labels as the user says."""


@dataclass(frozen=True)
class Reading:
    """How a data set is read that a command opens several splits of; see `open_dataset`."""

    reader: str | None = None
    on_bad_image: OnBadImage = "error"
    boxes_as_stored: bool | None = None
    labels: str | None = None

    def open(self, source: str | Path, split: str, boxes: bool = False, *, several: bool = False) -> Dataset:
        """Open one split of a data set; UserError for images of several labels, unless `several` may be."""
        dataset = open_dataset(source, split, boxes=boxes, **vars(self))
        if dataset.multi_label and not several:
            raise UserError(
                f"{dataset.storage.path}: its images have several labels, and here an image has one class; verydeep "
                "train and verydeep evaluate take several" + (", for classes alone" if boxes else "")
            )
        return dataset

    @property
    def words(self) -> dict[str, str]:
        """What differs from the usual, by the names of the command's options."""
        return {key: str(value) for key, value in vars(self).items() if value not in (None, "error")}


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading` as keywords of functions for users."""

    reader: str | None
    on_bad_image: OnBadImage
    boxes_as_stored: bool | None
    labels: str | None


def open_dataset(
    source: str | Path,
    split: str,
    *,
    seed: int = 0,
    holdout: float = 0.2,
    boxes: bool = False,
    **reading: Unpack[ReadingOptions],
) -> Dataset:
    """Open one split of a data set.

    Parameters
    ----------
    source : str or Path
        A folder, a .tar or .zip (read in place), a .tar.gz (unpacked into the cache once), or "scenes", the embedded
        data set (a folder of that name is "./scenes").
    split : str
        "train", "val" or "test". One that the source lacks is held out of its training images; see
        `splits.choose_split`, and the result's ``provenance``.
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
    labels : str, optional
        Labels in files: "one" of an image (of several boxes the largest one's, and a cell of a table is one name),
        "several" (of all its boxes), or the character between several in a cell. By default several only where labels
        without boxes are written so.

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
    how = Reading(**reading)
    if how.on_bad_image not in ("error", "skip"):
        raise UserError(f"on_bad_image {how.on_bad_image!r}: expected error or skip")
    choice = LabelChoice.parse(how.labels)
    if str(source) == "scenes" and how.reader in (None, "scenes"):
        if choice.several:
            raise UserError("scenes: its images have one class each, so leave out --labels")
        return Scenes(split, seed)
    layout = read_layout(Path(source), how.reader, choice)
    samples, provenance = choose_split(layout, split, seed, holdout)
    dataset = Dataset(layout.name, split, layout.classes, samples, layout.storage, provenance, (), layout.bad_boxes)
    if boxes and layout.annotate:
        dataset = with_marks(dataset, layout.annotate(samples), how.boxes_as_stored)
    ids = {"", *(sample.id for sample in samples)}  # an annotation without an image is every split's
    dataset.bad_boxes = tuple(error for error in dataset.bad_boxes if error.image in ids)
    return without_bad(dataset) if how.on_bad_image == "skip" else dataset


def read_layout(path: Path, reader: str | None = None, choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read a folder or archive as it lies there, with the reader named or the first that recognizes it."""
    wanted, _, options = (reader or "").partition(":")
    if reader is not None and wanted not in READERS:
        raise UserError(f"reader {reader!r}: expected one of {', '.join(READERS)} (or the data set scenes)")
    storage = without_outer_folders(open_storage(path))
    for name, module in READERS.items():
        kind = import_module(f"verydeep.datasets.{module}")
        if wanted == name or (not wanted and cast(Reader, kind).matches(storage)):
            if name not in ONE_LABEL:
                return cast(LabelReader, kind).read(storage, options, choice)
            if choice.several:
                raise UserError(f"{path}: read as {name}: an image has the class of its folder, so leave out --labels")
            return cast(Reader, kind).read(storage, options)
    raise AssertionError("class-folders matches everything")
