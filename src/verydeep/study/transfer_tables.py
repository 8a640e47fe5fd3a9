"""The paper's Tables 11 and 12 from the results of transfers, the paper's rows beneath where the data is the same."""

import csv
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.study.published import SOURCE, TABLE_11, TABLE_12, Transferred
from verydeep.transfer.words import figure

# Protocol: the paper's data set, how many classes it has, how a column is headed.
PAPERS = {
    "voc2007": (20, "VOC-2007, mAP"),
    "voc2012": (20, "VOC-2012, mAP"),
    "caltech101": (102, "Caltech-101, recall"),
    "caltech256": (257, "Caltech-256, recall"),
    "voc2012-action": (10, "VOC-2012 action, mAP"),
}
STACKED = "image + person box"
NOTE = "mean class recall, or mAP, in %; with several random splits their mean and standard deviation"


@dataclass(frozen=True)
class Cell:
    """A figure in [0, 1] and its standard deviation over splits, of the paper or measured."""

    merit: float
    std: float | None

    def __str__(self) -> str:
        return figure(self.merit, self.std)


@dataclass(frozen=True)
class TransferTable:
    """One table.

    Attributes
    ----------
    number : str
        Of the paper's table.
    title : str
        What it compares.
    columns : tuple of str
        Data sets and measures.
    rows : tuple of (str, bool, tuple of Cell or None)
        Name, whether it is the paper's, and a cell for each column.
    """

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, bool, tuple[Cell | None, ...]], ...]


def read_transfer_tables(study: str | Path) -> list[TransferTable]:
    """Return Tables 11 and 12 from the `result.json` of transfers in a folder and below; none where there are none.

    Raises
    ------
    UserError
        A damaged file.
    """
    results = [result for path in sorted(Path(study).rglob("result.json")) if (result := _read(path))]
    actions = [result for result in results if result["identity"]["protocol"] == "voc2012-action"]
    others = [result for result in results if result not in actions]
    made = (
        ("11", "linear classifiers on descriptors, other data sets", others),
        ("12", "VOC-2012 action classification", actions),
    )
    return [_table(number, title, found) for number, title, found in made if found]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        result = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise UserError(f"{path}: damaged, not JSON; remove it or do that transfer again") from None
    return result if isinstance(result, dict) and "systems" in result and "identity" in result else None


def _table(number: str, title: str, results: Sequence[dict[str, Any]]) -> TransferTable:
    columns = list(dict.fromkeys(_column(result) for result in results))
    cells: dict[str, dict[str, Cell]] = {}
    for result in results:
        systems = [(system["name"], system["merit"], system["std"]) for system in result["systems"]]
        if found := result.get("compared"):
            systems.append((f"{found['recipe'] or 'trained'} network, {found['protocol']}", found["merit"], None))
        for name, merit, std in systems:
            cells.setdefault(_unlike(name, result), {})[_column(result)] = Cell(merit, std)
    rows = [(name, False, tuple(own.get(column) for column in columns)) for name, own in cells.items()]
    return TransferTable(number, title, tuple(columns), (*rows, *_papers(number, columns)))


def _unlike(name: str, result: dict[str, Any]) -> str:
    """Return a system's name with what sets it apart from the paper's way."""
    identity = result["identity"]
    words = [identity["classifier"]] if identity["classifier"] != "svm" else []
    words += [] if identity["normalize"] == "l2" else [identity["normalize"]]
    words += [] if identity["flip"] else ["no flip"]
    return ", ".join([name, *words])


def _column(result: dict[str, Any]) -> str:
    identity = result["identity"]
    classes, words = PAPERS.get(identity["protocol"], (0, ""))
    return words if len(identity["classes"]) == classes else f"{identity['data']}, {result['measure']}"


def _papers(number: str, columns: Sequence[str]) -> list[tuple[str, bool, tuple[Cell | None, ...]]]:
    """Return the paper's rows that have a figure in one of the columns."""
    heads = {words: protocol for protocol, (_, words) in PAPERS.items()}
    if number == "12":
        known = PAPERS["voc2012-action"][1] in columns
        return [(f"{title} (paper)", True, (Cell(merit / 100, None),)) for title, merit in TABLE_12 if known]
    rows = [
        (f"{row.title} (paper)", True, tuple(_papers_cell(row, heads.get(c, "")) for c in columns)) for row in TABLE_11
    ]
    return [row for row in rows if any(row[2])]


def _papers_cell(row: Transferred, protocol: str) -> Cell | None:
    value = getattr(row, protocol, None)
    if value is None:
        return None
    merit, std = value if isinstance(value, tuple) else (value, None)
    return Cell(merit / 100, None if std is None else std / 100)


def render_transfer(tables: Sequence[TransferTable], form: str) -> str:
    """Return the tables as `text`, `markdown`, `csv`, `json` or `html`."""
    if form == "json":
        return json.dumps([record for table in tables for record in _records(table)], indent=2)
    if form == "csv":
        file = io.StringIO()
        records = [record for table in tables for record in _records(table)]
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return file.getvalue().rstrip("\n")
    make = {"text": _text, "markdown": _markdown, "html": _html}[form]
    note = f"{NOTE}; paper: {SOURCE}." if any(row[1] for table in tables for row in table.rows) else f"{NOTE}."
    return "\n\n".join(
        [*(make(table) for table in tables), f"<p class='note'>{html.escape(note)}</p>" if form == "html" else note]
    )


def _records(table: TransferTable) -> list[dict[str, Any]]:
    """Return one record for each cell, in %."""
    return [
        {
            "table": table.number,
            "system": name,
            "paper": papers,
            "data": column,
            "merit": round(100 * cell.merit, 3),
            "std": None if cell.std is None else round(100 * cell.std, 3),
        }
        for name, papers, cells in table.rows
        for column, cell in zip(table.columns, cells, strict=True)
        if cell
    ]


def _grid(table: TransferTable) -> list[list[str]]:
    return [
        ["system", *table.columns],
        *([name, *("" if cell is None else str(cell) for cell in cells)] for name, _, cells in table.rows),
    ]


def _text(table: TransferTable) -> str:
    grid = _grid(table)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    head, *rows = ["  ".join(w.ljust(width) for w, width in zip(line, widths, strict=True)).rstrip() for line in grid]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join([f"Table {table.number}: {table.title}", rule, head, rule, *rows])


def _markdown(table: TransferTable) -> str:
    head, *rows = _grid(table)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"**Table {table.number}: {table.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _html(table: TransferTable) -> str:
    head, *rows = [[html.escape(word) for word in line] for line in _grid(table)]
    top = "".join(f"<th scope='col'>{word}</th>" for word in head)
    body = "".join("<tr>" + "".join(f"<td>{word}</td>" for word in line) + "</tr>" for line in rows)
    caption = html.escape(f"Table {table.number}: {table.title}")
    return (
        f"<figure class='table'><figcaption>{caption}</figcaption><div class='scroll'><table>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )
