"""What a reader finds in a source: classes, and the labeled images of each split it has."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from verydeep.basics.errors import BadBoxError
from verydeep.datasets.annotations import Annotations
from verydeep.datasets.dataset import Sample
from verydeep.datasets.storage import Storage
from verydeep.images.files import IMAGE_SUFFIXES

# First bytes of the formats that are decoded: what a file without an image's name must begin with to count as one.
SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0", re.DOTALL)
WNID = re.compile(r"n\d{8}")  # WordNet's number of a noun


@dataclass(frozen=True)
class Layout:
    """A source of labeled images as it lies there, before any split is made.

    Parameters
    ----------
    name : str
        Name of the data set.
    classes : tuple of str
        Class names in label order.
    parts : dict of str to list of Sample
        The labeled images of each split that the source has: "train", "val", "test"; none of the lists empty.
    storage : Storage
        Holds the files that the samples' ids name.
    val_is_test : bool
        Whether the set's own validation images are what results on it are reported on.
    notes : tuple of str
        In words: what was found and not used, and what else its user should know.
    bad_boxes : tuple of BadBoxError
        Annotations that give no usable box, of those in lists that were read.
    annotate : callable, optional
        Reads the boxes of samples where they stand in files of their own, which takes long for many images.
    """

    name: str
    classes: tuple[str, ...]
    parts: dict[str, list[Sample]]
    storage: Storage
    val_is_test: bool = False
    notes: tuple[str, ...] = ()
    bad_boxes: tuple[BadBoxError, ...] = ()
    annotate: Callable[[Sequence[Sample]], Annotations] | None = None


class Reader(Protocol):
    """How one kind of source is recognized and read; each is a module of this package."""

    def matches(self, storage: Storage) -> bool:
        """Say whether the source's content is of this kind."""

    def read(self, storage: Storage) -> Layout:
        """Read it; UserError if it is not of this kind or not whole."""


def image_names(storage: Storage, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Divide file names into images and others.

    A file counts as an image by its name's ending, whatever is in it (a damaged one shall be noticed), and else
    by its first bytes (a photograph without an ending is one).

    Parameters
    ----------
    storage : Storage
        Holds the files.
    names : iterable of str
        Names to divide.

    Returns
    -------
    images, others : list of str
        Both sorted.
    """
    images: list[str] = []
    others: list[str] = []
    for name in names:
        known = name.rpartition(".")[2].lower() in IMAGE_SUFFIXES
        (images if known or SIGNATURE.match(storage.files[name].read(16)) else others).append(name)
    return sorted(images), sorted(others)


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
