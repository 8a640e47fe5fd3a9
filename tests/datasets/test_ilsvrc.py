"""Tiny ILSVRC trees and archives in each of their forms: the same images, classes and labels."""

import io
import re
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.dataset import Box

WNIDS = ("n01440764", "n01443537", "n02119789", "n15075141")
# ILSVRC2012_ID counts in the devkit's own order, which is not the sorted one.
IDS = {"n02119789": 1, "n15075141": 2, "n01443537": 3, "n01440764": 4}
TRUTH = ("n15075141", "n01440764", "n02119789", "n02119789", "n01443537", "n15075141", "n01440764", "n01443537")
VAL = [f"ILSVRC2012_val_{i:08d}" for i in range(1, len(TRUTH) + 1)]
TRAIN = [(wnid, f"{wnid}_{i}.JPEG") for wnid in WNIDS for i in (7, 12, 103)]


def _meta():
    """Write meta.mat as the devkit has it: a struct array with words, numbers and matrices, more than 1,000 synsets."""
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
    rows = [(i, wnid, f"words of {wnid}, more", "gloss", 0, np.zeros((1, 0))) for wnid, i in IDS.items()]
    rows.append((1001, "n00001740", "entity", "that which is", 2, np.array([[1, 2]])))
    file = io.BytesIO()
    savemat(file, {"synsets": np.array(rows, kind).reshape(-1, 1)})
    return file.getvalue()


def _ground_truth():
    return "".join(f"{IDS[wnid]}\n" for wnid in TRUTH).encode()


DEVKIT = "ILSVRC2012_devkit_t12"
SORTED = "".join(f"{name}.JPEG {WNIDS.index(wnid)}\n" for name, wnid in zip(VAL, TRUTH, strict=True)).encode()
KAGGLE = (
    "ImageId,PredictionString\n"
    + "".join(f"{name},{wnid} 1 2 30 20 {wnid} 3 4 9 9 \n" for name, wnid in zip(VAL, TRUTH, strict=True))
).encode()


