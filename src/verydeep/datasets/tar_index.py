"""The index of a tar file: where each member's bytes lie, found by reading headers alone."""

import os
import posixpath
import re
from collections.abc import Iterator

from verydeep.basics.errors import UserError

Member = tuple[int, int]  # offset of the first byte, number of bytes

BLOCK = 512
OCTAL = re.compile(rb"[0-7]+")
REGULAR, HARD_LINK, SYMBOLIC_LINK = b"\x0007", b"1", b"2"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL, SPARSE = b"L", b"K", b"x", b"g", b"S"


def index_tar(descriptor: int, start: int, end: int, path: str) -> dict[str, Member]:
    """Return offset and size of every regular file in the tar between two offsets of an open file, in its order.

    Reads 512 bytes a member (POSIX ustar and pax, GNU long names; POSIX.1-2001 pax interchange format), which is
    several times faster than `tarfile`. Of members with one name the last counts, as when unpacking; links are
    followed to the file they name. UserError, naming `path`, if this is no tar file, or it is damaged or cut short.
    """
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    for kind, name, target, offset, size in _headers(descriptor, start, end, path):
        if kind in REGULAR and not name.endswith("/"):
            files[_relative(name)] = (offset, size)
        elif kind == HARD_LINK:
            links[_relative(name)] = _relative(target)
        elif kind == SYMBOLIC_LINK:
            links[_relative(name)] = _relative(posixpath.join(posixpath.dirname(name), target))
        elif kind == SPARSE:
            raise UserError(f"{path}: member {name} is stored sparse; pack the archive without --sparse")
    for name, target in links.items():
        for _ in range(8):  # a link to a link ...
            target = links.get(target, target)
        if target in files:
            files[name] = files[target]
    return files


def _headers(descriptor: int, start: int, end: int, path: str) -> Iterator[tuple[bytes, str, str, int, int]]:
    """Yield (kind, name, link's target, offset, size) of every member."""
    position = start
    special: dict[str, str] = {}  # what a pax or GNU header says of the member after it
    while position + BLOCK <= end:
        header = os.pread(descriptor, BLOCK, position)
        if not header.strip(b"\0"):  # zeros end the archive
            return
        _verify(header, path, position)
        kind = header[156:157]
        offset = position + BLOCK
        try:
            size = int(special["size"]) if "size" in special else _number(header[124:136])
        except ValueError:
            raise UserError(f"{path}: is damaged at byte {position}; copy or download it again") from None
        stored = 0 if kind in b"123456" else size  # links, devices and folders have no data
        if offset + stored > end:
            raise UserError(f"{path}: is cut short, at byte {end}; copy or download it again")
        position = offset + -(-stored // BLOCK) * BLOCK
        if kind in (LONG_NAME, LONG_LINK):
            key = "path" if kind == LONG_NAME else "linkpath"
            special[key] = _text(os.pread(descriptor, size, offset))
        elif kind == PAX:
            special.update(_pax(os.pread(descriptor, size, offset), path))
        elif kind != PAX_GLOBAL:
            name = special.get("path") or _name(header)
            target = special.get("linkpath") or _text(header[157:257])
            yield (SPARSE if "GNU.sparse.major" in special else kind), name, target, offset, size
            special = {}
    if position == start:
        raise UserError(f"{path}: is not a tar file; expected a folder or an uncompressed .tar")
    raise UserError(f"{path}: is cut short, at byte {end}; copy or download it again")  # no zeros at its end


def _verify(header: bytes, path: str, position: int) -> None:
    """Raise UserError unless the header's own checksum, the sum of its bytes, is right."""
    stated = header[148:156].strip(b"\0 ")
    real = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if not OCTAL.fullmatch(stated) or int(stated, 8) != real:
        what = "is not a tar file" if position == 0 else f"is damaged at byte {position}"
        raise UserError(f"{path}: {what}; expected a folder or an uncompressed .tar")


def _number(field: bytes) -> int:
    """Return a numeric field: octal digits, or for 8 GiB and more big-endian binary after a set top bit."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:  # GNU's "ustar " keeps other things there
        return f"{_text(header[345:500])}/{name}"
    return name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, path: str) -> Iterator[tuple[str, str]]:
    """Yield the records of a pax header, each written as "length key=value" and a line end."""
    while data.strip(b"\0"):
        digits = data.partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        if length == 0:
            raise UserError(f"{path}: is damaged (pax header); copy or download it again")
        key, _, value = data[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        yield key.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")
        data = data[length:]


def _relative(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")
