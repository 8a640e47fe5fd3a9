"""`verydeep fuse`, from files to figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from scipy.stats import binomtest
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.fuse import fuse
from verydeep.evaluation.metrics import top_k_error, wrong

app = typer.Typer()
app.command()(fuse)


@pytest.fixture
def files(tmp_path):
    """Three systems tried on the same 60 images, in different orders."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 8, 60)
    ids = tuple(f"{i}.jpg" for i in range(60))
    paths = []
    for name in "abc":
        probabilities = rng.dirichlet(np.ones(8), 60)
        probabilities[np.arange(60), labels] += rng.random(60)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        whole = vd.Posteriors(
            ids, labels, probabilities.astype(np.float32), tuple("stuvwxyz"), {"protocol": "dense@64"}
        )
        whole.rows(tuple(ids[i] for i in rng.permutation(60))).write(tmp_path / f"{name}.parquet")
        paths.append(str(tmp_path / f"{name}.parquet"))
    return paths


def _run(*words):
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_two_systems_their_mean_and_their_difference(files, tmp_path):
    report = json.loads(_run(*files[:2], "--out", str(tmp_path / "mean.parquet"), "--json"))
    parts = [vd.Posteriors.read(tmp_path / f"{name}.parquet") for name in "ab"]
    mean = vd.Posteriors.read(tmp_path / "mean.parquet")
    expected = (parts[0].probabilities + parts[1].rows(parts[0].ids).probabilities) / 2
    np.testing.assert_allclose(mean.probabilities, expected, atol=1e-7)
    assert [system["top1_error"] for system in report["systems"]] == [top_k_error(part, 1) for part in parts]
    assert report["fusion"]["top1_error"] == top_k_error(mean, 1)
    assert report["fusion"]["file"] == str(tmp_path / "mean.parquet")
    first, second = wrong(parts[0], 1), wrong(parts[1].rows(parts[0].ids), 1)
    only = int((first & ~second).sum()), int((second & ~first).sum())
    test = report["mcnemar"]["top1"]
    assert (test["only_first_wrong"], test["only_second_wrong"]) == only
    assert test["p_value"] == pytest.approx(binomtest(only[0], sum(only)).pvalue)


def test_the_table_names_every_system(files):
    out = _run(*files[:2])
    for name in (*files[:2], "mean of all"):
        (line,) = [line for line in out.splitlines() if line.startswith(name + " ")]
        assert " 60 " in line
        assert line.count("[") == 2
    assert "McNemar, top-1: only the first wrong" in out
    assert "95 % bootstrap interval" in out


def test_three_systems_have_no_mcnemar_test(files):
    assert "McNemar" not in _run(*files)
    assert json.loads(_run(*files, "--json"))["mcnemar"] is None


def test_files_that_differ_are_refused_by_name_and_nothing_is_written(files, tmp_path):
    part = vd.Posteriors.read(tmp_path / "b.parquet")
    replace(part, classes=tuple("stuvwxy!")).write(tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet and .*a\.parquet differ in classes"):
        _run(*files[:2], "--out", str(tmp_path / "mean.parquet"))
    assert not (tmp_path / "mean.parquet").exists()


def test_few_classes_have_no_top_5_error(files, tmp_path):
    labels = np.arange(30) % 3
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 30).astype(np.float32)
    vd.Posteriors(tuple(map(str, range(30))), labels, probabilities, tuple("abc")).write(tmp_path / "few.parquet")
    assert "- (3 classes)" in _run(str(tmp_path / "few.parquet"))
    (system,) = json.loads(_run(str(tmp_path / "few.parquet"), "--json"))["systems"]
    assert system["top5_error"] is None
    assert 0 < system["top1_error"] < 1


def test_without_labels_there_are_no_errors_but_a_mean(tmp_path, files):
    part = vd.Posteriors.read(tmp_path / "a.parquet")
    replace(part, labels=np.full(60, -1)).write(tmp_path / "u.parquet")
    assert "no labels" in _run(str(tmp_path / "u.parquet"), str(tmp_path / "u.parquet"))
    report = json.loads(_run(str(tmp_path / "u.parquet"), str(tmp_path / "u.parquet"), "--json"))
    assert report["fusion"]["top1_error"] is None
    assert report["mcnemar"] is None
