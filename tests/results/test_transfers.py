"""Tables 11 and 12 from the results of transfers, beside the paper's rows where the data is the same."""

import csv
import io
import json

import pytest

from tests.results.conftest import system, write_transfer
from verydeep.basics.errors import UserError
from verydeep.results import published
from verydeep.results.result import read_results
from verydeep.results.table import render
from verydeep.results.tables import make_tables


def test_a_row_a_system_and_a_column_a_data_set(transfers):
    eleven, twelve = make_tables(read_results(transfers))
    caltech, pets = "Caltech-101, recall", "pets, mean class recall"
    assert [column.heading for column in eleven.shown] == ["system", caltech, pets]
    own = {row["system"]: (str(row[caltech]), str(row.get(pets))) for row in eleven.rows if "paper" not in row}
    assert own == {"B, stacked": ("51.2 ± 0.5", "90.0"), "B, stacked, logistic": ("49.0 ± 1.0", "None")}
    paper = {row["system"]: str(row[caltech]) for row in eleven.rows if "paper" in row}
    assert paper["VGG D & E (paper)"] == "92.7 ± 0.5"
    assert "Wei et al. (paper)" not in paper  # it has no figure for Caltech-101
    assert twelve.grid()[1:] == [
        ["D & E", "70.0"],
        ["D & E, image + person box", "80.0"],
        *([f"{row.name} (paper)", f"{row.metrics['voc2012-action']:.1f}"] for row in published.TABLES["12"]),
    ]


def test_other_data_stand_alone(tmp_path):
    write_transfer(tmp_path, "a", "caltech101", 12, [system("B", 0.5)])  # a part of Caltech-101 is not Caltech-101
    (table,) = make_tables(read_results(tmp_path))
    assert [row["system"] for row in table.rows] == ["B"]
    assert "paper" not in render([table], "text")


def test_csv_and_json_have_a_record_for_each_cell(transfers):
    tables = make_tables(read_results(transfers))
    rows = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    assert rows[0] == {
        "table": "11",
        "system": "B, stacked",
        "paper": "False",
        "data": "Caltech-101, recall",
        "merit": "51.23",
        "std": "0.46",
    }
    assert json.loads(render(tables, "json"))[0]["merit"] == 51.23


def test_a_damaged_file_is_named_and_others_results_are_left_alone(transfers):
    (transfers / "mine").mkdir()
    (transfers / "mine" / "result.json").write_text("[1, 2]")
    assert len(make_tables(read_results(transfers))) == 2
    (transfers / "mine" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"mine/result\.json: damaged"):
        make_tables(read_results(transfers))
