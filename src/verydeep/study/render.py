"""Tables as text, Markdown, CSV, JSON and HTML."""

import csv
import html
import io
import json
from collections.abc import Sequence
from typing import Any

from verydeep.evaluation.metrics import ErrorRate
from verydeep.study.box_tables import BoxRow, BoxTable
from verydeep.study.published import SOURCE
from verydeep.study.tables import Row, Table

AnyTable = Table | BoxTable

NOTE = "Errors in per cent, in brackets their 95 % bootstrap interval over images."
PAPER_NOTE = f"paper: top-1/top-5 error of {SOURCE}."
# Columns of the tables of boxes, and the attributes of the figures that they show.
BOX_FIGURES = {"top-5": "top5", "top-1": "top1", "error given class": "given_class", "mean IoU": "mean_iou"}
METHOD_NAMES = {"center": "center crop", "dense": "dense", "crops": "multi-crop", "dense+crops": "multi-crop & dense"}


def as_text(tables: Sequence[AnyTable]) -> str:
    """Return the tables in aligned columns."""
    return "\n\n".join([*(_text(table) for table in tables), _notes(tables)])


def as_markdown(tables: Sequence[AnyTable]) -> str:
    """Return the tables as GitHub's Markdown."""
    parts = []
    for table in tables:
        head, *rows = _grid(table)
        lines = [head, ["---"] * len(head), *rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append("\n\n".join(filter(None, [f"**{heading(table)}**", body, table.note])))
    return "\n\n".join([*parts, _notes(tables)])


def as_csv(tables: Sequence[AnyTable]) -> str:
    """Return one line for each cell, errors in %, empty where nothing was measured."""
    records = [record for table in tables for record in _records(table)]
    file = io.StringIO()
    columns = dict.fromkeys(key for record in records for key in record)
    writer = csv.DictWriter(file, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().rstrip("\n")


def as_json(tables: Sequence[AnyTable]) -> str:
    """Return the tables as JSON, errors in %, null where nothing was measured."""
    return json.dumps([table_values(table) for table in tables], indent=2)


def as_html(tables: Sequence[AnyTable]) -> str:
    """Return the tables as elements for a page."""
    return "\n".join([*(_html(table) for table in tables), f"<p class='note'>{html.escape(_notes(tables))}</p>"])


def table_values(table: AnyTable) -> dict[str, Any]:
    """Return a table as JSON-able values, errors in %."""
    return {
        "table": table.number,
        "title": table.title,
        "data": table.data,
        "split": table.split,
        "note": table.note,
        "rows": [
            {key: value for key, value in record.items() if key not in ("table", "data", "split")}
            for record in _records(table)
        ],
    }


def heading(table: AnyTable) -> str:
    """Return what stands above a table."""
    name = f"Section {table.number}" if "." in table.number else f"Table {table.number}"
    images = next((row.measured.images for row in table.rows if row.measured), None)
    counted = f", {images:,} images" if images else ""
    return f"{name}: {table.title} ({table.data}, {table.split}{counted})"


def _notes(tables: Sequence[AnyTable]) -> str:
    return f"{NOTE} {PAPER_NOTE}" if any(table.has_paper for table in tables) else NOTE


def _columns(table: AnyTable) -> dict[str, list[str]]:
    """Return the cells in words by heading; where all rows have the same, some columns are left out."""
    return _box_columns(table) if isinstance(table, BoxTable) else _class_columns(table)


def _box_columns(table: BoxTable) -> dict[str, list[str]]:
    words = {"network": "network", "S": "train", "Q": "test", "boxes": "boxes", "tuned": "layers", "windows": "windows"}
    columns = {head: [getattr(row, name) for row in table.rows] for head, name in words.items()}
    shown = BOX_FIGURES if table.number == "9" else dict(list(BOX_FIGURES.items())[2:])
    for head, name in shown.items():
        columns[head] = [str(getattr(row.measured, name)) if row.measured else "" for row in table.rows]
    columns["paper"] = ["" if row.paper is None else f"{row.paper:.1f}" for row in table.rows]
    if table.number == "8":
        del columns["windows"]
    return columns


def _class_columns(table: Table) -> dict[str, list[str]]:
    columns = {
        "network": [row.network for row in table.rows],
        "S": [row.train for row in table.rows],
        "Q": [row.test for row in table.rows],
        "method": [METHOD_NAMES[row.method] for row in table.rows],
        "top-1": [str(row.measured.top1) if row.measured else "" for row in table.rows],
        "top-5": [str(row.measured.top5 or "-") if row.measured else "" for row in table.rows],
        "paper": [f"{row.paper[0]:.1f}/{row.paper[1]:.1f}" if row.paper else "" for row in table.rows],
    }
    if len(set(columns["method"])) == 1:
        del columns["method"]
    return columns


def _grid(table: AnyTable) -> list[list[str]]:
    """Return the heading and the rows in words."""
    columns = _columns(table)
    if not table.has_paper:
        del columns["paper"]
    return [list(columns), *(list(line) for line in zip(*columns.values(), strict=True))]


def _text(table: AnyTable) -> str:
    grid = _grid(table)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    head, *rows = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in grid
    ]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join([heading(table), rule, head, rule, *rows, *([table.note] if table.note else [])])


def _records(table: AnyTable) -> list[dict[str, Any]]:
    return _box_records(table) if isinstance(table, BoxTable) else _class_records(table)


def _box_records(table: BoxTable) -> list[dict[str, Any]]:
    names = {"top5": "top5", "top1": "top1", "given_class": "given_class", "mean_iou": "mean_iou"}
    about = {"table": table.number, "data": table.data, "split": table.split}
    return [
        {
            **about,
            "network": row.network,
            "train_scales": row.train,
            "test_scales": row.test,
            "boxes": row.boxes,
            "tuned_layers": row.layers,
            "windows": row.windows,
            "images": row.measured.images if row.measured else None,
            **{k: v for n in names for k, v in _rate(n, getattr(row.measured, n) if row.measured else None).items()},
            "paper_error": row.paper,
        }
        for row in table.rows
    ]


def _class_records(table: Table) -> list[dict[str, Any]]:
    return [
        {
            "table": table.number,
            "data": table.data,
            "split": table.split,
            "network": row.network,
            "train_scales": row.train,
            "test_scales": row.test,
            "method": row.method,
            "images": row.measured.images if row.measured else None,
            **_rate("top1", row.measured.top1 if row.measured else None),
            **_rate("top5", row.measured.top5 if row.measured else None),
            "paper_top1_error": row.paper[0] if row.paper else None,
            "paper_top5_error": row.paper[1] if row.paper else None,
        }
        for row in table.rows
    ]


def _rate(name: str, rate: ErrorRate | None) -> dict[str, float | None]:
    keys = (f"{name}_error", f"{name}_low", f"{name}_high")
    values = (rate.rate, rate.low, rate.high) if rate else (None, None, None)
    return {key: None if value is None else round(100 * value, 3) for key, value in zip(keys, values, strict=True)}


def _html(table: AnyTable) -> str:
    head, *grid = _grid(table)
    best = _best(table)
    rows: Sequence[Row | BoxRow] = table.rows
    lines = []
    for row, words in zip(rows, grid, strict=True):
        cells = [f"<td>{html.escape(word)}</td>" for word in words]
        for column, name in _rates(table).items():
            if row.measured and column in head:
                cells[head.index(column)] = _html_rate(getattr(row.measured, name), best[name])
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f"<th scope='col' class='{word.split()[0].lower()}'>{html.escape(word)}</th>" for word in head)
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    note = f"<p class='note'>{html.escape(table.note)}</p>" if table.note else ""
    caption = f"<figcaption>{html.escape(heading(table))}</figcaption>"
    kind = "table found" if isinstance(table, BoxTable) else "table"
    return f"<figure class='{kind}'>{caption}<div class='scroll'>{body}</div>{note}</figure>"


