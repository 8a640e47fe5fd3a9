"""Files by name, the same whether a folder or an archive holds them."""

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import open_regular
from verydeep.datasets.archives import ArchivedFile, ZippedFile, open_archive, read_archive
from verydeep.images.formats import HEAD, is_picture, suffix

MOST_TEXT = 2 << 30  # bytes of a file that is read whole; COCO's largest has 0.5 GB
MOST_LISTS = 100  # files that are looked into as lists of many pictures
JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # what systems leave behind; it holds thumbnails, not samples


class File(Protocol):
    """One file: where it is and what is in it."""

    @property
    def where(self) -> str:
        """Path as messages name it."""

    def read(self, limit: int | None = None) -> bytes:
        """Return the content, or its first `limit` bytes; BadImageError if it cannot be read."""

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and time of change in nanoseconds; they change when the content does."""


@dataclass(frozen=True, slots=True)
class FolderFile:
    """A file in a folder."""

    path: str

    @property
    def where(self) -> str:
        """Path as messages name it."""
        return self.path

    def read(self, limit: int | None = None) -> bytes:
        """Return the content, or its first `limit` bytes."""
        try:
            with open_regular(self.path) as file:
                return file.read(-1 if limit is None else limit)
        except OSError as error:
            raise BadImageError(self.path, f"cannot be read ({error.strerror})") from None

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and time of change in nanoseconds."""
        try:
            status = Path(self.path).stat()
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns


class Storage:
    """Files by name: "/" between the parts, Unicode in normal form C, nothing hidden; `path` is what the user named."""

    def __init__(self, path: Path, files: dict[str, File]) -> None:
        self.path = path
        self.files = files

    def read(self, name: str) -> bytes:
        """Return the content of the file `name`."""
        return self.files[name].read()

    def json(self, name: str) -> Any:
        """Return what the JSON file `name` holds; UserError where it is damaged."""
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.where(name)}: is no JSON ({str(error).splitlines()[0]})") from None

    def read_whole(self, name: str) -> bytes:
        """Return the content of a file of labels; UserError if it is too large to be one."""
        if self.files[name].stamp()[0] > MOST_TEXT:
            raise UserError(f"{self.where(name)}: is larger than {MOST_TEXT >> 20} MiB, too large for a list of labels")
        return self.read(name)

    def text(self, name: str) -> str:
        """Return the content of the text file `name`; UserError if it is not UTF-8, or too large."""
        try:
            return self.read_whole(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.where(name)}: is not UTF-8 text (byte {error.start})") from None

    def where(self, name: str) -> str:
        """Return the path of the file `name`, as messages name it."""
        return self.files[name].where

    def ending(self, *suffixes: str) -> list[str]:
        """Return the names that end so, in the storage's order."""
        return [name for each in suffixes for name in self._by_suffix.get(each, ())]

    def outermost(self, *suffixes: str) -> list[str]:
        """Return, sorted, those that lie outermost or one folder below that: what lies deeper is one file a picture."""
        names = self.ending(*suffixes)
        depth = min((name.count("/") for name in names), default=0) + 1
        return sorted(name for name in names if name.count("/") <= depth)[:MOST_LISTS]

    @cached_property
    def images(self) -> list[str]:
        """The names of the files that count as pictures, as `is_picture` says, sorted."""
        return sorted(name for name, file in self.files.items() if is_picture(name, partial(file.read, HEAD)))

    @cached_property
    def others(self) -> list[str]:
        """The names of all other files, sorted."""
        return sorted(set(self.files).difference(self.images))

    @cached_property
    def _by_suffix(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.files:
            found.setdefault(suffix(name), []).append(name)
        return found

    def below(self, folder: str) -> "Storage":
        """Return the files below `folder` alone, named from there."""
        prefix = f"{folder}/"
        cut = len(prefix)
        return Storage(self.path, {n[cut:]: f for n, f in self.files.items() if n.startswith(prefix)})

    def folders(self) -> list[str]:
        """Return the names of the outermost folders, sorted."""
        return sorted({name.partition("/")[0] for name in self.files if "/" in name})


def open_storage(path: Path) -> Storage:
    """Open a folder, or an archive as `read_archive` does; hidden files are left out.

    UserError if nothing is there, it is neither folder nor archive, or it holds no files.
    """
    if path.is_dir():
        storage = Storage(path, {_tidy(name): FolderFile(full) for name, full in _walk(path)})
    elif path.is_file():
        storage = Storage(path, {_tidy(name): file for name, file in read_archive(path).items()})
    else:
        raise UserError(f"{path}: no such folder or archive (the embedded data set is called: scenes)")
    storage.files = {name: file for name, file in storage.files.items() if not _hidden(name)}
    if not storage.files:
        raise UserError(f"{path}: holds no files; expected a folder or archive of labeled images")
    return storage


def expand(storage: Storage, tars: re.Pattern[str]) -> Storage:
    """Return `storage` with the tars within it that `tars` matches indexed too: `a.tar` holding `b` becomes `a/b`."""
    files: dict[str, File] = {}
    for name, file in storage.files.items():
        if not tars.fullmatch(name) or isinstance(file, ZippedFile):
            files[name] = file
            continue
        if isinstance(file, ArchivedFile):
            archive, above, start, end = file.archive, f"{file.name}/", file.offset, file.offset + file.size
        else:
            archive, above, start, end = open_archive(Path(file.where)), "", 0, None
        for inner, (offset, size) in archive.members(start, end).items():
            tidy = _tidy(f"{name.removesuffix('.tar')}/{inner}")
            files[tidy] = ArchivedFile(archive, above + inner, offset, size)
    return Storage(storage.path, files)


def _walk(root: Path, above: tuple[tuple[int, int], ...] = (), prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (relative name, path) of every file below `root`, following links but never in a circle."""
    try:
        status = root.stat()
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
        if not is_folder:  # also a broken link or a pipe: a damaged file, not an absent one
            yield prefix + entry.name, entry.path
        elif not _hidden(entry.name):
            yield from _walk(Path(entry.path), (*above, here), f"{prefix}{entry.name}/")


def _tidy(name: str) -> str:
    """Return a name that is valid Unicode, in normal form C: one way to write it, whatever wrote it."""
    if name.isascii():
        return name
    valid = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return unicodedata.normalize("NFC", valid)


def _hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name or not JUNK_FOLDERS.isdisjoint(name.split("/"))
