"""The folder of a study is its own."""

import numpy as np
import pytest

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.results.study import StudyFolder, load_preset, make_plan


def test_a_folder_belongs_to_one_preset_and_one_data_set(tmp_path) -> None:
    folder, demo = StudyFolder(tmp_path / "study"), load_preset("demo")
    folder.claim(demo, "scenes")
    folder.claim(demo, "scenes")
    with pytest.raises(UserError, match="preset demo on scenes, here it is small on scenes"):
        folder.claim(load_preset("small"), "scenes")
    with pytest.raises(UserError, match="here it is demo on photographs"):
        folder.claim(demo, "photographs", look_only=True)
    with pytest.raises(UserError, match="preset demo with other settings"):
        folder.claim(demo.model_copy(update={"title": "other"}), "scenes")


def test_folders_that_hold_something_else_are_refused(tmp_path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(UserError, match="holds no study"):
        StudyFolder(tmp_path).claim(load_preset("demo"), "scenes")
    with pytest.raises(UserError, match="is no folder"):
        StudyFolder(tmp_path / "thesis.doc").claim(load_preset("demo"), "scenes")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_runs_that_were_trained_before_are_taken_over(tmp_path) -> None:
    (tmp_path / "runs" / "A-s36").mkdir(parents=True)
    StudyFolder(tmp_path).claim(load_preset("demo"), "scenes")
    assert (tmp_path / "study.toml").is_file()


def test_tests_of_other_weights_are_not_taken_for_the_runs_own(tmp_path) -> None:
    folder, run = StudyFolder(tmp_path), make_plan(load_preset("demo"))[0]
    assert folder.tested(run) == []
    net = vd.create("A", 3, width=1 / 32, image_size=32, fc_width=4, seed=1)
    vd.save(net, folder.run(run.name).weights)
    from verydeep.nets.weights import weights_hash

    digest = weights_hash(folder.run(run.name).weights)
    part = vd.Posteriors(
        ("a",), np.array([0]), np.full((1, 3), 1 / 3, np.float32), tuple("xyz"), {"weights_hash": digest}
    )
    part.write(folder.posteriors(run.name) / f"{run.protocols[0]}.parquet")
    assert folder.tested(run) == [run.protocols[0]]
    vd.save(vd.create("A", 3, width=1 / 32, image_size=32, fc_width=4, seed=2), folder.run(run.name).weights)
    with pytest.raises(UserError, match="posteriors of other weights"):
        folder.tested(run)


def test_time_spent_on_testing_adds_up(tmp_path) -> None:
    folder = StudyFolder(tmp_path)
    folder.add_testing_seconds("A", 1.5)
    folder.add_testing_seconds("B", 1.0)
    folder.add_testing_seconds("A", 2.0)
    assert folder.testing_seconds() == {"A": 3.5, "B": 1.0}
