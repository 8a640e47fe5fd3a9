"""Tables from files whose errors are known: placed by metadata alone, the paper's figures beside them."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verydeep.basics.errors import UserError
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.metrics import top_k_error
from verydeep.evaluation.posteriors import Posteriors
from verydeep.results import published
from verydeep.results.comparisons import make_comparisons
from verydeep.results.result import read_results
from verydeep.results.table import render
from verydeep.results.tables import make_tables

PAPER = {"data": "ilsvrc-2012", "split": "val", "small": 256, "large": 384, "jitter": (256, 512), "step": 32}


def _tables(study):
    return {table.number: table for table in make_tables(read_results(study.path))}


def _key(row):
    return row["network"], row["train_scales"], row["test_scales"], row["method"]


def _paper(row):
    return row["paper_top1_error"], row["paper_top5_error"]


def test_a_figure_stands_where_its_metadata_say_whatever_the_files_are_called(study) -> None:
    moved = study.add("D", (72, 144), "dense@108", wrong=10).rename(study.path / "anything.parquet")
    study.add("A", (72, 72), "dense@72", wrong=20)
    assert moved.is_file()
    rows = {_key(row): row["top1"] for row in _tables(study)["3"].rows}
    assert rows["D", "[72;144]", "108", "dense"].rate == pytest.approx(10 / 40)
    assert rows["A", "72", "72", "dense"].rate == pytest.approx(20 / 40)


def test_a_transfer_s_classifier_is_no_network_of_the_paper_s_tables(study) -> None:
    study.add("A", (72, 72), "dense@72", wrong=20)
    study.add("D", (72, 72), "dense@72", wrong=1, recipe="transfer")
    assert [row["network"] for row in _tables(study)["3"].rows if row["top1"]] == ["A"]


def test_on_the_papers_data_every_row_of_the_paper_has_its_figure(full_study) -> None:
    tables = _tables(full_study(**PAPER))
    for number in ("3", "4", "5", "6"):
        metrics = [_paper(row) for row in tables[number].rows if row["paper"]]
        assert metrics == [(row.metrics["top1"], row.metrics["top5"]) for row in published.TABLES[number]]
    assert all(row["top1"] for number, table in tables.items() if number != "7" for row in table.rows)


def test_systems_stand_beside_each_other(full_study) -> None:
    study = full_study(**PAPER)
    for name, protocol in (("alexnet", "ten-crops@256"), ("googlenet", "center@256")):
        study.add(name, (256, 256), protocol, 9, data="ilsvrc-2012", split="val")
    study.add("googlenet", (256, 256), "square-crops@256,288,320,352", 7, data="ilsvrc-2012", split="val")
    table = _tables(study)["7"]
    rows = {(row["network"], row["train_scales"]): row for row in table.rows}
    measured = [row for row in table.rows if row["top1"]]
    assert [row["network"] for row in measured[-6:-3]] == [
        "googlenet", "D (FC only)", "submission: 7 networks of C, D, E"
    ]  # fmt: skip
    assert rows["alexnet", "256"]["paper"] == "40.7/18.2"
    assert (rows["googlenet", "256"]["method"], rows["googlenet", "256"]["paper"]) == ("square-crops", "-/7.9")
    assert rows["E", "[256;512]"]["paper"] == "24.4/7.1"
    assert [row["paper"] for row in measured if row["network"] == "D + E"] == ["24.0/7.1", "23.9/7.2", "23.7/6.8"]
    others = [row["network"] for row in table.rows if not row["top1"]]
    assert others == [row.name for row in published.TABLES["7"] if row.name.split(",")[0] in {
        "MSRA", "Clarifai", "Zeiler & Fergus", "OverFeat"
    } or row.name in ("GoogLeNet, 7 nets", "Krizhevsky et al., 5 nets")]  # fmt: skip


def test_without_other_systems_there_is_nothing_to_stand_beside(full_study) -> None:
    assert "7" not in _tables(full_study())


def test_on_other_data_no_figure_of_the_paper_appears(full_study) -> None:
    tables = _tables(full_study())
    assert [row for table in tables.values() for row in table.rows if row["paper"]] == []
    assert len(tables["3"].rows) == len(published.TABLES["3"]) + 1  # and the network tuned in its FC layers alone


def test_a_missing_run_leaves_an_empty_cell(full_study) -> None:
    study = full_study()
    (study.path / "posteriors" / "E-s108" / "dense@108.parquet").unlink()
    rows = {_key(row): row["top1"] for row in _tables(study)["3"].rows}
    assert [key for key, measured in rows.items() if measured is None] == [("E", "108", "108", "dense")]


def test_on_the_papers_data_all_rows_are_there_from_the_first_file_on(study) -> None:
    study.add("D", (256, 256), "dense@256", wrong=4, data="ilsvrc-2012")
    rows = _tables(study)["3"].rows
    assert len(rows) == len(published.TABLES["3"])
    assert [row["network"] for row in rows if row["top1"]] == ["D"]


def test_dense_and_crops_are_averaged_where_no_file_has_both(study) -> None:
    names = ("dense@72,108,144", "crops@72,108,144")
    paths = [study.add("D", (72, 144), name) for name in names]
    expected = top_k_error(fuse([Posteriors.read(path) for path in paths]), 1)
    rows = {row["method"]: row["top1"].rate for row in _tables(study)["5"].rows}
    assert rows["dense+crops"] == expected


def test_fusion_is_the_mean_of_the_members_posteriors(full_study) -> None:
    study = full_study()
    paths = [study.path / "posteriors" / run / "dense@72,108,144.parquet" for run in ("D-s72-144", "E-s72-144")]
    expected = top_k_error(fuse([Posteriors.read(path) for path in paths]), 1)
    rows = {(row["network"], row["method"]): row["top1"].rate for row in _tables(study)["6"].rows}
    assert rows["D + E", "dense"] == expected
    assert any(name.startswith("submission: 7 networks") for name, _ in rows)


def test_without_d_and_e_the_two_best_of_different_depth_are_fused(study) -> None:
    for name, wrong in (("A", 30), ("B", 5), ("D", 9)):
        study.add(name, (72, 144), "dense@72,108,144", wrong=wrong)
    assert [row["network"] for row in _tables(study)["6"].rows] == ["B + D"]


def test_tests_that_only_served_for_a_mean_are_no_rows_of_table_3(study) -> None:
    for protocol in ("dense@64", "dense@72", "dense@80", "dense@64,72,80"):
        study.add("B", (72, 72), protocol)
    assert [row["test_scales"] for row in _tables(study)["3"].rows] == ["72"]


def test_what_is_not_the_papers_is_named(study) -> None:
    study.add("D", (72, 144), "dense@108", trained_layers="fc", run="fc")
    study.add("D", (72, 144), "dense@108", batch_norm=True, run="modern")
    study.add("A", (72, 72), "dense@72", run="one")
    study.add("A", (72, 72), "dense@72", run="two")
    names = [row["network"] for row in _tables(study)["3"].rows if row["top1"]]
    assert sorted(names) == ["A (one)", "A (two)", "D (FC only)", "D (batch norm)"]


def test_batch_norm_that_all_networks_share_is_said_once(study) -> None:
    study.add("A", (72, 72), "dense@72", batch_norm=True)
    table = _tables(study)["3"]
    assert table.rows[0]["network"] == "A"
    assert "batch norm" in table.note


def test_fusions_options_and_unlabeled_images_stay_out(study) -> None:
    kept = study.add("A", (72, 72), "dense@72", wrong=3)
    study.add("B", (72, 72), "dense@72", options={"softmax": "location", "pool": "mean"})
    fuse([Posteriors.read(kept)] * 2).write(study.path / "fused.parquet")
    assert [row["network"] for row in _tables(study)["3"].rows if row["top1"]] == ["A"]


def test_each_data_set_has_its_own_tables(study) -> None:
    study.add("A", (72, 72), "dense@72", wrong=3)
    study.add("A", (72, 72), "dense@72", wrong=8, run="other", data="others")
    found = [(table.data, table.rows[0]["top1"].rate) for table in make_tables(read_results(study.path))]
    assert found == [("others", 8 / 40), ("pictures", 3 / 40)]


def test_the_shallow_variant_is_compared_on_center_crops(study) -> None:
    study.add("B", (72, 72), "center@72", wrong=3)
    study.add("B-5x5", (72, 72), "center@72", wrong=9)
    assert [row["top1"].rate for row in _tables(study)["4.1"].rows] == [3 / 40, 9 / 40]


def test_a_folder_without_posteriors_and_a_damaged_file_are_named_in_one_line(study, tmp_path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_results(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no posteriors"):
        read_results(tmp_path / "empty")
    path = study.add("A", (72, 72), "dense@72")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"dense@72\.parquet") as caught:
        make_tables(read_results(study.path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"run": 5}, "provenance is 5, expected a table"),
        ({"run": {"train_scales": [72]}}, "expected two whole numbers"),
        ({"protocol": "dance@72"}, "dance@72"),
        ({"protocol": None}, "says of itself is damaged"),
        ({"options": "none"}, "says of itself is damaged"),
        ({"fused": [3]}, "says of itself is damaged"),
    ],
)
def test_a_file_that_says_wrong_things_of_itself_is_named(study, about, message) -> None:
    path = study.add("A", (72, 72), "dense@72")
    whole = Posteriors.read(path)
    replace(whole, metadata={**whole.metadata, **about}).write(path)
    with pytest.raises(UserError, match=rf"dense@72\.parquet: .*{message}") as caught:
        read_results(study.path)
    assert "\n" not in str(caught.value)


def test_comparisons_claim_a_difference_only_beyond_chance(study) -> None:
    for name, wrong in (("A", 30), ("B", 10), ("D", 9)):
        study.add(name, (72, 72), "dense@72", wrong=wrong)
    found = {made.systems: made for made in make_comparisons(read_results(study.path))}
    depth = found["A/72/72", "B/72/72"]
    assert (depth.claim, depth.verdict, depth.paper) == ("depth", "better", (29.6, 28.7))
    assert depth.p_value == pytest.approx(2 * 0.5**20)  # twenty images, all wrong in the first alone
    assert found["B/72/72", "D/72/72"].verdict == "no clear difference"


def test_comparisons_of_a_whole_study_follow_the_paper(full_study) -> None:
    comparisons = make_comparisons(read_results(full_study(**PAPER).path))
    papers = {made.systems: made.paper for made in comparisons}
    assert papers["D/256/256", "E/256/256"] == (27.0, 27.3)
    assert papers["E/384/384", "E/[256;512]/384"] == (26.9, 25.5)
    fusion = next(made for made in comparisons if made.claim == "fusion")
    assert fusion.paper == (24.8, 24.0)


def test_a_network_tested_twice_by_one_protocol_is_refused(study) -> None:
    path = study.add("A", (72, 72), "dense@72", wrong=3)
    other = study.path / "elsewhere" / "dense@72.parquet"
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="one network, tested twice by dense@72"):
        make_tables(read_results(study.path))


def test_other_pool_rounding_than_the_networks_belongs_in_no_table(study) -> None:
    study.add("A", (72, 72), "dense@72", wrong=3)
    study.add("A", (72, 72), "dense@80", options={"softmax": "image", "pool": "mean", "pool_rounding": "down"})
    (table,) = make_tables(read_results(study.path))
    assert [row["test_scales"] for row in table.rows] == ["72"]


def test_networks_of_the_same_kind_stand_in_the_order_of_their_files(study) -> None:
    runs = [f"run-{i}" for i in range(9)]
    for run in runs:
        study.add("A", (72, 72), "dense@72", run=run)
    assert [row["network"] for row in _tables(study)["3"].rows] == [f"A ({run})" for run in runs]


def test_systems_tested_on_different_images_are_not_compared(study) -> None:
    study.add("A", (72, 72), "dense@72")
    path = study.add("B", (72, 72), "dense@72")
    whole = Posteriors.read(path)
    whole.rows(whole.ids[1:]).write(path)
    with pytest.raises(UserError, match="differ in images"):
        make_comparisons(read_results(study.path))


def test_descriptors_beside_posteriors_change_no_table(study) -> None:
    study.add("A", (72, 72), "dense@72", wrong=3)
    before = render(make_tables(read_results(study.path)))
    about = {
        "kind": "features",
        "configuration": ["A"],
        "train_scales": [[72, 72]],
        "classes": ["a"],
        "data": "pictures",
    }
    table = pa.table({"id": ["a"]}).replace_schema_metadata({b"verydeep": json.dumps(about).encode()})
    pq.write_table(table, study.path / "features.parquet")
    assert render(make_tables(read_results(study.path))) == before
