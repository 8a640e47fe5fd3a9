"""Files of rows: CSV, TSV, lists, JSON, JSON lines, Parquet, as columns by name."""

import csv
import json
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.datasets.labels import Finder
from verydeep.datasets.storage import Storage
from verydeep.images.formats import suffix

SUFFIXES = frozenset({"csv", "tsv", "txt", "json", "jsonl", "ndjson", "parquet"})
OBJECTS = "objects"  # Hugging Face's column of boxes and categories
LOOKED_AT = 200  # rows by which columns are judged


@dataclass(frozen=True)
class Table:
    """Rows by column, every cell as it is written, or as its format has it."""

    file: str
    columns: dict[str, list[Any]]
    damage: str = ""

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
    import pyarrow
    import pyarrow.parquet

    data = BytesIO(storage.read_whole(name))
    for field in pyarrow.parquet.read_schema(data):
        if pyarrow.types.is_struct(field.type) and "bytes" in {inner.name for inner in field.type}:
            raise UserError(
                f"{storage.where(name)}: holds the pictures themselves (column {field.name}); write them out as files, "
                "one folder a class, or with a metadata.csv of file_name,label"
            )
    data.seek(0)
    table = pyarrow.parquet.read_table(data)
    kept = [field.name for field in table.schema if not pyarrow.types.is_struct(field.type)]
    return Table(name, {column: table[column].to_pylist() for column in kept})


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
