"""Damaged images left out, and remembered."""

import json
from pathlib import Path

import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.checking import memory_file
from verydeep.datasets.dataset import Dataset

IMAGES = [f"{name}/{i:02d}.png" for name in ("cat", "dog") for i in range(20)]


@pytest.fixture
def damaged(tree, picture):
    """A folder of 40 images and the four of them that are damaged."""
    whole = picture(kind="JPEG")
    bad = {"cat/03.png": b"", "cat/11.png": b"text", "dog/00.png": whole[: len(whole) // 3], "dog/19.png": b"\x89PNG"}
    return tree("set", IMAGES, bad), set(bad)


def test_the_bad_ones_are_left_out_of_each_split_and_listed(damaged, pack, tmp_path):
    folder, bad = damaged
    for source, prefix in ((folder, ""), (pack(folder, tmp_path / "set.tar"), "set/")):
        left_out = set()
        for split in ("train", "val", "test"):
            every = open_dataset(source, split)
            good = open_dataset(source, split, on_bad_image="skip")
            own = [s.id for s in every.samples if s.id in bad]
            assert good.samples == [s for s in every.samples if s.id not in bad]
            assert [error.name for error in good.bad] == [f"{source}/{prefix}{i}" for i in own]
            assert all(error.reason for error in good.bad)
            assert (f"{len(own)} damaged images left out" in good.provenance) == bool(own)
            left_out.update(own)
        assert left_out == bad


def test_images_are_decoded_once_until_a_file_changes(damaged, picture, monkeypatch, own_cache):
    folder, _ = damaged
    decoded = []
    original = Dataset.image
    monkeypatch.setattr(Dataset, "image", lambda self, index: decoded.append(index) or original(self, index))
    first = open_dataset(folder, "train", on_bad_image="skip")
    assert len(decoded) == len(first) + len(first.bad)
    decoded.clear()
    again = open_dataset(folder, "train", on_bad_image="skip")
    assert not decoded
    assert (again.samples, list(map(str, again.bad))) == (first.samples, list(map(str, first.bad)))
    repaired = first.bad[0].name
    Path(repaired).write_bytes(picture())
    repaired_set = open_dataset(folder, "train", on_bad_image="skip")
    assert decoded
    assert [b.name for b in repaired_set.bad] == [b.name for b in first.bad if b.name != repaired]
    kept = list(own_cache.rglob("*.json"))
    assert len(kept) == 2
    kept[0].write_text("nonsense")
    kept[1].write_text(json.dumps([1]))
    assert open_dataset(folder, "train", on_bad_image="skip").samples == repaired_set.samples


def test_a_cache_that_cannot_be_written_costs_time_only(damaged, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder, _ = damaged
    dataset = open_dataset(folder, "train", on_bad_image="skip")
    assert len(dataset) + len(dataset.bad) == len(open_dataset(folder, "train"))
    assert not memory_file(dataset).is_file()


def test_nothing_left_is_an_error(tree):
    folder = tree("set", [], dict.fromkeys(IMAGES, b"text"))
    with pytest.raises(UserError, match=r"set: none of the 26 train images can be decoded"):
        open_dataset(folder, "train", on_bad_image="skip")
