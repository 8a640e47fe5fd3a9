"""The same figures in every format."""

import csv
import io
import json
from html.parser import HTMLParser
from typing import get_args

import pytest

from verydeep.results.result import read_results
from verydeep.results.table import Form, render
from verydeep.results.tables import make_tables


@pytest.fixture
def tables(study):
    study.add("A", (256, 256), "dense@256", wrong=10, data="ilsvrc-2012")
    study.add("D", (72, 144), "dense@72,108,144", wrong=4)
    study.add("D", (72, 144), "crops@72,108,144", wrong=2)
    return make_tables(read_results(study.path))


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows = 0
        self.words = []

    def handle_starttag(self, tag, attrs):
        self.rows += tag == "tr"

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_has_every_figure_of_classes_boxes_and_transfers(tables, add_boxes, transfers, form) -> None:
    add_boxes("all", 8)
    every = [*tables, *make_tables(read_results(transfers))]
    text = render(every, form)
    figures = {"25.0": "10 of 40 wrong", "29.6": "the paper's A", "[72;144]": "S", "20.0": "8 of 40 boxes wrong"}
    figures |= {"33.1": "the paper's boxes", "best constant box": "a baseline", "Caltech-101, recall": "a data set"}
    people = form in ("text", "markdown", "html")
    figures |= {"51.2 ± 0.5" if people else "51.23": "a transfer", "92.7": "the paper's transfer"}
    assert [words for figure, words in figures.items() if figure not in text] == []
    assert ("arXiv:1409.1556v6" in text) == people


def test_csv_and_json_agree_and_mark_what_is_missing(tables) -> None:
    lines = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    rows = [row for table in json.loads(render(tables, "json")) for row in table["rows"]]
    assert len(lines) == len(rows) > 12
    for line, row in zip(lines, rows, strict=True):
        assert line["top1_error"] == ("" if row["top1_error"] is None else str(row["top1_error"]))
    measured = [row for row in rows if row["top1_error"] is not None]
    assert all(row["top1_low"] <= row["top1_error"] <= row["top1_high"] for row in measured)
    assert len(measured) < len(rows)


def test_columns_of_text_are_aligned(tables) -> None:
    notes = {table.note for table in tables}
    for block in render(tables, "text").split("\n\n")[:-1]:
        head, *rows = block.splitlines()[2:3] + block.splitlines()[4:]
        start = head.index("top-1")
        assert all(len(row) <= start or row[start - 1] == " " for row in rows if row not in notes)


def test_markdown_rows_have_as_many_cells_as_the_heading(tables) -> None:
    for block in render(tables, "markdown").split("\n\n"):
        counts = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(counts) <= 1


def test_html_is_well_formed_and_escapes(study) -> None:
    study.add("A", (72, 72), "dense@72", data="cats & <dogs>")
    tables = make_tables(read_results(study.path))
    cells = _Cells()
    cells.feed(render(tables, "html"))
    assert cells.rows == sum(len(table.rows) + 1 for table in tables)
    assert any("cats & <dogs>" in word for word in cells.words)
