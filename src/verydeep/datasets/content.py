"""What the files of a data set hold: a hash of each, read again only where its size or time of change is another."""

import zipfile
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import cache_folder, write_aside
from verydeep.basics.progress import track
from verydeep.basics.threads import in_threads
from verydeep.datasets.dataset import Dataset

_KNOWN = np.dtype([("name", "V16"), ("size", "<i8"), ("changed", "<i8"), ("content", "V16")])


def content_hashes(dataset: Dataset) -> list[bytes]:
    """Return 16 bytes for each image that are the same for the same content, none for one that cannot be read.

    Files are read in threads, once: the hashes are kept in the user's cache folder, by the data set's path, and hold
    as long as a file's size and time of change are the same.
    """
    known = _Known(dataset)
    hashes = in_threads(known.hash, range(len(dataset)))
    found = list(track(hashes, len(dataset), "reading"))
    known.keep()
    return found


def content_digest(dataset: Dataset) -> str:
    """Return one SHA-256 of all files' contents, 64 hexadecimal digits; empty for a set that draws its own images."""
    if type(dataset).read is not Dataset.read or dataset.storage is None:
        return ""
    return sha256(b"".join(content_hashes(dataset))).hexdigest()


class _Known:
    """Hashes by the name, size and time of change of a file; 48 bytes each."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.files = dataset.storage.files if dataset.storage is not None else {}
        place = str(dataset.storage.path.absolute()) if self.files else ""
        self.path = cache_folder() / "content" / f"{blake2b(place.encode(), digest_size=16).hexdigest()}.npy"
        self.rows = self._read() if self.files else np.empty(0, _KNOWN)
        self.places = {name: row for row, name in enumerate(self.rows["name"].tolist())}
        self.fresh: dict[bytes, tuple[int, int, bytes]] = {}

    def _read(self) -> NDArray[np.void]:
        try:
            rows = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # not there, or damaged
            return np.empty(0, _KNOWN)
        return rows if rows.dtype == _KNOWN else np.empty(0, _KNOWN)

    def hash(self, index: int) -> bytes:
        name = self.dataset.samples[index].id
        if (file := self.files.get(name)) is None:
            return self.dataset.content_hash(index)
        key, stamp = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest(), file.stamp()
        row = self.places.get(key)
        if row is not None and tuple(self.rows[row][["size", "changed"]].tolist()) == stamp:
            return bytes(self.rows[row]["content"])
        try:
            content = self.dataset.content_hash(index)
        except BadImageError:  # whoever decodes it will say so
            return b""
        self.fresh[key] = (*stamp, content)
        return content

    def keep(self) -> None:
        """Write what was not known before; a folder that cannot be written only means that files are read again."""
        if not self.fresh:
            return
        rows = [(key, *values) for key, values in self.fresh.items()]
        old = [row for name, row in self.places.items() if name not in self.fresh]
        try:
            with write_aside(self.path) as aside, Path(aside).open("wb") as file:
                np.save(file, np.concatenate([self.rows[old], np.array(rows, _KNOWN)]))
        except UserError:
            return
