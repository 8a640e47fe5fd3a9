"""Descriptors kept by what they were computed from, so that none is computed twice."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.files import cache_folder, write_aside, write_text
from verydeep.basics.progress import track
from verydeep.datasets.dataset import Dataset
from verydeep.inference.combine import Rows

PIECE_BYTES = 32 * 2**20
"""Descriptors in memory before they are written: what a stopped extraction may lose, beside `PIECE_SECONDS` of work."""
PIECE_SECONDS = 60.0


class Elementary(Protocol):
    """One elementary descriptor, such as a network's layer at one scale: computed once, combined in many ways."""

    name: str  # for the progress bar
    width: int  # numbers a picture

    @property
    def identity(self) -> dict[str, Any]:
        """All that its values depend on beside the picture, JSON-able."""

    def rows(self, dataset: Dataset) -> Iterator[tuple[list[int], Rows]]:
        """Yield indices of pictures, in any order, and their descriptors: float32, one row each."""


class Store:
    """Descriptors by part and by the content of the picture; in memory alone where the folder is None.

    Pieces of them are files `<part>/<piece>.npy`, written as they come, each whole or not at all; so a stopped
    extraction continues, and pictures known from elsewhere are not computed again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._pieces: dict[str, list[Path | NDArray[Any]]] = {}
        self._places: dict[str, dict[bytes, tuple[int, int]]] = {}

    def fill(self, part: Elementary, dataset: Dataset, keys: Sequence[bytes]) -> int:
        """Compute what is not there yet, and return how many that were; `keys` are the pictures' `content_hash`.

        BadImageError for a picture that cannot be read; those before it are kept.
        """
        places = self._open(part)
        missing = {key: index for index, key in enumerate(keys) if key not in places}  # of equal pictures one
        if not missing:
            return 0
        wanted = list(missing)
        # V and not S: numpy would cut the zeros at the end of a hash off.
        kind = np.dtype([("image", "V16"), ("descriptor", np.float32, (part.width,))])
        fresh = np.empty(max(1, PIECE_BYTES // kind.itemsize), kind)
        count, last = 0, time.monotonic()
        batches = part.rows(dataset.subset(missing.values()))
        single = (pair for indices, rows in batches for pair in zip(indices, rows, strict=True))
        try:
            for index, row in track(single, len(wanted), part.name):
                fresh[count] = (wanted[index], row)
                count += 1
                if count == len(fresh) or time.monotonic() - last > PIECE_SECONDS:
                    self._add(part, fresh[:count])
                    count, last = 0, time.monotonic()
        finally:
            if count:
                self._add(part, fresh[:count])
        return len(wanted)

    def read(self, part: Elementary, keys: Sequence[bytes]) -> Rows:
        """Return descriptors that are there, N x `part.width`, in the order of `keys`."""
        places, pieces = self._open(part), self._pieces[_label(part)]
        where = np.array([places[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        out = np.empty((len(keys), part.width), np.float32)
        for number in np.unique(where[:, 0]).tolist():
            piece = pieces[number]
            # Mapped for the moment, so that of a large piece only the rows asked for are read.
            values = np.load(piece, mmap_mode="r") if isinstance(piece, Path) else piece
            chosen = where[:, 0] == number
            out[chosen] = values["descriptor"][where[chosen, 1]]
        return out

    def _open(self, part: Elementary) -> dict[bytes, tuple[int, int]]:
        """Return piece and row of every picture known for a part."""
        label = _label(part)
        if label not in self._places:
            self._pieces[label], self._places[label] = [], {}
            for path in sorted((self.folder / label).glob("[!.]*.npy")) if self.folder else []:
                self._enter(label, path, np.load(path, mmap_mode="r")["image"])
        return self._places[label]

    def _enter(self, label: str, piece: Path | NDArray[Any], images: NDArray[Any]) -> None:
        number = len(self._pieces[label])
        self._pieces[label].append(piece)
        self._places[label].update((image.tobytes(), (number, row)) for row, image in enumerate(images))

    def _add(self, part: Elementary, rows: NDArray[Any]) -> None:
        label = _label(part)
        if self.folder is None:
            self._enter(label, rows.copy(), rows["image"])
            return
        about = self.folder / label / "about.json"
        if not about.is_file():
            write_text(about, json.dumps(part.identity, indent=2))
        path = self.folder / label / f"{uuid.uuid4().hex}.npy"  # never another's, were two to write at once
        with write_aside(path) as aside:
            np.save(aside, rows)
        self._enter(label, path, rows["image"])


def default_folder() -> Path:
    """Return where descriptors are kept between commands: `verydeep/descriptors` in the user's cache folder."""
    return cache_folder() / "descriptors"


def _label(part: Elementary) -> str:
    return blake2b(json.dumps(part.identity, sort_keys=True).encode(), digest_size=12).hexdigest()
