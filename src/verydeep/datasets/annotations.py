"""Boxes of PASCAL VOC's XML form, as VOC, ILSVRC and most tools for drawing boxes write them."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from verydeep.basics.errors import BadBoxError, BadImageError
from verydeep.basics.progress import track
from verydeep.datasets.dataset import Box, Sample
from verydeep.datasets.storage import Storage

EDGES = ("xmin", "ymin", "xmax", "ymax")


Size = tuple[int, int]  # height, width
RELATIVE = (1, 1)  # the size on which boxes are drawn that are shares of their image's sides


@dataclass(frozen=True, slots=True)
class Marks:
    """The boxes of an image, the size of what they were drawn on where that is known, and where they are written."""

    boxes: tuple[Box, ...]
    drawn_on: Size | None
    where: str


@dataclass(frozen=True)
class Annotations:
    """The boxes of some images by image id, and what is wrong with the others."""

    marks: dict[str, Marks]
    bad: tuple[BadBoxError, ...] = ()


def stem(name: str) -> str:
    """Return the last part of a name, without its ending."""
    return name.rpartition("/")[2].rpartition(".")[0]


@dataclass(frozen=True)
class XmlBoxes:
    """XML files that belong to images by their names.

    `names` says what objects of each label are called in the files, `first` the number of the first pixel: VOC counts
    from 1, ILSVRC from 0. A file that belongs to none of the source's `images` is bad. `key` turns the name of a file
    or image into what the two have in common.
    """

    storage: Storage
    names: Mapping[int, tuple[str, ...]]
    first: int
    files: Iterable[str]
    images: Iterable[str]
    key: Callable[[str], str] = stem

    def __call__(self, samples: Sequence[Sample]) -> Annotations:
        """Read the files of some images. An image keeps the boxes of its own class; others are no fault."""
        by_key = {self.key(name): name for name in self.files}
        known = {self.key(name) for name in self.images}
        marks: dict[str, Marks] = {}
        bad = [
            BadBoxError(self.storage.where(name), "annotates an image that is not there")
            for key, name in by_key.items()
            if key not in known
        ]
        for sample in track(samples, len(samples), "reading boxes"):
            if file := by_key.get(self.key(sample.id)):
                try:
                    marks[sample.id] = self._read(file, sample)
                except (BadBoxError, BadImageError) as error:
                    bad.append(BadBoxError(error.name, error.reason, sample.id))
        return Annotations(marks, tuple(bad))

    def _read(self, file: str, sample: Sample) -> Marks:
        where = self.storage.where(file)
        objects, size = parse_annotation(self.storage.read(file), where)
        if not objects:
            raise BadBoxError(where, "has no objects")
        wanted = self.names[sample.label]
        own = [edges for name, edges in objects if name in wanted]
        if not own:
            raise BadBoxError(where, f"has no object of its image's class {wanted[0]} ({objects[0][0]} and so on)")
        return Marks(tuple(make_box(edges, self.first, where) for edges in own), size, where)


def parse_objects(data: bytes, where: str) -> list[tuple[str, list[str]]]:
    """Return name and edges, as written, of each object of an XML file; BadBoxError where it is none."""
    return parse_annotation(data, where)[0]


def parse_annotation(data: bytes, where: str) -> tuple[list[tuple[str, list[str]]], Size | None]:
    """Return what `parse_objects` does, and the size of the image that the file was written for, if it says one."""
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise BadBoxError(where, f"is no valid XML ({error})") from None
    found = []
    for element in root.iter("object"):
        box = element.find("bndbox")
        texts = [box.findtext(edge) if box is not None else None for edge in EDGES]
        if any(text is None for text in texts):
            raise BadBoxError(where, "has an object without bndbox, xmin, ymin, xmax and ymax")
        found.append(((element.findtext("name") or "").strip(), [str(text).strip() for text in texts]))
    sides = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    height, width = (int(side) if side.isdecimal() else 0 for side in sides)
    return found, (height, width) if height and width else None  # some tools write 0 for what they do not know


def picture_named(data: bytes) -> str:
    """Return what an XML file calls its image; empty where it says nothing, or is no XML."""
    try:
        return (ElementTree.fromstring(data).findtext("filename") or "").strip()
    except ElementTree.ParseError:
        return ""


def make_box(edges: Sequence[str], first: int, where: str) -> Box:
    """Return a box published as first and last pixel, counted from `first`, kept by its edges.

    `edges` are xmin, ymin, xmax, ymax as written. BadBoxError, naming `where`, for what are no numbers, not finite, or
    where the last pixel stands before the first.

    Examples
    --------
    >>> make_box(["1", "1", "64", "48"], 1, "a.xml")
    Box(xmin=0.0, ymin=0.0, xmax=64.0, ymax=48.0)
    """
    words = " ".join(edges)
    try:
        xmin, ymin, xmax, ymax = map(float, edges)
    except ValueError:
        raise BadBoxError(where, f"{words} is no box of four numbers") from None
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise BadBoxError(where, f"box {words} is not finite")
    for low, high, names in ((xmin, xmax, ("xmin", "xmax")), (ymin, ymax, ("ymin", "ymax"))):
        if high < low:
            raise BadBoxError(where, f"box {words} has {names[1]} {high:g} below {names[0]} {low:g}")
    return Box(xmin - first, ymin - first, xmax - first + 1, ymax - first + 1)
