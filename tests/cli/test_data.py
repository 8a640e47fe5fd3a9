"""`verydeep data show`, from folders to words, JSON and a contact sheet."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from verydeep.basics.errors import UserError
from verydeep.cli.data import EXAMPLE, app


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes of ten images of 24 x 32 pixels, one of them damaged."""
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    (tmp_path / "set/dog/4.png").write_bytes(b"text")
    return tmp_path / "set"


def _run(*words):
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def test_json_counts_sizes_damage_and_provenance(folder):
    report = json.loads(_run("show", folder, "--json"))
    assert (report["data"], report["classes"], report["contact_sheet"]) == ("set", ["cat", "dog"], None)
    splits = report["splits"]
    # Of 10 images a class 20 % are for test, of the 8 left 20 % for val.
    assert {name: split["images"] for name, split in splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert splits["train"]["images_per_class"] == {"cat": 6, "dog": 6}
    assert all(split[size] == [24, 32] for split in splits.values() for size in ("smallest", "median", "largest"))
    damaged = [bad for split in splits.values() for bad in split["damaged"]]
    assert [bad["file"] for bad in damaged] == [str(folder / "dog/4.png")]
    assert damaged[0]["reason"].startswith("not an image")
    assert "seed 0" in splits["test"]["provenance"]


def test_classes_of_ten_to_one_are_warned_of(tmp_path):
    for name, count in (("cat", 60), ("dog", 6)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8)).save(tmp_path / "set" / name / f"{i}.png")
    said = "cat has 38 images, dog 4: consider train --set data.balance=sampling, or weights"
    assert f"train: unequal classes: {said}" not in _run("show", tmp_path / "set")  # 9.5 to 1
    (tmp_path / "set/dog/5.png").unlink()
    assert "train: unequal classes: cat has 38 images, dog 3: consider train" in _run("show", tmp_path / "set")
    assert json.loads(_run("show", tmp_path / "set", "--json"))["splits"]["train"]["unequal_classes"]


def test_words_and_sheet(folder, tmp_path):
    text = _run("show", folder, "--split", "test", "--out", tmp_path / "new/sheet.png")
    assert text.startswith("set: 2 classes")
    assert "24 x 32" in text
    assert "test: held out of the training images: 20% of each class, seed 0" in text
    assert text.rstrip().endswith(f"contact sheet of test: {tmp_path / 'new/sheet.png'}")
    with Image.open(tmp_path / "new/sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert len(sheet.getcolors(sheet.width * sheet.height)) > 1000
    words = [line.split() for line in text.splitlines()]
    assert ["cat", "2"] in words
    assert ["dog", "2"] in words


def test_damaged_files_are_listed_once(folder):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (folder / split).mkdir(exist_ok=True)
            (folder / name).rename(folder / split / name) if split == "train" else (folder / split / name).mkdir()
    (folder / "val/cat/1.jpg").write_bytes(b"")
    text = _run("show", folder)
    assert text.count(f"damaged: {folder / 'val/cat/1.jpg'}: empty file") == 1
    assert text.count(f"damaged: {folder / 'train/dog/4.png'}: not an image") == 1


def test_the_first_ten_troubles_are_printed_and_all_are_in_json(folder):
    for name in ("cat", "dog"):
        for i in range(10):
            (folder / name / f"{i}.png").write_bytes(b"text")
    text = _run("show", folder)
    assert text.count("damaged: ") == 10
    assert "and 10 more, all of them with --json" in text
    splits = json.loads(_run("show", folder, "--json"))["splits"].values()
    assert sum(len(split["damaged"]) for split in splits) == 20


def test_a_split_that_cannot_be_made_is_left_away_but_named_when_asked_for(tmp_path, rng):
    for name in ("cat", "dog"):
        (tmp_path / "set/test" / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set/test" / name / "1.png")
    assert list(json.loads(_run("show", tmp_path / "set", "--json"))["splits"]) == ["test"]
    with pytest.raises(UserError, match="has no train images and none to hold them out of"):
        _run("show", tmp_path / "set", "--split", "train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: no such folder or archive"),
        (["scenes", "--reader", "imagenet"], "reader 'imagenet': expected one of"),
    ],
)
def test_wrong_requests_leave_nothing(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        _run("show", *words, "--out", tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_the_example_of_the_help_runs(tmp_path, monkeypatch):
    assert EXAMPLE in " ".join(_run("show", "--help").replace("│", " ").split())
    monkeypatch.chdir(tmp_path)
    text = _run(*shlex.split(EXAMPLE)[2:])
    assert text.startswith("scenes: 10 classes")
    assert (tmp_path / "sheet.png").is_file()
