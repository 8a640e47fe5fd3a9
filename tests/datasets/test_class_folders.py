"""Class folders, in all the ways in which people keep them, as folders and as tars."""

import gzip
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verydeep.basics.errors import BadImageError, UserError
from verydeep.datasets import open_dataset

SPLITS = ("train", "val", "test")


def _images(*classes, each=5):
    return [f"{name}/{i}.png" for name in classes for i in range(each)]


def _ids(dataset):
    return [sample.id for sample in dataset.samples]


def _stored(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"inner/{file.relative_to(folder)}")
    return path


def test_damage_within_a_zip_is_named(tree, tmp_path):
    folder = tree("set", _images("a", "b"))
    (folder / "a/notes.csv").write_text("x,y\n" * 1000)
    path = Path(shutil.make_archive(str(tmp_path / "a"), "zip", folder))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("a/0.png").header_offset + 60
        assert archive.getinfo("a/0.png").compress_type == zipfile.ZIP_DEFLATED
    path.write_bytes(data[:offset] + bytes(20) + data[offset + 20 :])
    dataset = open_dataset(path, "train", on_bad_image="skip"), open_dataset(path, "test", on_bad_image="skip")
    bad = [error for part in (*dataset, open_dataset(path, "val", on_bad_image="skip")) for error in part.bad]
    assert [error.name for error in bad] == [f"{path}/a/0.png"]
    assert "cannot be read" in bad[0].reason
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="is a damaged zip file"):
        open_dataset(path, "train")


def test_folder_tar_and_parent_are_the_same_set(tree, pack, tmp_path, rng):
    (tmp_path / "set").mkdir()
    folder = tree("set/inner", _images("dog", "cat", "größe", each=7))
    sources = [
        folder,
        folder.parent,
        pack(folder, tmp_path / "inner.tar", tarfile.GNU_FORMAT),
        pack(folder.parent, tmp_path / "set.tar", tarfile.PAX_FORMAT),
        *(shutil.make_archive(str(tmp_path / "a"), kind, folder.parent) for kind in ("zip", "gztar", "bztar", "xztar")),
        _stored(folder, tmp_path / "stored.zip"),
    ]
    for split in SPLITS:
        opened = [open_dataset(source, split, seed=3) for source in sources]
        first = opened[0]
        assert first.classes == ("cat", "dog", "größe")
        for other in opened[1:]:
            assert (other.classes, other.samples) == (first.classes, first.samples)
        i = int(rng.integers(len(first)))
        assert first.classes[first.samples[i].label] == first.samples[i].id.split("/")[0]
        expected = np.asarray(Image.open(folder / first.samples[i].id))
        for dataset in opened:
            assert dataset.read(i) == (folder / first.samples[i].id).read_bytes()
            np.testing.assert_array_equal(dataset.image(i), expected)
            assert dataset.size(i) == expected.shape[:2]


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Testing")])
def test_split_folders(tree, names):
    folder = tree("set", [f"{name}/{image}" for name in names for image in _images("a", "b")])
    for split, name in zip(SPLITS, names, strict=True):
        dataset = open_dataset(folder, split)
        assert _ids(dataset) == [f"{name}/{image}" for image in _images("a", "b")]
        assert dataset.provenance == f"{split}: the set's own {split} images"


def test_a_class_may_be_called_train(tree):
    folder = tree("vehicles", _images("train", "car", each=10))
    assert open_dataset(folder, "train").classes == ("car", "train")
    assert len(open_dataset(folder, "train")) == 12


def test_nested_hidden_and_foreign_files(tree, picture):
    others = {
        "cat/.DS_Store": b"x",
        "cat/._0.png": b"x",
        ".git/cat/0.png": picture(),
        "__MACOSX/cat/0.png": picture(),
        "cat/notes.txt": b"text",
        "README": b"text",
        "cat/misnamed.jpg": picture(kind="PNG"),
        "cat/no_ending": picture(kind="JPEG"),
    }
    folder = tree("set", [*_images("cat", "dog"), "dog/more/deep/9.png"], others)
    found = {i for split in SPLITS for i in _ids(open_dataset(folder, split))}
    assert found == {*_images("cat", "dog"), "dog/more/deep/9.png", "cat/misnamed.jpg", "cat/no_ending"}
    dataset = open_dataset(folder, "train")
    assert "left out, as they are no images: README, cat/notes.txt" in dataset.provenance
    for index in range(len(dataset)):
        assert dataset.image(index).shape == (24, 32, 3)


