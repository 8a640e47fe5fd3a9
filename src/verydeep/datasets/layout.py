"""What a reader finds in a source: classes, and the labeled images of each split it has."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from verydeep.basics.errors import BadBoxError
from verydeep.datasets.annotations import Annotations
from verydeep.datasets.dataset import Sample
from verydeep.datasets.storage import Storage
from verydeep.images.formats import counted

WNID = re.compile(r"n\d{8}")  # WordNet's number of a noun
ARCHIVE = re.compile(r"(\.tar)?\.\w+$")  # what archives' names end in
OUTER_KEPT = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
# Files beside a folder that say nothing of what is in it.
STRAY = re.compile(
    r"(readme|licen[cs]e|copying|citation|attribution)[^/]*"
    r"|[^/]*\.(md|pdf|rst|html?|docx?|log|ini|db|url|py|ipynb|sh)|[^/.]+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Layout:
    """A source of labeled images as it lies there, before any split is made."""

    name: str
    classes: tuple[str, ...]  # in label order
    parts: dict[str, list[Sample]]  # of each split that the source has; none of them empty
    storage: Storage
    val_is_test: bool = False  # whether results on this set are reported on its validation images
    notes: tuple[str, ...] = ()  # what was found and not used, and what else its user should know
    bad_boxes: tuple[BadBoxError, ...] = ()  # of annotations in lists that were read
    # Reads the boxes of samples where that takes long for many images.
    annotate: Callable[[Sequence[Sample]], Annotations] | None = None


def left_out(others: list[str], images: Iterable[str]) -> list[str]:
    """Return a note on files that are no images, with their endings in each folder, the fullest first."""
    if not others:
        return []
    counts = Counter(name.rpartition("/")[0] for name in images)
    lost: dict[str, list[str]] = {}
    for name in others:
        lost.setdefault(name.rpartition("/")[0], []).append(name)
    folders = sorted((folder for folder in lost if folder), key=lambda folder: -len(lost[folder]))
    words = [
        f"in {each}/ {len(lost[each])} of {len(lost[each]) + counts[each]} files ({counted(lost[each])})"
        for each in folders
    ]
    return ["; ".join([f"left out, as they are no images: {few(others)}", *([few(words, 10)] if words else [])])]


def name_of(storage: Storage) -> str:
    """Return what a data set is called: the name of its folder, or of its archive without the ending."""
    path = storage.path.resolve()  # "." has no name of its own
    return path.name if path.is_dir() else ARCHIVE.sub("", path.name)


def without_outer_folders(storage: Storage) -> Storage:
    """Return the storage from the first folder on that is not alone: `data/set/cat/1.jpg` becomes `cat/1.jpg`.

    Files beside it that say nothing, such as a readme, are left out. A folder named for a split stays, and so does
    the last one above the files, which may be a class. So the names, and with them the hold-out, are the same for a
    folder, its parent and a tar of either.
    """
    while True:
        tops = storage.folders()
        inside = len(tops) == 1 and all("/" in name or STRAY.fullmatch(name) for name in storage.files)
        deeper = any(name.count("/") > 1 for name in storage.files)
        if not (inside and deeper) or tops[0].lower() in OUTER_KEPT:
            return storage
        storage = storage.below(tops[0])


def few(names: Iterable[str], most: int = 3) -> str:
    """Return the first names and how many more there are: `a, b, c and 5 more`."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def class_name(wnid: str, words: str | None) -> str:
    """Return the one form of an ImageNet class name: the WordNet id, then its first word where known.

    The id alone is unique ("crane" is two classes); only the first synonym is kept, so that every source of
    names gives the same string.

    Examples
    --------
    >>> class_name("n01440764", "tench, Tinca tinca"), class_name("n01440764", None)
    ('n01440764 tench', 'n01440764')
    """
    first = (words or "").split(",")[0].strip()
    return f"{wnid} {first}" if first else wnid
