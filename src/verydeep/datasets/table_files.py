"""Files of rows: CSV, TSV, lists, JSON, JSON lines, Parquet, as columns by name."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets.labels import Finder
from verydeep.datasets.storage import FolderFile, Storage
from verydeep.images.formats import suffix

SUFFIXES = frozenset({"csv", "tsv", "txt", "json", "jsonl", "ndjson", "parquet"})
OBJECTS = "objects"  # Hugging Face's column of boxes and categories
PLACES = frozenset({"bbox", "area", "id", "iscrowd", "is_crowd"})  # of objects: numbers that are no classes
LOOKED_AT = 200  # rows by which columns are judged


@dataclass(frozen=True)
class Table:
    """Rows by column, every cell as it is written, or as its format has it."""

    file: str
    columns: dict[str, list[Any]]
    damage: str = ""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of columns whose file orders them

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.columns.values()), []))

    def some(self, column: str) -> list[Any]:
        """Return some cells of a column, evenly chosen."""
        return self.columns[column][:: max(1, self.rows // LOOKED_AT)]


def read_table(storage: Storage, name: str, finder: Finder) -> Table | None:
    """Return a table; None where the file is none."""
    kind = suffix(name)
    try:
        if kind == "parquet":
            return _parquet(storage, name)
        if kind in ("json", "jsonl", "ndjson"):
            return _json(storage, name)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{storage.where(name)}: is damaged ({str(error).splitlines()[0]})") from None
    return _text(storage, name, finder)


def _parquet(storage: Storage, name: str) -> Table:
    """Return a Parquet file's columns but for pictures, of which their names, and classes by their names."""
    import pyarrow.parquet

    from verydeep.datasets.parquet_pictures import class_names, open_parquet, picture_columns, picture_name

    file = storage.files[name]
    inside = isinstance(file, FolderFile)
    opened = open_parquet(file.where) if inside else pyarrow.parquet.ParquetFile(BytesIO(storage.read_whole(name)))
    schema = opened.schema_arrow
    pictures = picture_columns(schema)
    if pictures and not inside:
        raise UserError(f"{storage.where(name)}: holds pictures, which are read in a folder only; unpack the archive")
    kept = [one.name for one in schema if one.name == OBJECTS or not _is_nested(one.type)]
    table = opened.read(columns=kept, use_threads=False)
    columns = {column: table[column].to_pylist() for column in kept}
    orders = class_names(schema)
    for column, names in orders.items():
        if column in columns:
            columns[column] = [_named(cell, names) for cell in columns[column]]
    for column in pictures:
        rows = range(opened.metadata.num_rows)
        columns[column] = [picture_name(name, column, row, pictures) for row in rows]
    return Table(name, columns, classes={column: tuple(names) for column, names in orders.items()})


def _is_nested(kind: Any) -> bool:
    """Say whether cells are structs, or lists of numbers that are no classes: embeddings, masks."""
    import pyarrow

    of = kind.value_type if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) else kind
    listed = of is not kind and not (pyarrow.types.is_integer(of) or pyarrow.types.is_string(of))
    return pyarrow.types.is_struct(kind) or listed


def _named(cell: Any, names: Sequence[str]) -> Any:
    """Return a cell with the numbers of classes, in lists and objects, too, replaced by names; None for none."""
    if isinstance(cell, list):
        return [_named(each, names) for each in cell]
    if isinstance(cell, dict):
        return {key: value if key in PLACES else _named(value, names) for key, value in cell.items()}
    if not isinstance(cell, int):
        return cell
    return names[cell] if 0 <= cell < len(names) else None


def _json(storage: Storage, name: str) -> Table | None:
    if suffix(name) == "json":
        values = storage.json(name)
        if isinstance(values, dict) and values and all(isinstance(cell, str | int | list) for cell in values.values()):
            return Table(name, {"file_name": list(values), "label": list(values.values())})
    else:
        values = [json.loads(line) for line in storage.text(name).splitlines() if line.strip()]
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        return None
    columns = dict.fromkeys(
        key for row in values for key, cell in row.items() if key == OBJECTS or not isinstance(cell, dict)
    )
    return Table(name, {str(column): [row.get(column) for row in values] for column in columns})


def _text(storage: Storage, name: str, finder: Finder) -> Table | None:
    """Return a table of CSV, TSV or a list such as Caffe's, `cat/1.jpg 0`, whose first line may name the columns."""
    head = storage.files[name].read(1 << 16)
    first = head.decode("utf-8-sig", "replace").partition("\n")[0].strip()
    separator = max("\t,;| " if suffix(name) == "txt" else "\t,;|", key=first.count)
    cells = next(csv.reader([first], delimiter=separator), [])
    if len(cells) < 2 or b"\0" in head:
        return None
    no_names = any(finder.find(cell, name, "train") for cell in cells if "." in cell or "/" in cell)
    if suffix(name) == "txt" and not no_names and separator == " ":
        return None  # prose
    rows = [row for row in csv.reader(StringIO(storage.text(name)), delimiter=separator) if row]
    if not no_names:
        cells = rows.pop(0)
    elif len(cells) == 2:
        cells = ["file_name", "label"]
    else:
        cells = [str(number) for number in range(1, len(cells) + 1)]
    cells = [cell.strip() or f"column {place}" for place, cell in enumerate(cells, 1)]
    damage = ""
    for place, row in enumerate(rows):
        if len(row) != len(cells):
            line = place + 1 + (not no_names)
            damage = damage or f"{storage.where(name)}: line {line} has {len(row)} columns, expected {len(cells)}"
            row += [""] * len(cells)
    return Table(name, {cell: [row[place].strip() for row in rows] for place, cell in enumerate(cells)}, damage)