@pytest.mark.parametrize("inside", ["", "images/", "test/"])
def test_an_unlabeled_test_folder_is_said_and_not_used(tree, inside):
    folder = tree("set", [f"train/{i}" for i in _images("a", "b")] + [f"test/{inside}{i}.png" for i in (1, 2)])
    dataset = open_dataset(folder, "test")
    assert all(i.startswith("train/") for i in _ids(dataset))
    assert "2 images in test/ have no class folder, so no label: not used" in dataset.provenance
    assert "held out of the training images" in dataset.provenance


def test_a_class_that_val_lacks_is_said(tree):
    folder = tree("set", [f"train/{i}" for i in _images("a", "b", "c")] + ["val/a/1.png", "val/c/1.png"])
    dataset = open_dataset(folder, "val")
    assert [s.label for s in dataset.samples] == [0, 2]
    assert "val has no image of 1 classes (b)" in dataset.provenance


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["1.png", "cat/1.png", "dog/1.png"], "1.png: this image lies in no class folder"),
        (["1.png", "2.png"], "lies in no class folder"),
        (_images("cat"), "holds one class only"),
        ([], "holds no files; expected a folder or archive of labeled images"),
        ([f"train/{i}" for i in _images("a", "b")] + ["val/c/1.png"], "val has classes that train lacks: c"),
        (["cat/1.png", "dog/1.png", "dog/2.png"], "class cat: has 1 images, too few to hold some out"),
    ],
)
def test_what_is_no_data_set_is_said_in_one_line(tree, images, message):
    folder = tree("set", images)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        open_dataset(folder, "train")
    assert "\n" not in str(caught.value)
    assert "set" in str(caught.value)


def test_sources_that_are_nothing(tree, tmp_path, rng):
    def refused(path, message):
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            open_dataset(path, "train")
        assert str(path) in str(caught.value)

    refused(tmp_path / "nothing", "no such folder or archive")
    refused(tree("text", [], {"a.txt": b"text", "b/c.txt": b"text"}), "holds no images")
    (tmp_path / "noise.tar").write_bytes(rng.bytes(4000))
    refused(tmp_path / "noise.tar", "is not a tar file")
    (tmp_path / "empty.tar").write_bytes(b"")
    refused(tmp_path / "empty.tar", "is not a tar file")
    (tmp_path / "set.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + rng.bytes(4000))
    refused(tmp_path / "set.7z", "is compressed (7z)")
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04" + rng.bytes(4000))
    refused(tmp_path / "set.zip", "is a damaged zip file")
    (tmp_path / "set.tgz").write_bytes(gzip.compress(rng.bytes(40000))[:-2000])
    refused(tmp_path / "set.tgz", "cannot be unpacked")
    (tmp_path / "noise.gz").write_bytes(gzip.compress(rng.bytes(40000)))
    refused(tmp_path / "noise.gz", "is not a tar file")


def test_wrong_words(tree):
    folder = tree("set", _images("a", "b"))
    for words, message in [
        ({"split": "dev"}, "split 'dev': expected one of train, val, test"),
        ({"split": "val", "reader": "imagenet"}, "reader 'imagenet': expected one of"),
        ({"split": "val", "on_bad_image": "ignore"}, "on_bad_image 'ignore': expected error or skip"),
        ({"split": "val", "reader": "tiny-imagenet"}, "has no wnids.txt"),
    ]:
        with pytest.raises(UserError, match=re.escape(message)):
            open_dataset(folder, **words)


def test_a_damaged_image_and_a_broken_link_are_named_when_read(tree):
    folder = tree("set", _images("a", "b"), {"a/0.png": b"nonsense"})
    (folder / "a/1.png").unlink()
    (folder / "a/1.png").symlink_to(folder / "nowhere.png")
    both = {}
    for split in SPLITS:
        dataset = open_dataset(folder, split)
        for index, sample in enumerate(dataset.samples):
            if sample.id in ("a/0.png", "a/1.png"):
                with pytest.raises(BadImageError) as caught:
                    dataset.image(index)
                both[sample.id] = str(caught.value)
    assert both["a/0.png"].startswith(f"{folder / 'a/0.png'}: not an image")
    assert both["a/1.png"].startswith(f"{folder / 'a/1.png'}: cannot be read")


def test_a_folder_that_links_to_itself_ends(tree):
    folder = tree("set", _images("a", "b"))
    (folder / "a/loop").symlink_to(folder / "a")
    assert sum(len(open_dataset(folder, split)) for split in SPLITS) == 10
