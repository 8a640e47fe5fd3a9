"""`verydeep evaluate`, from words to files and figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.evaluate import evaluate
from verydeep.datasets import open_dataset
from verydeep.evaluation.metrics import bootstrap_interval, top_k_error, wrong
from verydeep.nets.run_info import RunInfo
from verydeep.results.result import read_results

app = typer.Typer()
app.command()(evaluate)
ENDINGS = ("png", "parquet")
CLASSES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of a small network, and photographs of noise in a folder a class."""
    root = tmp_path_factory.mktemp("evaluate")
    net = vd.create("A", CLASSES, width=1 / 16, image_size=64, fc_width=16, seed=1)
    vd.save(net, root / "a.safetensors")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in CLASSES:
            (root / "data" / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (64 + 8 * (i % 2), 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "data" / part / name / f"{i}.png")
    return root


def _run(folder, *words):
    result = CliRunner().invoke(app, [str(folder / "a.safetensors"), "--data", str(folder / "data"), *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_table_and_a_file_for_each_protocol(folder, tmp_path):
    result = _run(folder, "--protocol", "dense@64,72", "--protocol", "center@64", "--out", str(tmp_path))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    dataset = open_dataset(folder / "data", "test")
    for protocol in ("dense@64,72", "center@64"):
        found = vd.Posteriors.read(tmp_path / f"{protocol}.parquet")
        expected = vd.evaluate(folder / "a.safetensors", dataset, protocol)
        assert found.ids == expected.ids
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        (line,) = [line for line in lines if line.startswith(protocol + " ")]
        low, high = bootstrap_interval(wrong(found, 1))
        assert " 28 " in line
        assert f"{100 * top_k_error(found, 1):.1f} [{100 * low:.1f}, {100 * high:.1f}]" in line
        assert line.endswith(f"{protocol}.parquet")


def test_json_holds_the_same_figures(folder, tmp_path):
    words = ("--protocol", "dense+crops@64", "--out", str(tmp_path), "--limit", "14", "--softmax", "location", "--json")
    report = json.loads(_run(folder, *words).stdout)
    (row,) = report["results"]
    found = vd.Posteriors.read(tmp_path / "dense+crops@64.parquet")
    assert row["protocol"] == "dense+crops@64"
    assert row["images"] == row["labeled_images"] == len(found) == 14
    assert row["top1_error"] == top_k_error(found, 1)
    assert row["top5_error"] == top_k_error(found, 5)
    assert row["top1_interval"] == list(bootstrap_interval(wrong(found, 1)))
    assert row["file"] == str(tmp_path / "dense+crops@64.parquet")
    assert np.bincount(found.labels).tolist() == [2] * 7
    assert found.metadata["options"]["softmax"] == "location"
    assert found.metadata["limit"].startswith("14 images")


def test_recall_and_precision_by_class_and_what_is_taken_for_what(folder, tmp_path):
    words = ("--protocol", "dense@64", "--protocol", "center@64", "--out", str(tmp_path), "--confusion")
    shown = _run(folder, *words).stdout
    rows = json.loads(_run(folder, *words, "--json").stdout)["results"]
    for row in rows:
        found = vd.Posteriors.read(tmp_path / f"{row['protocol']}.parquet")
        guess = found.probabilities.argmax(axis=1)
        for k, values in enumerate(row["by_class"]):
            hits, named = ((guess == k) & (found.labels == k)).sum(), (guess == k).sum()
            assert (values["class"], values["images"], values["recall"]) == (found.classes[k], 4, hits / 4)
            assert values["precision"] == (hits / named if named else None)
        assert row["macro_recall"] == pytest.approx(1 - row["top1_error"])  # classes are of one size
        assert [Path(path).name for path in row["confusion"]] == [f"confusion-{row['protocol']}.{e}" for e in ENDINGS]
        assert all(Path(path).is_file() and path in shown for path in row["confusion"])
    best = min(rows, key=lambda row: row["top1_error"])
    assert f"{best['protocol']}, by class; mean recall {100 * best['macro_recall']:.1f} %" in shown
    with pytest.raises(UserError, match="none of its posteriors belongs in a table"):  # the matrices change nothing
        read_results(tmp_path)


def test_the_hold_out_is_that_of_the_networks_training(folder, tmp_path):
    """A split that the data set lacks must not hold images the network was trained on."""
    net = vd.load(folder / "a.safetensors")
    net.provenance = RunInfo(seed=7, train_scales=(64, 64))
    vd.save(net, tmp_path / "seven.safetensors")
    source = folder / "data" / "train"
    words = ["--data", str(source), "--protocol", "center@64", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [str(tmp_path / "seven.safetensors"), *words])
    assert result.exit_code == 0, result.output
    tested = set(vd.Posteriors.read(tmp_path / "center@64.parquet").ids)
    trained = {sample.id for sample in open_dataset(source, "train").samples}
    assert tested
    assert not tested & trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--protocol", "dense@6x"), "for example dense@256,384,512"),
        (("--protocol", "center@64", "--protocol", "crops@32"), "the least is 64"),
        (("--protocol", "dense@64", "--memory", "lots"), "for example 2GiB"),
        (("--protocol", "dense@64", "--device", "abacus"), "abacus"),
        (("--protocol", "dense@64", "--softmax", "location", "--pool", "max"), "choose one"),
    ],
)
def test_wrong_requests_get_one_line_and_leave_nothing(folder, tmp_path, words, message):
    with pytest.raises(UserError, match=message) as caught:
        _run(folder, *words, "--out", str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_classes_get_one_line(folder, tmp_path):
    net = vd.create("A", 7, width=1 / 16, image_size=64, fc_width=16, seed=1)
    vd.save(net, tmp_path / "numbers.safetensors")
    words = ["--data", str(folder / "data"), "--protocol", "dense@64", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [str(tmp_path / "numbers.safetensors"), *words])
    assert isinstance(result.exception, UserError)
    assert "does not know 7 of the data set's 7 (for example 'ant'; it knows '0', ...)" in str(result.exception)


def test_a_second_run_computes_nothing(folder, tmp_path, monkeypatch):
    words = ("--protocol", "dense@64", "--out", str(tmp_path))
    first = _run(folder, *words).stdout
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda *_: pytest.fail("the network was run"))
    assert _run(folder, *words).stdout == first
