"""Tables 8 and 9 from files of boxes of known errors: rows, baselines, the paper's figures beside them."""

from dataclasses import replace

import numpy as np
import pytest

from tests.results.conftest import MERGING
from verydeep.basics.errors import UserError
from verydeep.localization.detections import Detections, held_out
from verydeep.results.illustrations import draw_box_examples
from verydeep.results.result import read_results
from verydeep.results.tables import make_tables


def _rows(tables, number):
    (table,) = [table for table in tables if table.number == number]
    return table.rows


def test_table_8_has_the_papers_order_figures_and_baselines(add_boxes, tmp_path):
    add_boxes("all", 8)
    add_boxes("scr", 20, regression="scr", layers="fc")
    add_boxes("pcr", 12, layers="fc")
    add_boxes("dense", 4, protocol="dense@384")
    rows = _rows(make_tables(read_results(tmp_path / "study")), "8")
    found = [(row["boxes"], row["tuned_layers"], row["given_class"].rate, row["paper_error"]) for row in rows[:3]]
    assert found == [
        ("SCR", "FC only", 0.5, 36.4),
        ("PCR", "FC only", 0.3, 34.3),
        ("PCR", "all layers", 0.2, 33.1),
    ]
    assert [row["network"] for row in rows[3:]] == ["whole image", "best constant box"]
    assert [row["given_class"].rate for row in rows[3:]] == [1.0, 0.0]


def test_table_9_counts_guesses_and_leaves_the_held_out_images_out_of_all_rows(add_boxes, tmp_path):
    add_boxes("a", 10, protocol="dense@256", scales=(256, 256))
    file = add_boxes("b", 10, protocol="dense@384", merging={**MERGING, "held_out": 0.25})
    rows = _rows(make_tables(read_results(tmp_path / "study")), "9")
    rest = [i for i in range(40) if i not in held_out(Detections.read(file).ids, 0.25)]
    expected = np.mean(np.array(rest) < 10)
    for row in (row for row in rows if row.get("top1") and row["network"] == "D"):
        assert row["images"] == 30
        assert row["top1"].rate == row["top5"].rate == expected
    assert {row["test_scales"]: row["paper_error"] for row in rows if row["network"] == "D"} == {
        "256": 29.5,
        "384": 28.2,
        "352,384": 27.5,
        "256 + 352,384": 26.9,
    }
    missing = [row for row in rows if "top1" not in row]
    assert {row["paper_error"] for row in missing} == {27.5, 26.9}


def test_a_union_of_networks_is_a_row(add_boxes, tmp_path):
    one, two = add_boxes("a", 4, "dense@256", scales=(256, 256)), add_boxes("b", 4, "dense@352,384")
    parts = [Detections.read(path) for path in (one, two)]
    members = [part.metadata for part in parts]
    shared = {"data": "ilsvrc-2012", "split": "val", "fused": members, "merging": MERGING}
    replace(parts[0], metadata=shared).write(tmp_path / "study" / "boxes" / "union.parquet")
    row = next(row for row in _rows(make_tables(read_results(tmp_path / "study")), "9") if "+" in row["test_scales"])
    assert (row["train_scales"], row["test_scales"], row["paper_error"]) == ("256 + 384", "256 + 352,384", 26.9)


def test_other_data_have_no_figures_of_the_paper_and_unmerged_boxes_no_row(add_boxes, tmp_path):
    add_boxes("a", 4, data="scenes")
    add_boxes("b", 4, "dense@96", data="scenes", merging=None)
    (eight, nine) = make_tables(read_results(tmp_path / "study"))
    assert not eight.has_paper
    assert [row["windows"] for row in nine.rows if row["network"] == "D"] == ["one"]


def test_examples_are_hits_or_misses(add_boxes, tmp_path):
    add_boxes("bad", 30)
    add_boxes("good", 10)
    results = read_results(tmp_path / "study")
    detections = next(result.detections for result in results if result.path.parent.name == "good")
    assert [result.metrics["given_class"].rate for result in results] == [30 / 40, 10 / 40]

    class Pictures:
        samples = [type("Sample", (), {"id": f"{i}.png"})() for i in range(40)]  # noqa: RUF012

        def image(self, index):
            return np.full((100, 80, 3), index, np.uint8)

    for hit in (True, False):
        drawn = draw_box_examples(detections, Pictures(), hit, 10)
        assert len(drawn) == 10
        assert all((example.score >= 0.5) == hit for example in drawn)
        assert all(example.picture.startswith("data:image/jpeg;base64,") for example in drawn)
        assert drawn == draw_box_examples(detections, Pictures(), hit, 10)


def test_damaged_tests_of_classes_are_named_though_there_are_boxes(add_boxes, study):
    add_boxes("a", 4)
    one = study.add("A", (72, 72), "dense@72")
    two = study.path / "again.parquet"
    two.write_bytes(one.read_bytes())
    with pytest.raises(UserError, match="one network, tested twice"):
        make_tables(read_results(study.path))
