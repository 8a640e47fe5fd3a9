"""Pictures that lie in Parquet files beside their labels, as Hugging Face keeps data sets: read there, in place."""

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import open_regular
from verydeep.datasets.layout import few
from verydeep.datasets.storage import File, FolderFile, Storage

KEPT = 256 << 20  # bytes of row groups that are kept once read: a picture's neighbors are often wanted next
LARGE_GROUP = 128 << 20  # bytes of a row group from which on its pictures are slow to read in random order
MOST_GROUP = 2 << 30  # bytes of a row group from which on it is not read: it would be held whole, whatever is in it
_DAMAGE = (OSError, ValueError, pa.ArrowException)


def picture_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that hold pictures: structs with their bytes."""
    return [one.name for one in schema if pa.types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0]


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return what the numbers in columns of classes mean, as Hugging Face's description in a file says."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about.get("info", {}).get("features", {})
        found = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, AttributeError, TypeError):
        return {}
    return {column: names for column, names in found.items() if names}


def _names(feature: Any) -> list[str] | None:
    """Return the names of a feature of classes, within lists, or among the fields of objects."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature.get("names") or ()] or None
    inner = [feature["feature"]] if "feature" in feature else list(feature.values())
    return next((names for each in inner if (names := _names(each))), None)


@dataclass
class _Group:
    lock: threading.Lock = field(default_factory=threading.Lock)
    pictures: pa.ChunkedArray | None = None


class _Recent:
    """Row groups read last, at most `KEPT` bytes of them beside the one in use; each is read by one thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.groups: OrderedDict[tuple[str, int], _Group] = OrderedDict()

    def get(self, key: tuple[str, int], read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        with self.lock:
            group = self.groups.setdefault(key, _Group())
            self.groups.move_to_end(key)
        with group.lock:
            if group.pictures is None:
                group.pictures = read()
            found = group.pictures
        with self.lock:
            sizes = {name: each.pictures.nbytes for name, each in self.groups.items() if each.pictures is not None}
            for name in sizes:
                if sum(sizes.values()) > KEPT and name != key:
                    sizes[name] = 0
                    self.groups.pop(name)
        return found


class Shard:
    """The pictures of one column of a Parquet file; UserError where it is damaged."""

    def __init__(self, path: str, column: str, recent: _Recent) -> None:
        self.path, self.column, self.recent = path, column, recent
        status = Path(path).stat()
        self.stamp = status.st_size, status.st_mtime_ns
        with open_parquet(path) as file:
            self.metadata = file.metadata
        groups = [self.metadata.row_group(i) for i in range(self.metadata.num_row_groups)]
        self.ends = np.cumsum([group.num_rows for group in groups]).tolist()
        self.largest = max((group.total_byte_size for group in groups), default=0)
        if self.largest > MOST_GROUP:
            raise UserError(
                f"{path}: has a row group of {self.largest / 2**30:.1f} GiB, and {MOST_GROUP >> 30} GiB are read at "
                "most: write the file anew with 100 rows a group"
            )

    def read(self, row: int) -> bytes:
        """Return the picture in a row; BadImageError where there is none, or the file is damaged or has changed."""
        where = f"{self.path}, row {row}"
        group = bisect_right(self.ends, row)
        try:
            pictures = self.recent.get((f"{self.path}\0{self.column}", group), lambda: self._group(group))
            data = pictures[row - (self.ends[group - 1] if group else 0)].as_py()
        except _DAMAGE as error:
            raise BadImageError(where, f"cannot be read ({str(error).splitlines()[0]})") from None
        if data is None:
            raise BadImageError(where, f"column {self.column} holds no picture, perhaps the path of one")
        return bytes(data)

    def _group(self, number: int) -> pa.ChunkedArray:
        status = Path(self.path).stat()
        if (status.st_size, status.st_mtime_ns) != self.stamp:
            raise ValueError("the file has changed since it was opened")
        # A file of its own for each reading: several threads read at a time, from several row groups.
        with pq.ParquetFile(self.path, metadata=self.metadata) as file:
            table = file.read_row_group(number, columns=[f"{self.column}.bytes"], use_threads=False)
        return pa.chunked_array([chunk.field("bytes") for chunk in table[self.column].chunks], pa.binary())


@dataclass(frozen=True, slots=True)
class PictureInside:
    """A picture in a row of a Parquet file."""

    shard: Shard
    row: int

    @property
    def where(self) -> str:
        """Path as messages name it: the file's, and the row counted from 0."""
        return f"{self.shard.path}, row {self.row}"

    def read(self, limit: int | None = None) -> bytes:
        """Return the content, or its first `limit` bytes."""
        return self.shard.read(self.row)[:limit]

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and time of change in nanoseconds of the whole file."""
        return self.shard.stamp


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file; UserError where it is none."""
    try:
        with open_regular(path):
            return pq.ParquetFile(path)
    except _DAMAGE as error:
        raise UserError(f"{path}: is damaged ({str(error).splitlines()[0]}); copy or download it again") from None


def picture_name(file: str, column: str, row: int, columns: list[str]) -> str:
    """Return what a picture in a file is called."""
    within = f"{column}/" if len(columns) > 1 else ""
    return f"{file.rpartition('.')[0]}/{within}{row:06d}"


@dataclass(frozen=True)
class Inside:
    """The pictures in a source's Parquet files, by name, with the source's other files."""

    storage: Storage
    pictures: list[str]
    files: list[str]  # that hold them
    notes: list[str]


def pictures_inside(storage: Storage) -> Inside | None:
    """Return the pictures in the Parquet files of a folder; None where these hold none, or lie in an archive."""
    recent, found, files, slow = _Recent(), dict[str, File](), [], []
    for name in sorted(storage.ending("parquet")):
        file = storage.files[name]
        if not isinstance(file, FolderFile):
            continue
        with open_parquet(file.path) as opened:
            columns = picture_columns(opened.schema_arrow)
        for column in columns:
            shard = Shard(file.path, column, recent)
            slow += [file.path] if shard.largest > LARGE_GROUP else []
            rows = range(shard.metadata.num_rows)
            found |= {picture_name(name, column, row, columns): PictureInside(shard, row) for row in rows}
        files += [name] if columns else []
    if not found:
        return None
    notes = []
    if slow:
        notes = [
            f"{few(slow)}: pictures lie in row groups of more than {LARGE_GROUP >> 20} MiB, which are read for each of "
            "them: write the files anew with 100 rows a group"
        ]
    return Inside(Storage(storage.path, storage.files | found), list(found), files, notes)
