"""Archives read in place: tars, and zip files; compressed tars once unpacked into the cache."""

import bz2
import gzip
import lzma
import os
import shutil
import sys
import weakref
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, cast

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import write_aside
from verydeep.datasets.tar_index import Member, index_tar

COMPRESSED: dict[bytes, tuple[str, Callable[[Path], object] | None]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ": ("xz", lzma.open),
    b"\x28\xb5\x2f\xfd": ("zstd", None),
    b"Rar!": ("rar", None),
    b"7z\xbc\xaf": ("7z", None),
}
LOCAL_HEADER = 30  # bytes before a zip member's name
HEAD = 4096  # packed bytes that surely hold a file's first few
LARGEST = 2 << 30  # bytes of a packed file: one that claims more is no picture
FREE = 1 << 30  # bytes that unpacking leaves on the disk


class Archive:
    """An archive held open; any number of threads read from it at once, since `pread` moves no position.

    `shown` is what messages call it, where that is not `path`.
    """

    def __init__(self, path: Path, shown: Path | None = None) -> None:
        self.path = shown or path
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        self.size, self.changed = status.st_size, status.st_mtime_ns

    def members(self, start: int = 0, end: int | None = None) -> dict[str, Member]:
        """Index the tar that lies between two offsets, by default the whole file."""
        return index_tar(self.descriptor, start, self.size if end is None else end, str(self.path))


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A member of a tar, or of a tar within it."""

    archive: Archive
    name: str
    offset: int
    size: int

    @property
    def where(self) -> str:
        """Path as messages name it: the archive's, then the member's."""
        return f"{self.archive.path}/{self.name}"

    def read(self, limit: int | None = None) -> bytes:
        """Return the content, or its first `limit` bytes."""
        wanted = self.size if limit is None else min(limit, self.size)
        data = os.pread(self.archive.descriptor, wanted, self.offset)
        if len(data) != wanted:
            raise BadImageError(self.where, "cannot be read (the archive changed since it was opened)")
        return data

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and the archive's time of change in nanoseconds."""
        return self.size, self.archive.changed


@dataclass(frozen=True, slots=True)
class ZippedFile:
    """A deflated member of a zip file; one that is only stored is an `ArchivedFile`."""

    archive: Archive
    name: str
    offset: int  # of the packed bytes
    packed: int
    size: int
    checksum: int

    @property
    def where(self) -> str:
        """Path as messages name it: the archive's, then the member's."""
        return f"{self.archive.path}/{self.name}"

    def read(self, limit: int | None = None) -> bytes:
        """Return the content, or its first `limit` bytes."""
        if self.size > LARGEST:
            raise BadImageError(self.where, f"claims {self.size:,} bytes; expected at most {LARGEST:,}")
        wanted = self.packed if limit is None else min(self.packed, limit + HEAD)
        try:
            data = zlib.decompressobj(-15).decompress(
                os.pread(self.archive.descriptor, wanted, self.offset), self.size + 1
            )
        except zlib.error as error:
            raise BadImageError(self.where, f"cannot be read ({error})") from None
        if limit is not None:
            return data[:limit]
        if len(data) != self.size or zlib.crc32(data) != self.checksum:
            raise BadImageError(self.where, "cannot be read (damaged within the archive)")
        return data

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and the archive's time of change in nanoseconds."""
        return self.size, self.archive.changed


def read_archive(path: Path) -> dict[str, ArchivedFile | ZippedFile]:
    """Index a tar, a zip file, or a tar compressed by gzip, bzip2 or xz, which is unpacked into the cache once.

    UserError where it is none of these, damaged, or needs a password.
    """
    archive = open_archive(path)
    start = os.pread(archive.descriptor, 6, 0)
    if start.startswith(b"PK"):
        return _zip(archive)
    for magic, (kind, opener) in COMPRESSED.items():
        if start.startswith(magic):
            if opener is None:
                raise UserError(f"{path}: is compressed ({kind}), so it cannot be read in place; unpack it first")
            archive = open_archive(_unpacked(archive, opener), path)
    return {name: ArchivedFile(archive, name, offset, size) for name, (offset, size) in archive.members().items()}


def open_archive(path: Path, shown: Path | None = None) -> Archive:
    """Open an archive; UserError where it cannot be read."""
    try:
        return Archive(path, shown)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _zip(archive: Archive) -> dict[str, ArchivedFile | ZippedFile]:
    try:
        with zipfile.ZipFile(archive.path) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{archive.path}: is a damaged zip file ({error}); copy or download it again") from None
    found: dict[str, ArchivedFile | ZippedFile] = {}
    for member in members:
        name = member.filename.replace("\\", "/").lstrip("/")
        if member.flag_bits & 1:
            raise UserError(f"{archive.path}: {name} needs a password; unpack it first")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{archive.path}: {name} is packed by an unusual method; unpack the archive first")
        header = os.pread(archive.descriptor, LOCAL_HEADER, member.header_offset)
        start = member.header_offset + LOCAL_HEADER + sum(int.from_bytes(header[k : k + 2], "little") for k in (26, 28))
        if member.compress_type == zipfile.ZIP_STORED:
            found[name] = ArchivedFile(archive, name, start, member.file_size)
        else:
            found[name] = ZippedFile(archive, name, start, member.compress_size, member.file_size, member.CRC)
    return found


def _unpacked(archive: Archive, opener: Callable[[Path], object]) -> Path:
    """Return the tar within a compressed file, in the cache."""
    words = f"{archive.path.resolve()} {archive.size} {archive.changed}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verydeep" / "unpacked"
    tar = cache / f"{blake2b(words.encode(), digest_size=16).hexdigest()}.tar"
    if not tar.is_file():
        print(f"verydeep: {archive.path}: compressed, so it is unpacked once: {tar}", file=sys.stderr, flush=True)
        with write_aside(tar) as aside:
            try:
                with cast(BinaryIO, opener(archive.path)) as source, aside.open("wb") as target:
                    for block in iter(partial(source.read, 1 << 24), b""):
                        if shutil.disk_usage(cache).free < FREE + len(block):
                            raise UserError(
                                f"{archive.path}: {cache} has no room for what it holds; unpack it elsewhere"
                            )
                        target.write(block)
            except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
                raise UserError(f"{archive.path}: cannot be unpacked ({error}); copy or download it again") from None
    return tar
