"""Tables 11 and 12 from the results of transfers, beside the paper's rows where the data is the same."""

import csv
import io
import json

import pytest

from verydeep.basics.errors import UserError
from verydeep.results import published
from verydeep.results.result import read_results
from verydeep.results.table import render
from verydeep.results.tables import make_tables


def write(folder, name, protocol, classes, systems, **others):
    identity = {"protocol": protocol, "data": "pets", "classes": list(map(str, range(classes)))}
    identity |= {"classifier": "svm", "normalize": "l2", "flip": True, **others}
    result = {"identity": identity, "measure": "mean class recall", "compared": None, "systems": systems}
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(result))


def system(name, merit, std=None):
    return {"name": name, "merit": merit, "std": std}


@pytest.fixture
def study(tmp_path):
    write(tmp_path, "a", "caltech101", 102, [system("B, stacked", 0.5123, 0.0046)])
    write(tmp_path, "b", "caltech101", 102, [system("B, stacked", 0.49, 0.01)], classifier="logistic")
    write(tmp_path, "c", "folder", 7, [system("B, stacked", 0.9)])
    write(tmp_path, "d", "voc2012-action", 10, [system("D & E", 0.7), system("D & E, image + person box", 0.8)])
    return tmp_path


def test_a_row_a_system_and_a_column_a_data_set(study):
    eleven, twelve = make_tables(read_results(study))
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
    write(tmp_path, "a", "caltech101", 12, [system("B", 0.5)])  # a part of Caltech-101 is not Caltech-101
    (table,) = make_tables(read_results(tmp_path))
    assert [row["system"] for row in table.rows] == ["B"]
    assert "paper" not in render([table], "text")


def test_every_format(study):
    tables = make_tables(read_results(study))
    for form in ("text", "markdown", "html"):
        assert "51.2 ± 0.5" in render(tables, form)
        assert "arXiv:1409.1556v6" in render(tables, form)
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


def test_a_damaged_file_is_named_and_others_results_are_left_alone(study):
    (study / "mine").mkdir()
    (study / "mine" / "result.json").write_text("[1, 2]")
    assert len(make_tables(read_results(study))) == 2
    (study / "mine" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"mine/result\.json: damaged"):
        make_tables(read_results(study))
