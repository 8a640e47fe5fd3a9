"""`verydeep data shard`: what is written is what was there, for us and for the webdataset package."""

import json
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from typer.testing import CliRunner

from verydeep.basics.errors import UserError
from verydeep.cli.data import app
from verydeep.datasets import open_dataset
from verydeep.datasets.loader import Augmentation, TrainingLoader

SPLITS = ("train", "val", "test")


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two classes of twelve pictures, of several formats."""
    for name in ("bee hive", "ant"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(12):
            picture = Image.fromarray(rng.integers(0, 256, (50 + number, 70, 3), dtype=np.uint8))
            picture.save(folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}", quality=90)
    return tmp_path / "photos"


def shard(*words: object) -> str:
    result = CliRunner().invoke(app, ["shard", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def by_content(path: Path, split: str) -> list[tuple[str, bytes]]:
    data = open_dataset(path, split)
    return sorted((data.classes[sample.label], data.read(index)) for index, sample in enumerate(data.samples))


def test_the_same_splits_classes_and_files(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    said = json.loads(shard(photos, "--out", out, "--images", 4, "--json"))
    assert [row["split"] for row in said] == list(SPLITS)
    assert len(said[0]["files"]) == -(-said[0]["images"] // 4) > 1
    for split in SPLITS:
        assert by_content(out, split) == by_content(photos, split)
        assert open_dataset(out, split).classes == open_dataset(photos, split).classes
    loader = TrainingLoader(open_dataset(out, "train"), Augmentation(32, (32, 32)), 4, 0)
    assert len(list(loader.epoch(0))) == loader.batches_per_epoch
    with pytest.raises(UserError, match="is not empty"):
        shard(photos, "--out", out)


def test_webdataset_reads_them(photos: Path, tmp_path: Path) -> None:
    shard(photos, "--out", tmp_path / "shards", "--images", 5)
    names = (tmp_path / "shards" / "classes.txt").read_text().splitlines()
    files = sorted(map(str, (tmp_path / "shards").glob("train-*.tar")))
    found = []
    for sample in webdataset.WebDataset(files, shardshuffle=False, empty_check=False):
        (picture,) = (key for key in sample if key in ("png", "jpg", "webp"))
        found.append((names[int(sample["cls"])], sample[picture]))
    assert sorted(found) == by_content(photos, "train")
    assert found != sorted(found), "classes are mixed"


def test_pictures_are_made_smaller_but_not_larger(photos: Path, tmp_path: Path) -> None:
    shard(photos, "--out", tmp_path / "shards", "--side", 55)
    before, after = (open_dataset(path, "train") for path in (photos, tmp_path / "shards"))
    heights = sorted(min(before.size(index)) for index in range(len(before)))
    assert sorted(min(after.size(index)) for index in range(len(after))) == [min(side, 55) for side in heights]


def test_made_pictures_have_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="are in no files"):
        shard("scenes", "--out", tmp_path / "shards")


def test_several_labels_stay_several(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "data").mkdir()
    for number in range(20):
        picture = Image.fromarray(rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
        picture.save(tmp_path / "data" / f"{number}.png")
        labels = ["sea", "sky", "tree"][: number % 3 + 1]
        (tmp_path / "data" / f"{number}.json").write_text(json.dumps({"label": labels}))
    shard(tmp_path / "data", "--out", tmp_path / "shards")

    def found(path: Path) -> list[tuple[bytes, list[str]]]:
        data = open_dataset(path, "train")
        named = ([data.classes[label] for label in sample.labels or ()] for sample in data.samples)
        return sorted((data.read(index), sorted(names)) for index, names in enumerate(named))

    assert found(tmp_path / "shards") == found(tmp_path / "data")
    assert {len(names) for _, names in found(tmp_path / "shards")} == {1, 2, 3}
