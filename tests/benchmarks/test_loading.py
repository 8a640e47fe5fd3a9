"""The loading benchmark: what it times is right, and it says so in every form."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks.loading import fast_crop, run, usual_crop
from verydeep.basics.errors import UserError
from verydeep.cli.bench import app
from verydeep.images.view import View


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
        exif = Image.Exif()
        exif[274] = 6 if i == 5 else 1
        coarse.resize((160, 120)).save(tmp_path / "photos" / f"{i}.jpg", exif=exif)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_figures_belong_together(folder):
    result = run(folder, crop=48, scales=(56, 100), rounds=2)
    assert result["images"] == 5  # the turned one is left out
    usual, fast, whole = result["rows"]
    assert usual["ratio"] == 1
    assert result["ratio_least"] <= fast["ratio"] <= result["ratio_greatest"]
    assert 0 < whole["images_per_second_core"] < 1e5
    assert result["mean_difference"] <= result["worst_difference"] < 2
    assert result["machine"]["opencv-python-headless"]


def test_both_ways_cut_the_same_crop(folder):
    image = np.asarray(Image.open(folder / "0.jpg").resize((93, 70), Image.Resampling.BILINEAR))
    view = View(70, 7, 31, False, (0, 0, 0))
    data = (folder / "0.jpg").read_bytes()
    np.testing.assert_array_equal(usual_crop(data, view, 48), image[7:55, 31:79])
    assert np.abs(fast_crop(data, view, 48).astype(int) - image[7:55, 31:79]).mean() < 1


def test_command_prints_text_json_and_csv(folder):
    arguments = ["loading", "--data", str(folder), "--crop", "48", "--scales", "56,100", "--rounds", "1"]
    text = CliRunner().invoke(app, arguments)
    assert text.exit_code == 0, text.output
    assert "5 images of photos, crops of 48, S in [56;100]" in text.output
    assert "mean absolute difference of the crops" in text.output
    result = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    rows = list(csv.DictReader(io.StringIO(CliRunner().invoke(app, [*arguments, "--csv"]).output)))
    assert [row["pipeline"] for row in rows] == [row["pipeline"] for row in result["rows"]]
    assert all(float(row["images_per_second_core"]) > 0 and row["processor"] for row in rows)


def test_bundled_photographs_need_no_data():
    result = run(rounds=1)
    assert result["images"] == 20
    assert result["mean_difference"] < 2


def test_bad_requests(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("no image")
    with pytest.raises(UserError, match="no images; expected files ending in"):
        run(tmp_path / "empty")
    with pytest.raises(UserError, match="expected at least 1 of both"):
        run(folder, rounds=0)
    with pytest.raises(UserError, match="expected crop <= Smin <= Smax"):
        run(folder, scales=(100, 200))
    result = CliRunner().invoke(app, ["loading", "--scales", "256"])
    assert isinstance(result.exception, UserError)
    assert "expected two whole numbers" in str(result.exception)


def test_example_of_the_help(shared_data, monkeypatch):
    monkeypatch.chdir(shared_data)
    printed = CliRunner().invoke(app, ["loading", "--help"]).output
    example = next(line for line in printed.splitlines() if "Example:" in line)
    arguments = example.replace("│", "").split("verydeep bench ")[1].split()
    result = CliRunner().invoke(app, [*arguments, "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.output)
    assert values["images"] >= 190
    assert values["mean_difference"] < 2
    assert values["rows"][1]["ratio"] > 0