def _tar(contents, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def pictures(picture):
    return {name: picture(kind="JPEG") for name in [*(name for _, name in TRAIN), *(f"{name}.JPEG" for name in VAL)]}


def _flat(pictures, train, val):
    files = {f"{train}/{wnid}/{name}": pictures[name] for wnid, name in TRAIN}
    return {**files, **{f"{val}/{name}.JPEG": pictures[f"{name}.JPEG"] for name in VAL}}


def _forms(pictures):
    devkit = {
        f"{DEVKIT}/data/meta.mat": _meta(),
        f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt": _ground_truth(),
    }
    folders = {f"train/{wnid}/{name}": pictures[name] for wnid, name in TRAIN}
    folders |= {f"val/{w}/{n}.JPEG": pictures[f"{n}.JPEG"] for n, w in zip(VAL, TRUTH, strict=True)}
    by_class = {w: _tar({n: pictures[n] for wnid, n in TRAIN if wnid == w}) for w in WNIDS}
    archives = {
        "ILSVRC2012_img_train.tar": _tar({f"{wnid}.tar": data for wnid, data in by_class.items()}),
        "ILSVRC2012_img_val.tar": _tar({f"{name}.JPEG": pictures[f"{name}.JPEG"] for name in VAL}),
    }
    kaggle = _flat(pictures, "ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val")
    numbers = "".join(f"{name} {i}\n" for i, name in enumerate(VAL, 1)).encode()
    flat = _flat(pictures, "train", "val")
    return {
        "archives": {**archives, f"{DEVKIT}.tar.gz": _tar(devkit, "w:gz")},
        "archives, devkit unpacked": {**archives, **devkit},
        "folders": folders,
        "flat, devkit": {**flat, **devkit},
        "flat, files of the devkit": {**flat, **{name.rpartition("/")[2]: data for name, data in devkit.items()}},
        "flat, list": {**flat, "val.txt": SORTED},
        "Kaggle": {
            **kaggle,
            "LOC_val_solution.csv": KAGGLE,
            "ILSVRC/ImageSets/CLS-LOC/val.txt": numbers,
            "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml": b"<annotation/>",
        },
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "form", list(_forms(dict.fromkeys([*(n for _, n in TRAIN), *(f"{v}.JPEG" for v in VAL)], b"")))
)
def test_every_form_is_the_same_set(tree, pack, tmp_path, pictures, form, packed):
    source = tree("imagenet", [], _forms(pictures)[form])
    if packed:
        source = pack(source, tmp_path / "imagenet.tar")
    # Few classes in folders could be any set: this reader has to be asked for.
    reader = "ilsvrc" if form == "folders" else None
    train, val, test = (open_dataset(source, split, reader=reader) for split in ("train", "val", "test"))
    assert train.name == "ilsvrc-2012-4"
    assert train.classes == val.classes == WNIDS
    expected = {name: WNIDS.index(wnid) for wnid, name in TRAIN}
    assert {s.id.rpartition("/")[2]: s.label for s in train.samples} == expected
    expected = {f"{name}.JPEG": WNIDS.index(wnid) for name, wnid in zip(VAL, TRUTH, strict=True)}
    assert {s.id.rpartition("/")[2]: s.label for s in val.samples} == expected
    assert test.samples == val.samples
    assert "val and test are the same images" in test.provenance
    for dataset in (train, val):
        for index, sample in enumerate(dataset.samples):
            assert dataset.read(index) == pictures[sample.id.rpartition("/")[2]]
            assert dataset.where(index).startswith(str(source))


def test_all_1000_classes_have_the_name_that_the_papers_figures_are_for(tree):
    wnids = [f"n{i:08d}" for i in range(1_000)]
    files = {f"train/{wnid}/{wnid}_1.JPEG": b"" for wnid in wnids}
    files |= {f"val/{wnid}/ILSVRC2012_val_{i:08d}.JPEG": b"" for i, wnid in enumerate(wnids, 1)}
    dataset = open_dataset(tree("set", [], files), "val")
    assert dataset.name == "ilsvrc-2012"
    assert [dataset.classes[sample.label] for sample in dataset.samples] == wnids


def test_the_training_archive_alone(tree, pictures, tmp_path):
    source = tree("set", [], _forms(pictures)["archives"]) / "ILSVRC2012_img_train.tar"
    splits = [open_dataset(source, split) for split in ("train", "val", "test")]
    assert [len(dataset) for dataset in splits] == [4, 4, 4]
    assert {s.id for d in splits for s in d.samples} == {f"{wnid}/{name}" for wnid, name in TRAIN}
    assert "held out of the training images" in splits[2].provenance


@pytest.mark.parametrize("in_folders", [False, True])
def test_the_val_folder_alone(tree, pictures, in_folders):
    """Its files are validation images by their names, not training images."""
    files = {"LOC_val_solution.csv": KAGGLE}
    for name, wnid in zip(VAL, TRUTH, strict=True):
        files[f"{wnid}/{name}.JPEG" if in_folders else f"{name}.JPEG"] = pictures[f"{name}.JPEG"]
    dataset = open_dataset(tree("alone", others=files), "val", reader="ilsvrc")
    found = {sample.id.rpartition("/")[2]: dataset.classes[sample.label] for sample in dataset.samples}
    assert found == {f"{name}.JPEG": wnid for name, wnid in zip(VAL, TRUTH, strict=True)}
    assert len(dataset) == len(VAL)


def test_other_sets_of_imagenet_classes_are_class_folders(tree, pictures):
    dataset = open_dataset(tree("imagenette", [], _forms(pictures)["folders"]), "val")
    assert dataset.name == "imagenette"


def test_val_images_without_labels_are_said_and_not_used(tree, pictures):
    source = tree("set", [], _flat(pictures, "train", "val"))
    dataset = open_dataset(source, "val", reader="ilsvrc")
    assert all(sample.id.startswith("train/") for sample in dataset.samples)
    assert "val images have no labels (LOC_val_solution.csv or val.txt or" in dataset.provenance


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"val.txt": SORTED.replace(b"03.JPEG 2", b"03.JPEG 4")}, "val.txt: line 3 is"),
        (
            {"val.txt": SORTED.partition(b"\n")[2]},
            "1 val images are not in the ground truth (val/ILSVRC2012_val_00000001",
        ),
        (
            {"LOC_val_solution.csv": KAGGLE.replace(b"n15075141", b"n00000001")},
            "val has classes that train lacks: n00000001",
        ),
        ({"LOC_val_solution.csv": b"ImageId\nx\n"}, "LOC_val_solution.csv: expected rows"),
        ({"ILSVRC2012_validation_ground_truth.txt": b"1\n2\n"}, "needs the devkit's meta.mat beside it"),
        (
            {"ILSVRC2012_validation_ground_truth.txt": b"1\n", "meta.mat": b"no matrix"},
            "the devkit's meta.mat and ILSVRC2012_validation_ground_truth.txt do not fit",
        ),
        (
            {"ILSVRC2012_validation_ground_truth.txt": b"999\n", "meta.mat": _meta()},
            "the devkit's meta.mat and ILSVRC2012_validation_ground_truth.txt do not fit",
        ),
        ({"ILSVRC2012_devkit_t12.tar.gz": b"\x1f\x8b\x08 no archive"}, "ILSVRC2012_devkit_t12.tar.gz: is damaged"),
    ],
)
def test_a_ground_truth_that_is_not_as_published(tree, pictures, files, message):
    source = tree("set", [], {**_flat(pictures, "train", "val"), **files})
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        open_dataset(source, "val")
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


