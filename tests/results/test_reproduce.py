"""A whole study on a handful of embedded pictures: nothing is done twice, whatever is missing is done."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.main import app
from verydeep.datasets import scenes
from verydeep.localization.detections import Detections
from verydeep.results import reproduce as module
from verydeep.results.plan import plan_study
from verydeep.results.reproduce import reproduce
from verydeep.results.study import StudyFolder, load_preset, make_plan

RECIPE = """
[network]
width = 0.03
image_size = 32
fc_width = 8
dropout = 0.0
[images]
scales = {scales}
[initialization]
scheme = "he"
[optimizer]
batch_size = 8
learning_rate = 0.001
[schedule]
kind = "cosine"
epochs = 1
"""

PRESET = """
title = "A study of seconds"
data = {{ name = "scenes", classes = 10, training_images = 20, test_images = 12, height = 128, width = 128 }}
[stages.small]
recipe = "{folder}/small.toml"
single = 36
multi = [32, 36]
[stages.jitter]
recipe = "{folder}/jitter.toml"
single = 40
multi = [36, 44]
[[networks]]
name = "A"
stages = ["small"]
[[networks]]
name = "B"
stages = ["small", "jitter"]
crops = ["jitter"]
"""


BOXES = """
[[localizers]]
network = "A"
stage = "small"
recipe = "{folder}/small.toml"
regression = "scr"
tune = "fc"
protocols = ["center@40"]
[[localizers]]
network = "B"
stage = "jitter"
recipe = "{folder}/jitter.toml"
regression = "pcr"
tune = "all"
protocols = ["center@40", "dense@64", "dense@64,72"]
"""


@pytest.fixture
def preset(tmp_path, monkeypatch):
    """A preset of three small runs, on so few pictures that it takes seconds."""
    for split, count in {"train": 20, "val": 10, "test": 12}.items():
        monkeypatch.setitem(scenes.COUNTS, split, count)
    (tmp_path / "small.toml").write_text(RECIPE.format(scales="[36, 36]"))
    (tmp_path / "jitter.toml").write_text(RECIPE.format(scales="[36, 48]"))
    (tmp_path / "tiny.toml").write_text(PRESET.format(folder=tmp_path))
    return str(tmp_path / "tiny.toml")


def _state(folder):
    return {
        path.relative_to(folder): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.suffix in (".parquet", ".safetensors") or path.name == "log.jsonl"
    }


def test_a_study_is_done_whole_and_only_once(preset, tmp_path) -> None:
    out = tmp_path / "study"
    report = reproduce(preset, "scenes", out, device="cpu", quiet=True).report
    folder, runs = StudyFolder(out), make_plan(load_preset(preset))
    assert [run.name for run in runs] == ["A-s36", "B-s36", "B-s36-48"]
    for run in runs:
        assert folder.run(run.name).card.is_file()
        assert set(folder.tested(run)) >= set(run.protocols)
        for protocol in run.protocols:
            posteriors = vd.Posteriors.read(folder.posteriors(run.name) / f"{protocol}.parquet")
            assert len(posteriors) == 12
            assert posteriors.metadata["configuration"] == run.configuration
            assert posteriors.metadata["run"]["train_scales"] == list(run.recipe.images.scales)
    assert report == out / "report.html"
    page = report.read_text()
    for number in "345":
        assert f"Table {number}" in page

    before = _state(out)
    assert plan_study(preset, "scenes", out, device="cpu").seconds == 0
    reproduce(preset, "scenes", out, device="cpu", quiet=True)
    assert _state(out) == before

    gone = folder.posteriors("B-s36") / "dense@32,36.parquet"
    gone.unlink()
    assert plan_study(preset, "scenes", out, device="cpu").seconds == 0, "only a mean is missing"
    reproduce(preset, "scenes", out, device="cpu", quiet=True)
    after = _state(out)
    assert {path for path in after if after[path] != before.get(path)} == {gone.relative_to(out)}


def test_a_stopped_study_goes_on_where_it_stopped(preset, tmp_path, monkeypatch) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    reproduce(preset, "scenes", whole, device="cpu", quiet=True)

    trained = []

    def stop_at_the_second(net, *words, **options):
        trained.append(net)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(net, *words, **options)

    train = module.train
    monkeypatch.setattr(module, "train", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        reproduce(preset, "scenes", stopped, device="cpu", quiet=True)
    assert sorted(path.name for path in (stopped / "runs").iterdir()) == ["A-s36"]
    assert not (stopped / "report.html").exists()
    reproduce(preset, "scenes", stopped, device="cpu", quiet=True)
    for path in whole.rglob("*.parquet"):
        same = vd.Posteriors.read(stopped / path.relative_to(whole))
        np.testing.assert_array_equal(vd.Posteriors.read(path).probabilities, same.probabilities)


def test_localizers_are_trained_tested_merged_and_only_once(preset, tmp_path) -> None:
    text = (tmp_path / "tiny.toml").read_text() + BOXES.format(folder=tmp_path)
    head = 'labels = ["B-s36"]\nunions = [["A-s36-scr-fc center@40", "B-s36-48-pcr-all dense@64"]]\n'
    (tmp_path / "boxes.toml").write_text(head + text)
    out, name = tmp_path / "study", str(tmp_path / "boxes.toml")
    (tmp_path / "wrong.toml").write_text(head.replace('B-s36"', 'B-s37"') + text)
    wrong = load_preset(str(tmp_path / "wrong.toml"))
    with pytest.raises(UserError, match="it plans no classifier 'B-s37'"):
        make_plan(wrong)
    reproduce(name, "scenes", out, device="cpu", quiet=True)
    folder, chosen = StudyFolder(out), load_preset(name)
    runs = make_plan(chosen)
    assert [(run.name, run.init_from) for run in runs[-2:]] == [
        ("A-s36-scr-fc", "A-s36"),
        ("B-s36-48-pcr-all", "B-s36-48"),
    ]
    for run in runs[-2:]:
        for protocol in run.protocols:
            detections = Detections.read(folder.boxes(run.name) / f"{protocol}.parquet")
            assert detections.metadata["merging"]["held_out"] == (0.0 if protocol.kind == "center" else 0.2)
            assert detections.metadata["regression"] == run.regression
            # The classes are those of the preset's labels by several scales, whatever the classifier beside it.
            labels = vd.Posteriors.read(folder.posteriors("B-s36") / "dense@32,36.parquet")
            best = np.argsort(-labels.rows(detections.ids).probabilities, axis=1, kind="stable")
            np.testing.assert_array_equal(detections.classes[:, :5], best[:, :5])
    union = Detections.read(folder.union(chosen.unions[0]))
    assert [member["protocol"] for member in union.metadata["fused"]] == ["center@40", "dense@64"]
    page = (out / "report.html").read_text()
    for words in ("Table 8", "Table 9", "Misses", "all, merged", "best constant box"):
        assert words in page
    assert plan_study(name, "scenes", out, device="cpu").seconds == 0
    before = _state(out)
    reproduce(name, "scenes", out, device="cpu", quiet=True)
    assert _state(out) == before
    assert [run.name for run in make_plan(chosen, ["A-s36-scr-fc"])] == ["A-s36", "B-s36", "A-s36-scr-fc"]


def test_photographs_without_boxes_are_studied_for_their_classes(preset, tmp_path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng([label == "cat", number]).integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    (tmp_path / "boxes.toml").write_text((tmp_path / "tiny.toml").read_text() + BOXES.format(folder=tmp_path))
    out, name, data = tmp_path / "study", str(tmp_path / "boxes.toml"), str(tmp_path / "photos")
    words = ["reproduce", "--preset", name, "--data", data, "--out", str(out), "--device", "cpu"]
    with pytest.raises(UserError, match="--only A-s36-scr-fc: it learns boxes, and no train image of photos has one"):
        reproduce(name, data, out, only=["A-s36-scr-fc"], device="cpu")
    assert not out.exists()
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "have no boxes: A-s36-scr-fc, B-s36-48-pcr-all." in done.stdout
    assert "3 runs." in done.stdout
    assert sorted(path.name for path in (out / "runs").iterdir()) == ["A-s36", "B-s36", "B-s36-48"]
    assert "Table 6" in (out / "report.html").read_text()


def test_only_some_runs(preset, tmp_path) -> None:
    reproduce(preset, "scenes", tmp_path / "study", only=["B-s36"], device="cpu", quiet=True)
    assert sorted(path.name for path in (tmp_path / "study" / "runs").iterdir()) == ["A-s36", "B-s36"]


def test_a_run_of_other_settings_is_refused_and_kept(preset, tmp_path) -> None:
    out = tmp_path / "study"
    reproduce(preset, "scenes", out, only=["A-s36"], device="cpu", quiet=True)
    before = _state(out)
    (tmp_path / "small.toml").write_text(RECIPE.format(scales="[36, 36]").replace("0.001", "0.002"))
    with pytest.raises(UserError, match="holds another run") as raised:
        reproduce(preset, "scenes", out, device="cpu", quiet=True)
    assert "\n" not in str(raised.value)
    assert _state(out) == before


def test_a_plan_writes_nothing_and_needs_no_data(preset, tmp_path) -> None:
    out = tmp_path / "study"
    planned = plan_study(preset, None, out, device="cpu")
    assert planned.data.name == "scenes"
    assert planned.seconds > 0
    measured = plan_study(preset, "scenes", out, device="cpu")
    assert (measured.data.training_images, measured.data.test_images) == (20, 12)
    assert not out.exists()
