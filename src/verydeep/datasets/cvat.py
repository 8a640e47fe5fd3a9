"""Reader of CVAT's own XML, "CVAT for images": tags and boxes."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from verydeep.basics.errors import UserError
from verydeep.datasets.folder_names import split_in
from verydeep.datasets.label_choice import AS_WRITTEN, LabelChoice
from verydeep.datasets.labels import Edges, Finder, Labeled, layout_of, number
from verydeep.datasets.layout import Layout
from verydeep.datasets.storage import Storage

ROOT = re.compile(rb"<annotations[\s>]")


def matches(storage: Storage) -> bool:
    """Say whether there is an XML file whose root is `annotations`."""
    return bool(files(storage))


def read(storage: Storage, options: str = "", choice: LabelChoice = AS_WRITTEN) -> Layout:
    """Read every export, or that of `--reader cvat:FILE`."""
    chosen = [options] if options in storage.files else files(storage)
    return layout_of(
        storage, (record for file in chosen for record in _labeled(storage, file)), Finder(storage), choice=choice
    )


def files(storage: Storage) -> list[str]:
    """Return the names of the exports."""
    return [name for name in storage.outermost("xml") if ROOT.search(storage.files[name].read(512))]


def root(storage: Storage, file: str) -> ElementTree.Element:
    """Return the outermost element of an export of pictures; UserError for one that is damaged, or of a video."""
    where = storage.where(file)
    try:
        found = ElementTree.fromstring(storage.read(file))
    except ElementTree.ParseError as error:
        raise UserError(f"{where}: is no valid XML ({error})") from None
    if found.find("track") is not None:
        raise UserError(f"{where}: annotates a video; export it from CVAT as CVAT for images")
    return found


def _labeled(storage: Storage, file: str) -> Iterator[Labeled]:
    for image in root(storage, file).iter("image"):
        objects: list[tuple[str, Edges | None]] = [(tag.get("label", ""), None) for tag in image.iter("tag")]
        boxes = [(box.get("label", ""), _edges(box)) for box in image.iter("box")]
        sides = number(image.get("height")), number(image.get("width"))
        size = (int(sides[0]), int(sides[1])) if min(sides) >= 1 else None
        # A picture with boxes has its class from these; tags then say other things.
        yield Labeled(image.get("name", ""), tuple(boxes or objects), file, split_in(image.get("subset", "")), size)


def _edges(box: ElementTree.Element) -> Edges:
    left, top, right, bottom = (number(box.get(edge)) for edge in ("xtl", "ytl", "xbr", "ybr"))
    turned = number(box.get("rotation", 0)) != 0
    return (left, top, float("nan"), bottom) if turned else (left, top, right, bottom)
