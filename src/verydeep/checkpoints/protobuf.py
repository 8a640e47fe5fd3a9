"""Protocol buffers, read with distrust and written: the encoding under Caffe's and ONNX's files.

Only what a schema names is decoded; everything else is skipped, as every reader of protocol buffers does. A length
that reaches beyond its message ends the reading before anything is reserved for it, and long values are views into
the file, so memory is bounded by what the file really holds.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.basics.files import open_regular

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}

MOST_FIELDS = 200_000
"""Fields in one file; a real one has some hundreds. It bounds time and memory for files made to hurt."""

Schema = Mapping[str, "Field"]
Message = dict[str, list[Any]]


def map_file(path: Path) -> memoryview:
    """Return a file's bytes as a view that reads them when they are looked at; it keeps the mapping alive.

    UserError: the file cannot be read, or is empty.
    """
    try:
        with open_regular(path) as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes
    ----------
    number : int
        Its number in the definition.
    kind : {"int", "float", "text", "bytes"} or Schema
        How its values are read: `bytes` as views; a schema for a nested message.
    """

    number: int
    kind: "str | Schema"


@dataclass
class Decoder:
    """Decodes messages of one file.

    Attributes
    ----------
    where : str
        The file, for messages.
    fields_left : int
        How many more fields are read before the file is refused.
    """

    where: str
    fields_left: int = field(default=MOST_FIELDS)

    def decode(self, data: memoryview, schema: Schema) -> Message:
        """Return the values of the fields that `schema` names, each a list in the file's order, absent ones left out.

        UserError where the bytes are no message, or none of this schema.
        """
        known = {entry.number: (name, entry.kind) for name, entry in schema.items()}
        message: Message = {}
        for number, wire, value in self._fields(data):
            if number in known:
                name, kind = known[number]
                message.setdefault(name, []).extend(self._values(name, kind, wire, value))
        return message

    def _fields(self, data: memoryview) -> Iterator[tuple[int, int, Any]]:
        """Yield number, wire type and value: a whole number, or a view of the value's bytes."""
        position = 0
        while position < len(data):
            self._spend(1)
            tag, position = self._varint(data, position)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, position = self._varint(data, position)
                yield number, wire, value
                continue
            if wire == BYTES:
                size, position = self._varint(data, position)
            elif wire in _SIZES:
                size = _SIZES[wire]
            else:
                raise UserError(f"{self.where}: is damaged: wire type {wire} is none of a protocol buffer's")
            if size > len(data) - position:
                raise UserError(
                    f"{self.where}: is damaged or cut off: field {number} claims {size:,} bytes, "
                    f"{len(data) - position:,} are left"
                )
            yield number, wire, data[position : position + size]
            position += size

    def _spend(self, fields: int) -> None:
        self.fields_left -= fields
        if self.fields_left < 0:
            raise UserError(f"{self.where}: has over {MOST_FIELDS:,} fields, which no file of weights has")

    def _varint(self, data: memoryview, position: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= len(data):
                raise UserError(f"{self.where}: is cut off inside a number")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), position
        raise UserError(f"{self.where}: is damaged: a number is longer than ten bytes")

    def _values(self, name: str, kind: "str | Schema", wire: int, value: Any) -> list[Any]:
        if not isinstance(kind, str):
            if wire == BYTES:
                return [self.decode(value, kind)]
        elif kind == "int" and wire == VARINT:
            return [_signed(value)]
        elif kind == "int" and wire == BYTES:
            return self._packed(value)
        elif kind == "float" and wire == FIXED32:
            return [struct.unpack("<f", value)[0]]
        elif kind == "float" and wire == BYTES and len(value) % 4 == 0:
            self._spend(len(value) // 4)
            return list(struct.unpack(f"<{len(value) // 4}f", value))
        elif kind == "text" and wire == BYTES:
            return [bytes(value).decode("utf-8", errors="replace")]
        elif kind == "bytes" and wire != VARINT:
            return [value]
        raise UserError(f"{self.where}: is damaged, or another kind of file: {name} has wire type {wire}")

    def _packed(self, data: memoryview) -> list[int]:
        values, position = [], 0
        while position < len(data):
            self._spend(1)
            value, position = self._varint(data, position)
            values.append(_signed(value))
        return values


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


Chunk = bytes | memoryview


def encode(message: Mapping[str, Any], schema: Schema) -> list[Chunk]:
    """Return the bytes of a message as chunks to be written one after another, in the order of `message`.

    It has by field name a value or a sequence of values; nested messages are mappings. Chunks given as `bytes` are
    passed through, not copied.
    """
    chunks: list[Chunk] = []
    for name, given in message.items():
        entry = schema[name]
        many = isinstance(given, Sequence) and not isinstance(given, (str, bytes, memoryview))
        for value in given if many else [given]:
            chunks += _encode_value(entry, value)
    return chunks


def _encode_value(entry: Field, value: Any) -> list[Chunk]:
    if not isinstance(entry.kind, str):
        parts = encode(value, entry.kind)
    elif entry.kind == "int":
        return [_tag(entry.number, VARINT) + _varint_bytes(int(value) & (2**64 - 1))]
    elif entry.kind == "float":
        return [_tag(entry.number, FIXED32) + struct.pack("<f", value)]
    else:
        parts = [value.encode() if isinstance(value, str) else value]
    return [_tag(entry.number, BYTES) + _varint_bytes(sum(map(len, parts))), *parts]


def _tag(number: int, wire: int) -> bytes:
    return _varint_bytes(number << 3 | wire)


def _varint_bytes(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first.

    Examples
    --------
    >>> _varint_bytes(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
