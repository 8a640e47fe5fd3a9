"""`verydeep scoremap`: from a file to maps, peaks and pictures."""

import json
import logging
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli import scoremap as module

pytest.importorskip("zarr", reason="zarr is not installed (it needs Python 3.11)")
app = typer.Typer()
app.command()(module.scoremap)


@pytest.fixture
def work(tmp_path, monkeypatch, rng):
    """A working directory with slide.tif and the run runs/A."""
    monkeypatch.chdir(tmp_path)
    net = vd.create("A", list("abcdefgh"), width=1 / 16, image_size=64, fc_width=16, seed=1)
    vd.save(net, tmp_path / "runs" / "A" / "best.safetensors")
    Image.fromarray(rng.integers(0, 256, (300, 420, 3), dtype=np.uint8)).save("slide.tif")
    return tmp_path


def _run(*words):
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_example_of_the_help(work):
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("│", " ").split())
    assert module.EXAMPLE in shown
    out = _run(*shlex.split(module.EXAMPLE)[2:])
    assert out.splitlines()[0].startswith("slide.tif: 8 classes, a window of 64 pixels every 32")
    assert out.splitlines()[-3] == "map.zarr"
    found, expected = vd.read_map("map.zarr"), vd.score_map("slide.tif", "runs/A/best.safetensors", scales=(1.0, 0.5))
    for one, two in zip(found.levels, expected.levels, strict=True):
        np.testing.assert_array_equal(one.values[:], two.values)
    assert Path("peaks.csv").read_text().startswith("class,posterior")
    assert min(Image.open("overview.png").size) > 300


def test_a_dry_run_says_all_and_writes_nothing(work):
    words = ("slide.tif", "--weights", "runs/A", "--out", "m.zarr", "--stride", "8")
    about = json.loads(_run(*words, "--dry-run", "--json"))
    assert about["stride"] == 8
    assert about["scales"][0]["map"] == [49, 34]
    assert about["scales"][0]["multiply_adds"] > 0
    assert not Path("m.zarr").exists()
    assert "multiply-adds" in _run(*words, "--dry-run")
    _run(*words, "--classes", "c,a", "--scores", "--tiff", "c.tif", "--tiff-class", "c", "--region", "64,0,200,300")
    assert vd.read_map("m.zarr").classes == ("c", "a")
    assert Path("c.tif").stat().st_size > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--region", "1,2,3"), "expected x,y,width,height"),
        (("--scales", "1,x"), "'x' is no number above 0"),
        (("--scales", "0"), "'0' is no number above 0"),
        (("--memory", "64MiB"), r"the least that works here is \d+MiB"),
        (("--peaks", "p.txt"), "must end in .csv or .geojson"),
        (("--tiff", "p.png"), "must end in .tif"),
        (("--tiff", "p.tif", "--tiff-class", "z"), "class 'z' is not in the map"),
        (("--overview", "p.doc"), "must end in"),
        (("--mask", "mask.png"), "10 x 10 pixels, and the image has 420 x 300"),
        (("--classes", "a,zz"), "class 'zz'"),
    ],
)
def test_wrong_requests_write_nothing(work, words, message):
    Image.new("L", (10, 10)).save("mask.png")
    with pytest.raises(UserError, match=message):
        _run("slide.tif", "--weights", "runs/A", "--out", "m.zarr", *words)
    assert not Path("m.zarr").exists()


def test_a_cut_file_gives_one_line(work):
    data = Path("slide.tif").read_bytes()
    Image.open("slide.tif").save("cut.jpg", quality=95)
    Path("cut.jpg").write_bytes(Path("cut.jpg").read_bytes()[: len(data) // 8])
    with pytest.raises(UserError, match=r"cut.jpg: can be read only down to row .* the map above it is kept") as caught:
        _run("cut.jpg", "--weights", "runs/A", "--out", "m.zarr")
    assert "\n" not in str(caught.value)
    assert logging.getLogger("pyvips").handlers  # so that Python prints none of its warnings itself
