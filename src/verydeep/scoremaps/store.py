"""Where a map is kept while it grows: in memory, or in a zarr folder that can be continued at any time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError, WorkError
from verydeep.basics.extras import need
from verydeep.basics.files import LOCK
from verydeep.scoremaps.bands import Rectangle
from verydeep.scoremaps.plan import chunk_rows

_KEY = "verydeep"
_COLUMNS = 256  # of a chunk
Values = NDArray[np.float32] | NDArray[np.uint8]


class Store(Protocol):
    """Keeps the maps of all scales.

    Attributes
    ----------
    arrays : list
        One a scale, K x h x w, NaN where nothing was computed.
    done : list of list of Rectangle
        What is finished of each.
    """

    arrays: list[Any]
    done: list[list[Rectangle]]

    def write(self, level: int, top: int, left: int, values: Values) -> None:
        """Keep some rows of a part, K x rows x columns; the rows of a part come from top to bottom."""

    def flush(self) -> None:
        """Finish what was written so far."""

    def note(self, **facts: Any) -> None:
        """Keep facts about the map."""


class Memory:
    """Maps as numpy arrays."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        self.arrays: list[Any] = [np.full(shape, np.nan, np.float32) for shape in shapes]
        self.done: list[list[Rectangle]] = [[] for _ in shapes]

    def write(self, level: int, top: int, left: int, values: Values) -> None:
        """Keep some rows."""
        rows, columns = values.shape[1:]
        self.arrays[level][:, top : top + rows, left : left + columns] = values
        self.done[level].append(Rectangle(top, left, top + rows, left + columns))

    def flush(self) -> None:
        """Do nothing: all is there."""

    def note(self, **facts: Any) -> None:
        """Do nothing: there is no file."""


class Folder:
    """Maps as arrays of a zarr group, written a row of chunks at a time; K x h x w, with the facts of their level.

    What is finished is noted only after it was written, and chunks appear whole or not at all, so whatever stops the
    work leaves a map whose noted part is right. Maps of classes are of `dtype` uint8, 255 where none was computed. A
    folder of the same map, by `about`, is continued; UserError where it holds something else.
    """

    def __init__(
        self,
        path: Path,
        about: dict[str, Any],
        levels: dict[str, dict[str, Any]],
        shapes: Sequence[tuple[int, ...]],
        dtype: str = "float32",
    ) -> None:
        zarr = need("zarr", "maps")
        self._path = path
        if any(file.name != LOCK for file in path.iterdir()):
            self._group = _same(zarr, path, about)
        else:
            with _writing(path):
                self._group = zarr.create_group(path, attributes={_KEY: about, "progress": {}, "complete": False})
        for (name, facts), shape in zip(levels.items(), shapes, strict=True):
            if name not in self._group:
                chunks = (shape[0], min(chunk_rows(shape[0]), shape[1]), min(_COLUMNS, shape[2]))
                with _writing(path):
                    self._group.create_array(
                        name,
                        shape=shape,
                        dtype=dtype,
                        chunks=chunks,
                        fill_value=float("nan") if dtype == "float32" else 255,
                        dimension_names=("class", "y", "x"),
                        attributes=facts,
                    )
        self.names = list(levels)
        self.arrays: list[Any] = [self._group[name] for name in levels]
        progress = self._group.attrs["progress"]
        self.done = [[Rectangle(*edges) for edges in progress.get(name, [])] for name in levels]
        self._level, self._top, self._left = 0, 0, 0
        self._rows: list[Any] = []

    def write(self, level: int, top: int, left: int, values: Values) -> None:
        """Keep some rows, and write those that fill a row of chunks."""
        end = self._top + sum(rows.shape[1] for rows in self._rows)
        if self._rows and (level, top, left) != (self._level, end, self._left):
            self.flush()
        if not self._rows:
            self._level, self._top, self._left = level, top, left
            end = top
        self._rows.append(values)
        chunk = self.arrays[level].chunks[1]
        if (end + values.shape[1]) // chunk > self._top // chunk:
            self.flush()

    def flush(self) -> None:
        """Write what there is, then note that it is done."""
        if not self._rows:
            return
        values = np.concatenate(self._rows, axis=1)
        self._rows = []
        rows, columns = values.shape[1:]
        with _writing(self._path):
            self.arrays[self._level][:, self._top : self._top + rows, self._left : self._left + columns] = values
            self._finished(Rectangle(self._top, self._left, self._top + rows, self._left + columns))

    def note(self, **facts: Any) -> None:
        """Write facts into the group's attributes."""
        with _writing(self._path):
            self._group.attrs.update(facts)

    def _finished(self, part: Rectangle) -> None:
        done = self.done[self._level]
        last = done[-1] if done else None
        if last and (last.left, last.right, last.bottom) == (part.left, part.right, part.top):
            done[-1] = Rectangle(last.top, last.left, part.bottom, part.right)
        else:
            done.append(part)
        self._group.attrs["progress"] = {
            name: [[one.top, one.left, one.bottom, one.right] for one in parts]
            for name, parts in zip(self.names, self.done, strict=True)
        }


def _same(zarr: Any, path: Path, about: dict[str, Any]) -> Any:
    try:
        group = zarr.open_group(path, mode="r+")
        there = group.attrs[_KEY]
    except Exception:  # zarr raises errors of many types for what is no zarr
        raise UserError(f"{path}: exists, and holds no score map; choose another place for --out") from None
    differing = [key for key in about if there.get(key) != about[key]]
    if differing:
        raise UserError(
            f"{path}: holds the map of something else ({differing[0]}: {there.get(differing[0])!r} there, "
            f"{about[differing[0]]!r} now); choose another place for --out, or remove it"
        )
    return group


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn errors of the file system into one line."""
    try:
        yield
    except OSError as error:
        raise WorkError(
            f"{path}: cannot be written ({error.strerror or error}); what was written before is kept: make room and "
            "give the same command again, and it continues"
        ) from None


def open_map(path: Path) -> Any:
    """Return the zarr group of a map, for reading. UserError: there is none."""
    zarr = need("zarr", "maps")
    with suppress(Exception):
        group = zarr.open_group(path, mode="r")
        if _KEY in group.attrs:
            return group
    raise UserError(f"{path}: holds no score map; write one with `verydeep scoremap`")
