"""The one type of table, and how it is shown: as text, Markdown, CSV, JSON and HTML."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from verydeep.basics.formatting import align, markup
from verydeep.evaluation.metrics import ErrorRate
from verydeep.results.published import SOURCE

Form = Literal["text", "markdown", "csv", "json", "html"]

NOTE = "Errors in per cent, in brackets their 95 % bootstrap interval over images."
PAPER_NOTE = f"paper: top-1/top-5 error of {SOURCE}."
TRANSFER_NOTE = "mean class recall, or mAP, in %; with several random splits their mean and standard deviation"
METHODS = {
    "center": "center crop",
    "dense": "dense",
    "crops": "multi-crop",
    "dense+crops": "multi-crop & dense",
    "ten-crops": "ten crops",
    "square-crops": "crops of squares",
}


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str  # of its cells in rows, CSV and JSON
    heading: str = ""  # what people see above it; empty where it is for CSV and JSON alone
    data: bool = True  # whether it is in CSV and JSON; not where others hold the same
    best: Literal["", "least", "greatest"] = ""  # of rates; CSV and JSON then have the ends of the interval, too


Row = Mapping[str, Any]
"""Cells by their column's key: words, a number, `ErrorRate` or `Mean`; None or no such key where it is empty."""


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, as far as results fill it."""

    number: str  # of the paper's table, or its section
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    data: str = ""  # which images; empty where columns are of different data sets, as those of transfers
    split: str = ""
    note: str = ""

    @property
    def heading(self) -> str:
        """What stands above it."""
        name = f"{'Section' if '.' in self.number else 'Table'} {self.number}: {self.title}"
        if not self.data:
            return name
        images = next((row["images"] for row in self.rows if row.get("images")), None)
        return f"{name} ({self.data}, {self.split}{f', {images:,} images' if images else ''})"

    @property
    def has_paper(self) -> bool:
        """Whether the paper's figures stand in it."""
        return any(row.get(key) for row in self.rows for key in ("paper", "paper_error"))

    @property
    def shown(self) -> list[Column]:
        """The columns that people see."""
        return [column for column in self.columns if column.heading]

    def grid(self) -> list[list[str]]:
        """Return the headings and the rows in words."""
        rows = [[_words(row.get(column.key)) for column in self.shown] for row in self.rows]
        return [[column.heading for column in self.shown], *rows]

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each row, or of transfers for each cell; rates in %, None where nothing was measured."""
        if not self.data:
            return [record for row in self.rows for record in self._cells(row)]
        about = {"table": self.number, "data": self.data, "split": self.split}
        return [{**about, **{k: v for c in self.columns if c.data for k, v in _values(c, row)}} for row in self.rows]

    def _cells(self, row: Row) -> Iterable[dict[str, Any]]:
        for column in self.shown[1:]:
            if cell := row.get(column.key):
                merit, std = round(100 * cell.value, 3), None if cell.std is None else round(100 * cell.std, 3)
                system = {"table": self.number, "system": row["system"], "paper": bool(row.get("paper"))}
                yield {**system, "data": column.heading, "merit": merit, "std": std}

    def values(self) -> list[dict[str, Any]]:
        """Return what stands for the table in JSON: one object with its rows, or of transfers one for each cell."""
        if not self.data:
            return self.records()
        about = {"table": self.number, "title": self.title, "data": self.data, "split": self.split, "note": self.note}
        rows = [{k: v for k, v in record.items() if k not in ("table", "data", "split")} for record in self.records()]
        return [{**about, "rows": rows}]


def _words(cell: Any) -> str:
    return "" if cell is None else f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _values(column: Column, row: Row) -> Iterable[tuple[str, Any]]:
    cell = row.get(column.key)
    if not column.best:
        return [(column.key, cell)]
    rate = cell if isinstance(cell, ErrorRate) else None
    values = (rate.rate, rate.low, rate.high) if rate else (None, None, None)
    keys = [f"{column.key}_{end}" for end in ("error", "low", "high")]
    return [(key, None if value is None else round(100 * value, 3)) for key, value in zip(keys, values, strict=True)]


def render(tables: Sequence[Table], form: Form = "text") -> str:
    """Return tables in one of the five forms: first those of errors, then those of transfers, each with their note."""
    if form == "json":
        return json.dumps([value for table in tables for value in table.values()], indent=2)
    kinds = [[table for table in tables if bool(table.data) == errors] for errors in (True, False)]
    show = {"text": _text, "markdown": _markdown, "csv": _csv, "html": _html}[form]
    return "\n\n".join(show(kind) for kind in kinds if kind)


def _note(tables: Sequence[Table]) -> str:
    papers = any(table.has_paper for table in tables)
    if tables[0].data:
        return f"{NOTE} {PAPER_NOTE}" if papers else NOTE
    return f"{TRANSFER_NOTE}; paper: {SOURCE}." if papers else f"{TRANSFER_NOTE}."


def _text(tables: Sequence[Table]) -> str:
    parts = ["\n".join(filter(None, [table.heading, align(table.grid(), ruled=True), table.note])) for table in tables]
    return "\n\n".join([*parts, _note(tables)])


def _markdown(tables: Sequence[Table]) -> str:
    parts = []
    for table in tables:
        head, *rows = table.grid()
        body = "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])
        parts.append("\n\n".join(filter(None, [f"**{table.heading}**", body, table.note])))
    return "\n\n".join([*parts, _note(tables)])


def _csv(tables: Sequence[Table]) -> str:
    records = [record for table in tables for record in table.records()]
    file = io.StringIO()
    columns = dict.fromkeys(key for record in records for key in record)
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().rstrip("\n")


def _html(tables: Sequence[Table]) -> str:
    return "\n".join([*map(_figure, tables), f"<p class='note'>{markup(_note(tables))}</p>"])


def _figure(table: Table) -> str:
    best = {}
    for column in (column for column in table.columns if column.best):
        rates = [cell.rate for row in table.rows if isinstance(cell := row.get(column.key), ErrorRate)]
        best[column.key] = (min if column.best == "least" else max)(rates, default=None)
    rows = [
        [_html_rate(cell, best[c.key]) if isinstance(cell := row.get(c.key), ErrorRate) else markup(_words(cell))
         for c in table.shown]
        for row in table.rows
    ]  # fmt: skip
    note = f"<p class='note'>{markup(table.note)}</p>" if table.note else ""
    # Tables of classes have columns of fixed width, so that they stand in line; the others are too wide for that.
    kind = "table" if table.data and any(column.key == "method" for column in table.columns) else "table found"
    classes = [column.heading.split()[0].lower() if table.data else "" for column in table.shown]
    body = html_table([column.heading for column in table.shown], rows, classes)
    return f"<figure class='{kind}'><figcaption>{markup(table.heading)}</figcaption>{body}{note}</figure>"


def _html_rate(rate: ErrorRate, best: float | None) -> str:
    value, interval = str(rate).split(" ", 1)
    value = f"<b>{value}</b>" if rate.rate == best else value
    return f"{value} <small>{markup(interval)}</small>"


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """Return a table as HTML of headings in words and of cells that are HTML already."""
    marks = [f" class='{name}'" if name else "" for name in classes] or [""] * len(head)
    top = "".join(f"<th scope='col'{m}>{markup(word)}</th>" for word, m in zip(head, marks, strict=True))
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
