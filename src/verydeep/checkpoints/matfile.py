"""MATLAB's `.mat` files of format 5, read with distrust: a damaged one ends in one line.

The format is a row of elements, each a type, a size and so many bytes; arrays are elements of elements. Nothing is
reserved that the file does not hold, and uncompressed numbers are views into the mapped file.
"""

# SciPy's `loadmat` reads all of this and more, but not with distrust: of 3,300 small files damaged at random, 6 ended
# SciPy 1.17 with a segmentation fault, which no `except` catches.

import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.basics.errors import UserError
from verydeep.checkpoints.protobuf import map_file

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}
_CELL, _STRUCT, _OBJECT, _CHAR = 1, 2, 3, 4
_DEPTH = 16
"""Levels of arrays in arrays; MatConvNet's files have six."""

_UNPACKED = 64 << 20
"""Bytes to which a compressed variable may always grow; beyond, four times the file's size."""


def read(path: Path) -> dict[str, Any]:
    """Return a file's variables by name; UserError where it is damaged, cut off, or of another format.

    Numbers are arrays with MATLAB's shape, text is str, a cell a list (column by column), a struct a dict, an array of
    structs a list of them; None is none of these.
    """
    data = map_file(path)
    if len(data) < 128 or bytes(data[124:128]) != b"\x00\x01IM":
        raise UserError(f"{path}: no .mat file of MATLAB's format 5, or cut off in its first 128 bytes")
    reader = _Reader(str(path), max(4 * len(data), _UNPACKED))
    variables: dict[str, Any] = {}
    position = 128
    while position < len(data):
        kind, content, position = reader.element(data, position)
        if kind == _COMPRESSED:
            kind, content, _ = reader.element(reader.unpack(content), 0)
        if kind == _MATRIX:
            name, value = reader.array(content, 0)
            variables[name] = value
    return variables


@dataclass
class _Reader:
    """Reads elements of one file; `space` bytes may still be unpacked."""

    where: str
    space: int

    def damaged(self, what: str) -> UserError:
        return UserError(f"{self.where}: is damaged or cut off: {what}")

    def element(self, data: memoryview, position: int) -> tuple[int, memoryview, int]:
        """Return an element's type and content, and where the next one begins."""
        if len(data) - position < 8:
            raise self.damaged("an element has no room for its type and size")
        first, size = (int(value) for value in np.frombuffer(data[position : position + 8], "<u4"))
        if first >> 16:  # up to four bytes stand in the tag itself
            kind, size = first & 0xFFFF, first >> 16
            start, after = position + 4, position + 8
        else:
            kind, start = first, position + 8
            after = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if (size > 4 and first >> 16) or size > len(data) - start:
            raise self.damaged(f"an element claims {size:,} bytes, {len(data) - start:,} are left")
        return kind, data[start : start + size], after

    def unpack(self, content: memoryview) -> memoryview:
        unpacker = zlib.decompressobj()
        try:
            unpacked = unpacker.decompress(content, self.space)
        except zlib.error as error:
            raise self.damaged(str(error)) from None
        if unpacker.unconsumed_tail:
            raise self.damaged("a variable unpacks to more than a file of weights holds")
        self.space = max(1, self.space - len(unpacked))
        return memoryview(unpacked)

    def array(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Return an array's name and value."""
        if depth > _DEPTH:
            raise self.damaged(f"arrays stand in arrays over {_DEPTH} levels deep")
        if not len(data):  # how MATLAB writes a cell that was never filled
            return "", np.zeros((0, 0))
        _, flags, position = self.element(data, 0)
        _, sides, position = self.element(data, position)
        _, name, position = self.element(data, position)
        if len(flags) < 4 or len(sides) % 4:
            raise self.damaged("an array lacks its type or shape")
        kind, shape = flags[0], tuple(int(side) for side in np.frombuffer(sides, "<i4"))
        if any(side < 0 for side in shape):
            raise self.damaged(f"an array claims a shape of {shape}")
        label = bytes(name).decode("latin-1")
        if kind == _CELL:
            return label, self._members(data, position, prod(shape), depth)
        if kind in (_STRUCT, _OBJECT):
            return label, self._structs(data, position, prod(shape), depth, is_object=kind == _OBJECT)
        if kind == _CHAR:
            return label, self._text(data, position)
        if 6 <= kind <= 15:
            return label, self._numbers(data, position, shape)
        return label, None

    def _members(self, data: memoryview, position: int, count: int, depth: int) -> list[Any]:
        if count > (len(data) - position) // 8:
            raise self.damaged(f"an array claims {count:,} members")
        values = []
        for _ in range(count):
            kind, content, position = self.element(data, position)
            if kind != _MATRIX:
                raise self.damaged("a member of an array is none")
            values.append(self.array(content, depth + 1)[1])
        return values

    def _structs(self, data: memoryview, position: int, count: int, depth: int, is_object: bool) -> Any:
        if is_object:  # the class's name
            _, _, position = self.element(data, position)
        _, length, position = self.element(data, position)
        _, names, position = self.element(data, position)
        size = int.from_bytes(length[:4], "little")
        if not 0 < size <= 4096 or len(names) % size:
            raise self.damaged("a struct's field names")
        fields = [bytes(names[i : i + size]).partition(b"\0")[0].decode("latin-1") for i in range(0, len(names), size)]
        if not fields:
            return {}
        values = self._members(data, position, count * len(fields), depth)
        rows = [values[i : i + len(fields)] for i in range(0, len(values), len(fields))]
        structs = [dict(zip(fields, row, strict=True)) for row in rows]
        return structs[0] if count == 1 else structs

    def _text(self, data: memoryview, position: int) -> str:
        kind, content, _ = self.element(data, position)
        return bytes(content).decode(_TEXTS.get(kind, "latin-1"), errors="replace")

    def _numbers(self, data: memoryview, position: int, shape: tuple[int, ...]) -> Any:
        kind, content, _ = self.element(data, position)
        if kind not in _NUMBERS:
            raise self.damaged(f"numbers of type {kind}")
        dtype = np.dtype(_NUMBERS[kind])
        if len(content) != prod(shape) * dtype.itemsize:
            held = len(content) / dtype.itemsize
            raise self.damaged(f"an array claims {' x '.join(map(str, shape))} values and holds {held:,.0f}")
        return np.frombuffer(content, dtype).reshape(shape, order="F")
