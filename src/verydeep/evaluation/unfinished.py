"""An evaluation under way: what is done is on disk every so often, so that a stopped one continues."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.evaluation.posteriors import Posteriors

SECONDS_BETWEEN_SAVES = 60.0
_IDENTITY = ("weights_hash", "data", "split", "limit", "options")


def check_same_evaluation(found: Posteriors, wanted: Posteriors, path: Path) -> None:
    """Raise UserError where posteriors are of another network, of other data or with other options."""
    for key in _IDENTITY:
        there, here = found.metadata.get(key), wanted.metadata.get(key)
        if there != here:
            raise _another(path, f"{key} is {there}, here {here}")
    there, here = (of.metadata.get("content_sha256") for of in (found, wanted))
    if there is not None and there != here:  # None: of a version that did not look
        raise _another(path, "its images have changed since, under the same names")
    if found.classes != wanted.classes:
        raise _another(path, "its classes are others")
    labels = dict(_labels(wanted))
    if any(labels.get(name) != label for name, label in _labels(found)):
        raise _another(path, "its images or labels are others")


def _labels(posteriors: Posteriors) -> Iterator[tuple[str, Any]]:
    """Yield the name of each image with its label, or with which classes it has."""
    rows = posteriors.labels if posteriors.targets is None else posteriors.targets
    yield from zip(posteriors.ids, rows.tolist(), strict=True)


def _another(path: Path, what: str) -> UserError:
    return UserError(f"{path} holds another evaluation: {what}; choose another folder or remove it")


class Unfinished:
    """The rows of an evaluation, done or not yet: the probabilities of `empty` are replaced one by one.

    Until all are done they are kept in `folder`, else in memory alone; what is done in `others` counts as well.
    UserError where one of them holds another evaluation's.
    """

    def __init__(self, empty: Posteriors, folder: Path | None, others: Sequence[Path] = ()) -> None:
        self.posteriors = empty
        self.folder = folder
        self.others = others
        self.done = np.zeros(len(empty), dtype=np.bool_)
        self._saved = self.done.copy()
        self._last_save = time.monotonic()
        place = {name: i for i, name in enumerate(empty.ids)}
        for file in (file for one in (folder, *others) if one for file in sorted(one.glob("[0-9]*.parquet"))):
            part = Posteriors.read(file)
            check_same_evaluation(part, empty, file)
            rows = np.array([place[name] for name in part.ids], dtype=np.int64)
            empty.probabilities[rows] = part.probabilities
            self.done[rows] = self._saved[rows] = True

    def add(self, rows: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
        """Enter finished rows, and save now and then."""
        self.posteriors.probabilities[rows] = probabilities
        self.done[rows] = True
        if time.monotonic() - self._last_save >= SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Write the rows that are done and not yet on disk to a file of their own."""
        fresh = np.flatnonzero(self.done & ~self._saved)
        if self.folder and len(fresh):
            file = self.folder / f"{int(self._saved.sum()):08d}.parquet"
            self.posteriors.rows(tuple(self.posteriors.ids[i] for i in fresh)).write(file)
            self._saved[fresh] = True
        self._last_save = time.monotonic()

    def remove(self) -> None:
        """Remove what was kept on disk: the finished file has it all."""
        for folder in (self.folder, *self.others):
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
