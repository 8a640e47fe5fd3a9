"""Tables 11 and 12 from the results of transfers, beside the paper's rows where the data is the same."""

import csv
import io
import json

import pytest

from verydeep.basics.errors import UserError
from verydeep.study import published
from verydeep.study.transfer_tables import read_transfer_tables, render_transfer


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
    eleven, twelve = read_transfer_tables(study)
    assert eleven.columns == ("Caltech-101, recall", "pets, mean class recall")
    own = {name: list(map(str, cells)) for name, papers, cells in eleven.rows if not papers}
    assert own == {"B, stacked": ["51.2 ± 0.5", "90.0"], "B, stacked, logistic": ["49.0 ± 1.0", "None"]}
    paper = {name: str(cells[0]) for name, papers, cells in eleven.rows if papers}
    assert paper["VGG D & E (paper)"] == "92.7 ± 0.5"
    assert "Wei et al. (paper)" not in paper  # it has no figure for Caltech-101
    assert [(name, str(cells[0])) for name, _, cells in twelve.rows] == [
        ("D & E", "70.0"),
        ("D & E, image + person box", "80.0"),
        *((f"{title} (paper)", f"{merit:.1f}") for title, merit in published.TABLE_12),
    ]


def test_other_data_stand_alone(tmp_path):
    write(tmp_path, "a", "caltech101", 12, [system("B", 0.5)])  # a part of Caltech-101 is not Caltech-101
    (table,) = read_transfer_tables(tmp_path)
    assert [papers for _, papers, _ in table.rows] == [False]
    assert "paper" not in render_transfer([table], "text")


def test_every_format(study):
    tables = read_transfer_tables(study)
    for form in ("text", "markdown", "html"):
        assert "51.2 ± 0.5" in render_transfer(tables, form)
        assert "arXiv:1409.1556v6" in render_transfer(tables, form)
    rows = list(csv.DictReader(io.StringIO(render_transfer(tables, "csv"))))
    assert rows[0] == {
        "table": "11",
        "system": "B, stacked",
        "paper": "False",
        "data": "Caltech-101, recall",
        "merit": "51.23",
        "std": "0.46",
    }
    assert json.loads(render_transfer(tables, "json"))[0]["merit"] == 51.23


def test_a_damaged_file_is_named_and_others_results_are_left_alone(study):
    (study / "mine").mkdir()
    (study / "mine" / "result.json").write_text("[1, 2]")
    assert len(read_transfer_tables(study)) == 2
    (study / "mine" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"mine/result\.json: damaged"):
        read_transfer_tables(study)


# Written down a second time, from the tables of arXiv:1409.1556v6: VOC-2007, VOC-2012, Caltech-101, Caltech-256.
TABLE_11 = """
- 79.0 86.5+-0.5 74.2+-0.3
82.4 83.2 88.4+-0.6 77.6+-0.1
82.4 - 93.4+-0.5 -
81.5 81.7 - -
85.2 90.3 - -
89.3 89.0 91.8+-1.0 85.0+-0.2
89.3 89.0 92.3+-0.5 85.1+-0.3
89.7 89.3 92.7+-0.5 86.2+-0.3
"""


def test_tables_11_and_12_equal_a_second_transcription():
    def word(value):
        if value is None:
            return "-"
        return f"{value[0]}+-{value[1]}" if isinstance(value, tuple) else str(value)

    found = [
        " ".join(map(word, (row.voc2007, row.voc2012, row.caltech101, row.caltech256))) for row in published.TABLE_11
    ]
    assert found == TABLE_11.split("\n")[1:-1]
    assert [merit for _, merit in published.TABLE_12] == [70.2, 73.6, 76.3, 79.2, 84.0]
