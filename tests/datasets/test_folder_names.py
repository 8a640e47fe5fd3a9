"""Folders that are no classes: splits with the classes inside, or refused in one line that says what to give."""

import re

import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.folder_names import split_of

SPLITS = {
    "train": (
        "train",
        "Training",
        "TRAIN",
        "training_set",
        "seg_train",
        "train2017",
        "trainset",
        "TrainImages",
        "train_1",
    ),
    "val": ("val", "valid", "Validation", "val2017", "validation-set", "dev", "valImgs"),
    "test": ("test", "Testing", "test1", "seg_test", "test_set", "images_test", "evaluation"),
}
NONE = ("train station", "bullet_train", "testudo", "valley", "cat", "contest", "0", "test tube", "n02917067", "images")


def test_names_of_splits():
    assert {name: split_of(name) for names in SPLITS.values() for name in names} == {
        name: split for split, names in SPLITS.items() for name in names
    }
    assert not any(map(split_of, NONE))


def images(*folders, each=4):
    return [f"{folder}/{number}.png" for folder in folders for number in range(each)]


def within(tops, *classes):
    return images(*(f"{top}/{name}" for top in tops for name in classes))


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (within(["Training_set", "test_set"], "cat", "dog"), {"train", "test"}),
        (
            [*within(["seg_train/seg_train", "seg_test/seg_test"], "a", "b"), *images("seg_pred/seg_pred")],
            {"train", "test"},
        ),
        (within(["xray_train_v2", "xray_valid_v2", "xray_test_v2"], "a", "b"), {"train", "val", "test"}),
        (within(["TRAIN1", "train2", "Val"], "a", "b"), {"train", "val"}),
        (within(["train/images", "val/images"], "a", "b"), {"train", "val"}),
        ([*within(["train"], "a", "b"), *images("test1")], {"train"}),
        (within(["a", "b"], "train", "Test"), {"train", "test"}),
        ([*within(["images"], "a", "b"), *within(["masks"], "a", "b")], {"train"}),
        (within(["a", "b"], "images", "masks"), {"train"}),
        ([*images("a", "b"), "a/0_mask.png", "a/0_mask_1.png", "b/3 (segmentation).png"], {"train"}),
        (images("mask", "no_mask"), {"train"}),
        (within(["a", "b"], "image", "lung Masks"), {"train"}),
        ([*images("a", "b"), *within(["set"], "a", "b")], {"train"}),
        (within(["Final_Training/Images", "Final_Test/Images"], "00000", "00001"), {"train", "test"}),
        (images("class_1", "class_2"), {"train"}),
        (within(["PetImages"], "a", "b"), {"train"}),
        (["preview.png", *within(["PetImages"], "a", "b")], {"train"}),
        (["a/b/1.png", *images("a", "b", "c")], {"train"}),
    ],
)
def test_splits_hold_the_classes(tree, names, own):
    folder = tree("set", names, {"readme[1].txt": b"", "LICENSE": b""})
    parts = {split: open_dataset(folder, split) for split in ("train", "val", "test")}
    assert {split for split, part in parts.items() if "set's own" in part.provenance} == own
    for part in parts.values():
        for sample in part.samples:
            label, path = part.classes[sample.label], sample.id.split("/")
            assert label in path
            assert split_of(label) is None
            assert not {"masks", "lung Masks", "seg_pred", "set"} & set(path)
            assert "mask." not in sample.id
            assert "mask_" not in sample.id or label == "no_mask"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (images("train", "test"), "test/, train/: no class folders in them"),
        (images("Train2017", "val2017"), "no class folders in them"),
        (images("train"), "train/: no class folders in it"),
        (images("train/images", "valid/images"), "no class folders in them"),
        (images("xray_train", "xray_test"), "no class folders in them"),
        (images("test1", "cat"), "test1/: no class folders in it"),
        ([*images("train"), *within(["test"], "a", "b")], "train/: no class folders in it"),
        (images("images", "masks"), "images/: such names are no classes"),
        (within(["color", "grayscale"], "a", "b"), "set/color"),
        (within([f"fold{k}" for k in range(5)], "a", "b"), "set/fold0"),
        (images("HAM_images_part_1", "HAM_images_part_2"), "such names are no classes"),
        (within(["north", "south", "west"], "a", "b", "c"), "all hold the same folders (a, b, c)"),
        (within(["amazon/images", "dslr/images"], "a", "b"), "all hold the same folders (a, b)"),
        ([*within(["north", "south"], "a", "b"), *images("south/c")], "all hold the same folders (a, b)"),
        (within(["bottle/train", "bottle/test", "cable/train", "cable/test"], "good"), "have splits of their own"),
    ],
)
def test_what_holds_no_classes_is_refused(tree, names, said):
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        open_dataset(tree("set", names), "train")
    assert str(raised.value).count("\n") == 0


def test_outer_folders_that_hold_the_same_are_classes_if_that_is_said(tree):
    folder = tree("set", within(["cat", "dog"], "indoor", "outdoor"))
    assert open_dataset(folder, "train", reader="class-folders:top").classes == ("cat", "dog")


def test_what_is_not_read_is_counted_by_ending_in_each_folder(tree):
    others = {f"b/{n}.mp4": b"x" for n in range(20)} | {"c/1.tga": b"x", "b/notes": b"x"}
    folder = tree("set", images("a", "b", "c"), others)
    said = open_dataset(folder, "train").provenance
    assert "in b/ 21 of 25 files (20 .mp4, 1 without an ending), in c/ 1 of 5 files (1 .tga)" in said
    for number in range(4):
        (folder / f"b/{number}.png").unlink()
    assert "in b/ 21 of 21 files" in open_dataset(folder, "train").provenance  # a class that is gone is named, too


def test_too_few_images_are_said_with_what_was_not_read(tree, monkeypatch):
    monkeypatch.setattr("verydeep.images.formats.SUFFIXES", {"png"})
    monkeypatch.setattr("verydeep.images.formats.READ", ())
    folder = tree("set", images("a"), {"b/0.png": b"", **{f"b/{n}.heic": b"" for n in range(20)}})
    with pytest.raises(
        UserError, match=r"class b: has 1 images.*in b/ 20 of 21 files \(20 \.heic; pip install 'verydeep\["
    ):
        open_dataset(folder, "train")
