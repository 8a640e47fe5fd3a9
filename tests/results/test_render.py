"""The same figures in every format."""

import csv
import io
import json
from html.parser import HTMLParser

import pytest

from verydeep.study.render import as_csv, as_html, as_json, as_markdown, as_text
from verydeep.study.tables import read_tables


@pytest.fixture
def tables(study):
    study.add("A", (256, 256), "dense@256", wrong=10, data="ilsvrc-2012")
    study.add("D", (72, 144), "dense@72,108,144", wrong=4)
    study.add("D", (72, 144), "crops@72,108,144", wrong=2)
    return read_tables(study.path)


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows = 0
        self.words = []

    def handle_starttag(self, tag, attrs):
        self.rows += tag == "tr"

    def handle_data(self, data):
        self.words.append(data)


def test_every_format_has_every_figure(tables) -> None:
    for text in (as_text(tables), as_markdown(tables), as_csv(tables), as_json(tables), as_html(tables)):
        assert "25.0" in text  # 10 of 40 wrong
        assert "29.6" in text  # the paper's A
        assert "[72;144]" in text


def test_csv_and_json_agree_and_mark_what_is_missing(tables) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(tables))))
    rows = [row for table in json.loads(as_json(tables)) for row in table["rows"]]
    assert len(lines) == len(rows) > 12
    for line, row in zip(lines, rows, strict=True):
        assert line["top1_error"] == ("" if row["top1_error"] is None else str(row["top1_error"]))
    measured = [row for row in rows if row["top1_error"] is not None]
    assert all(row["top1_low"] <= row["top1_error"] <= row["top1_high"] for row in measured)
    assert len(measured) < len(rows)


def test_columns_of_text_are_aligned(tables) -> None:
    for block in as_text(tables).split("\n\n")[:-1]:
        head, *rows = block.splitlines()[2:3] + block.splitlines()[4:]
        start = head.index("top-1")
        assert all(len(row) <= start or row[start - 1] == " " for row in rows)


def test_markdown_rows_have_as_many_cells_as_the_heading(tables) -> None:
    for block in as_markdown(tables).split("\n\n"):
        counts = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(counts) <= 1


def test_html_is_well_formed_and_escapes(study) -> None:
    study.add("A", (72, 72), "dense@72", data="cats & <dogs>")
    tables = read_tables(study.path)
    cells = _Cells()
    cells.feed(as_html(tables))
    assert cells.rows == sum(len(table.rows) + 1 for table in tables)
    assert any("cats & <dogs>" in word for word in cells.words)