def _rates(table: AnyTable) -> dict[str, str]:
    """Return the columns of rates, and the attribute that each shows."""
    return BOX_FIGURES if isinstance(table, BoxTable) else {"top-1": "top1", "top-5": "top5"}


def _best(table: AnyTable) -> dict[str, float | None]:
    """Return the best of each rate in the table: the least error, the greatest IoU."""
    found: dict[str, float | None] = {}
    rows: Sequence[Row | BoxRow] = table.rows
    for name in _rates(table).values():
        rates = [getattr(row.measured, name) for row in rows if row.measured]
        best = max if name == "mean_iou" else min
        found[name] = best((rate.rate for rate in rates if rate), default=None)
    return found


def _html_rate(rate: ErrorRate | None, best: float | None) -> str:
    """Return a cell; the least error of the table in bold, as in the paper."""
    if rate is None:
        return "<td>-</td>"
    value, interval = str(rate).split(" ", 1)
    value = f"<b>{value}</b>" if rate.rate == best else value
    return f"<td>{value} <small>{html.escape(interval)}</small></td>"


def render(tables: Sequence[AnyTable], form: str) -> str:
    """Return the tables as `text`, `markdown`, `csv`, `json` or `html`."""
    forms = {"text": as_text, "markdown": as_markdown, "csv": as_csv, "json": as_json, "html": as_html}
    return forms[form](tables)
