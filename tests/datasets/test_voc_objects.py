"""PASCAL VOC as images of one class: its layout, largest objects, lists."""

import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.dataset import Box

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
SCENES = {
    "000001": [("cat", 1, 1, 8, 8), ("dog", 3, 3, 30, 20), ("dog", 1, 1, 4, 4)],
    "000002": [("cat", 2, 2, 20, 20)],
    "000003": [("dog", 1, 1, 32, 24), ("person", 2, 2, 3, 3)],
    "000004": [("cat", 5, 6, 7, 8)],
    "000006": [("cat", 1, 1, 9, 9)],
    "000007": [("dog", 1, 1, 9, 9)],
}


@pytest.fixture
def voc(tree, picture):
    def make(changes=None):
        files = {f"VOC2007/JPEGImages/{name}.jpg": picture(24, 32, "JPEG") for name in [*SCENES, "000005"]}
        for name, objects in SCENES.items():
            text = "".join(OBJECT.format(*o) for o in objects)
            files[f"VOC2007/Annotations/{name}.xml"] = f"<annotation>{text}</annotation>".encode()
        files["VOC2007/ImageSets/Main/train.txt"] = b"000001\n000002\n000006\n000007\n"
        files["VOC2007/ImageSets/Main/val.txt"] = b"000003 1\n000004 -1\n000005  0\n"
        files["VOC2007/ImageSets/Main/cat_train.txt"] = b"000001  1\n"
        files |= changes or {}
        return tree("voc", [], files)

    return make


def test_an_image_has_the_class_of_its_largest_object_and_all_boxes_of_it(voc, pack, tmp_path):
    source = voc()
    for path in (source, pack(source, tmp_path / "voc.tar")):
        train, val, test = (open_dataset(path, split, boxes=True) for split in ("train", "val", "test"))
        assert train.classes == ("cat", "dog")
        assert {sample.id.rpartition("/")[2] for sample in val.samples} == {"000003.jpg", "000004.jpg"}
        stem = {s.id.rpartition("/")[2]: s for s in (*train.samples, *val.samples, *test.samples)}
        assert {name: (train.classes[s.label], s.boxes) for name, s in stem.items()} == {
            "000001.jpg": ("dog", (Box(2, 2, 30, 20), Box(0, 0, 4, 4))),
            "000002.jpg": ("cat", (Box(1, 1, 20, 20),)),
            "000003.jpg": ("dog", (Box(0, 0, 32, 24),)),
            "000004.jpg": ("cat", (Box(4, 5, 7, 8),)),
            "000006.jpg": ("cat", (Box(0, 0, 9, 9),)),
            "000007.jpg": ("dog", (Box(0, 0, 9, 9),)),
        }


def test_bad_annotations_are_listed(voc):
    source = voc({"VOC2007/Annotations/000004.xml": b"<annotation/>", "VOC2007/Annotations/000005.xml": b"<annot"})
    dataset = open_dataset(source, "val", boxes=True)
    reasons = {error.name.rpartition("/")[2]: error.reason for error in dataset.bad_boxes}
    assert reasons["000004.xml"] == "has no objects"
    assert reasons["000005.xml"].startswith("is no valid XML")


def test_a_listed_image_must_be_there(voc):
    with pytest.raises(UserError, match=r"1 listed images are missing \(000009\)"):
        open_dataset(voc({"VOC2007/ImageSets/Main/val.txt": b"000003\n000009\n"}), "val")


def named(name, text):
    return f"<annotation><filename>{name}</filename>{text}</annotation>".encode()


def test_an_image_is_found_by_the_name_within_the_file_first(tree):
    dog, cat = (OBJECT.format(name, 1, 1, 9, 9) for name in ("dog", "cat"))
    pictures = [f"photo {i}.jpg" for i in range(12)]
    files = {f"labels/{i:04d}.xml": named(f"photo {i}.jpg", dog if i % 2 else cat) for i in range(12)}
    source = tree("set", pictures, files)
    parts = [open_dataset(source, split, boxes=True) for split in ("train", "val", "test")]
    found = {s.id: (part.classes[s.label], s.boxes) for part in parts for s in part.samples}
    assert found == {p: (("cat", "dog")[i % 2], (Box(0, 0, 9, 9),)) for i, p in enumerate(pictures)}
    assert not any(part.bad_boxes for part in parts)


def test_names_that_are_not_to_be_trusted_are_told(tree):
    dog, cat = (OBJECT.format(name, 1, 1, 9, 9) for name in ("dog", "cat"))
    files = {f"{i}.xml": named(f"{i}.png", dog if i % 2 else cat) for i in range(12)}
    files["1.xml"] = named("IMG_1.png", dog)  # renamed since
    files["3.xml"] = named("4.png", dog)  # copied, the name within left as it was
    files["old.xml"] = named("12.png", cat)
    files["13.xml"] = named("none.png", cat)
    files["14.xml"] = f"<annotation>{cat}</annotation>".encode()
    source = tree("set", [*(f"{i}.png" for i in range(13)), "old.png"], files)
    parts = [open_dataset(source, split, boxes=True) for split in ("train", "val", "test")]
    found = {s.id: part.classes[s.label] for part in parts for s in part.samples}
    assert found == {f"{i}.png": ("cat", "dog")[i % 2] for i in range(13)}
    said = parts[0].provenance
    assert "1 files name another picture than the one beside them, which counts: old.xml names 12.png" in said
    assert "1 files name a picture that is another file's: the one called as they are counts: 3.xml (4.png)" in said
    assert "1 pictures have no label: not used" in said
    assert {str(error).partition("set/")[2] for error in parts[0].bad_boxes} == {
        "13.xml: annotates none.png, an image that is not there; nor is one called as the file is",
        "14.xml: annotates an image that is not there",
    }