def test_damaged_archives_and_none_at_all(tree, pictures):
    archives = _forms(pictures)["archives"]
    cut = {**archives, "ILSVRC2012_img_train.tar": archives["ILSVRC2012_img_train.tar"][:6000]}
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar: is cut short"):
        open_dataset(tree("cut", [], cut), "val")
    with pytest.raises(
        UserError, match=r"holds no ILSVRC images of two or more classes; expected ILSVRC2012_img_train"
    ):
        open_dataset(tree("other", ["a/1.png", "b/1.png"]), "val", reader="ilsvrc")


def _xml(wnid, *boxes):
    objects = "".join(
        f"<object><name>{wnid}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for a, b, c, d in boxes
    )
    return f"<annotation>{objects}</annotation>".encode()


@pytest.mark.parametrize("where", ["{}", "bbox/{}", "ILSVRC/Annotations/CLS-LOC/{}"])
def test_boxes_of_training_and_validation_images_count_from_pixel_0(tree, pictures, where):
    """As the challenge's archives unpack: Annotation/<wnid>/<image>.xml, val/<image>.xml; not every image has one."""
    annotated = TRAIN[::2]
    boxes = {where.format(f"Annotation/{w}/{n[:-5]}.xml"): _xml(w, (0, 1, 9, 11), (3, 3, 31, 23)) for w, n in annotated}
    boxes |= {
        where.format(f"val/{n}.xml"): _xml(w, (2, 0, i, 5)) for i, (n, w) in enumerate(zip(VAL, TRUTH, strict=True), 4)
    }
    source = tree("imagenet", [], {**_forms(pictures)["flat, devkit"], **boxes})
    train, val = (open_dataset(source, split, boxes=True) for split in ("train", "val"))
    assert train.bad_boxes == val.bad_boxes == ()
    names = {name for _, name in annotated}
    for sample in train.samples:
        expected = (Box(0, 1, 10, 12), Box(3, 3, 32, 24)) if sample.id.rpartition("/")[2] in names else ()
        assert sample.boxes == expected
    for i, sample in enumerate(val.samples, 4):
        assert sample.boxes == (Box(2, 0, i + 1, 6),)


def test_boxes_of_another_class_and_of_missing_images_are_named(tree, pictures):
    boxes = {
        f"Annotation/{WNIDS[0]}/{WNIDS[0]}_7.xml": _xml(WNIDS[1], (0, 0, 5, 5)),
        f"Annotation/{WNIDS[1]}/{WNIDS[1]}_999.xml": _xml(WNIDS[1], (0, 0, 5, 5)),
        "Annotation/n00000001/n00000001_5.xml": _xml("n00000001", (0, 0, 5, 5)),  # of a class that is not here
    }
    source = tree("imagenet", [], {**_forms(pictures)["flat, devkit"], **boxes})
    reasons = {e.name.rpartition("/")[2]: e.reason for e in open_dataset(source, "train", boxes=True).bad_boxes}
    assert reasons == {
        f"{WNIDS[0]}_7.xml": f"has no object of its image's class {WNIDS[0]} ({WNIDS[1]} and so on)",
        f"{WNIDS[1]}_999.xml": "annotates an image that is not there",
    }
