"""Tiny ImageNet: a small set in its published layout, and the real one."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.dataset import Box

WNIDS = ("n02124075", "n01443537", "n07749582")  # as published, not sorted


@pytest.fixture
def tiny(tree, picture):
    """Write the set, with its lists changed: tiny({"wnids.txt": b"..."}) -> its path."""

    def make(changes=None, without=()):
        files = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": b"n01443537\tgoldfish, Carassius auratus\n"}
        for wnid in WNIDS:
            rows = []
            for i in range(3):
                files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = picture(64, 64, "JPEG")
                rows.append(f"{wnid}_{i}.JPEG\t{i}\t1\t{40 + i}\t63\n")
            files[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(rows).encode()
        for i in range(6):
            files[f"val/images/val_{i}.JPEG"] = picture(64, 64, "JPEG")
        rows = [f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t{i}\t62\t63\n" for i in range(6)]
        files["val/val_annotations.txt"] = "".join(rows).encode()
        files["test/images/test_0.JPEG"] = picture(64, 64, "JPEG")
        files.update(changes or {})
        return tree("tiny-imagenet-200", [], {name: data for name, data in files.items() if name not in without})

    return make


def test_classes_labels_and_boxes(tiny, pack, tmp_path):
    folder = tiny()
    for source in (folder, pack(folder, tmp_path / "t.tar")):
        train, val, test = (open_dataset(source, split) for split in ("train", "val", "test"))
        assert train.name == "tiny-imagenet-3"
        assert train.classes == ("n02124075", "n01443537 goldfish", "n07749582")
        assert len(train) == 9
        for sample in train.samples:
            _, wnid, _, name = sample.id.split("/")
            i = int(name[-6])
            assert WNIDS[sample.label] == wnid
            assert sample.boxes == (Box(i, 1, 41 + i, 64),)  # columns i to 40 + i, rows 1 to 63
        found = [(s.id, s.label, s.boxes) for s in val.samples]
        assert found == [(f"val/images/val_{i}.JPEG", i % 3, (Box(0, i, 63, 64),)) for i in range(6)]
        assert test.samples == val.samples
        assert "1 test images have no labels: not used" in test.provenance


@pytest.mark.parametrize(
    ("changes", "without", "message"),
    [
        ({}, ["val/images/val_2.JPEG"], "1 listed images are missing (val/images/val_2.JPEG)"),
        ({"wnids.txt": b"n02124075\nn01443537\n"}, [], "val_2.JPEG has class n07749582, which wnids.txt lacks"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn02124075\n"}, [], "line 1 has 2 columns, expected 6"),
        ({"wnids.txt": b"\xff\xfe"}, [], "wnids.txt: is not UTF-8 text"),
    ],
)
def test_what_is_not_as_published(tiny, changes, without, message):
    folder = tiny(changes, without)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        open_dataset(folder, "train")
    assert str(folder) in str(caught.value)


def test_bad_boxes_are_listed_and_cost_no_image(tiny):
    wnid = WNIDS[0]
    rows = [
        f"{wnid}_0.JPEG\t9\t1\t8\t63",
        f"{wnid}_1.JPEG\t0\t0\tnan\t3",
        f"{wnid}_2.JPEG\t1\t2\t3\t4",
        "gone.JPEG\t1\t2\t3\t4",
    ]
    changes = {f"train/{wnid}/{wnid}_boxes.txt": "\n".join(rows).encode()}
    changes["val/val_annotations.txt"] = f"val_0.JPEG\t{wnid}\t0\t0\tx\t3\n".encode()
    folder = tiny(changes)
    train, val = (open_dataset(folder, split) for split in ("train", "val"))
    assert len(train) == 9
    own = [sample.boxes for sample in train.samples if wnid in sample.id]
    assert own == [(), (), (Box(1, 2, 4, 5),)]
    missing = f"annotates train/{wnid}/images/gone.JPEG, which is not there"
    reasons = ["box 9 1 8 63 has xmax 8 below xmin 9", "box 0 0 nan 3 is not finite", missing]
    assert [error.reason for error in train.bad_boxes] == reasons
    assert [error.reason for error in val.bad_boxes] == [missing, "0 0 x 3 is no box of four numbers"]
    for error in train.bad_boxes:
        assert str(error).startswith(f"{folder}/train/{wnid}/{wnid}_boxes.txt")
        assert "\n" not in str(error)


def test_the_real_set(shared_data, rng):
    path = shared_data / "tiny-imagenet-100.tar"
    train, val = open_dataset(path, "train"), open_dataset(path, "val")
    assert (train.name, len(train), len(val), len(train.classes)) == ("tiny-imagenet-100", 30_000, 5_000, 100)
    for dataset, each in ((train, 300), (val, 50)):
        assert Counter(sample.label for sample in dataset.samples) == dict.fromkeys(range(100), each)
        for sample in dataset.samples:
            (box,) = sample.boxes
            assert 0 <= box.xmin < box.xmax <= 64
            assert 0 <= box.ymin < box.ymax <= 64
    for index in rng.integers(0, len(val), 20).tolist():
        pixels = np.asarray(Image.open(io.BytesIO(val.read(index))).convert("RGB"), float)
        assert pixels.shape == (64, 64, 3)
        assert abs(val.image(index) - pixels).mean() < 1
