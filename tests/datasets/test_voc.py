"""PASCAL VOC: images with several classes, people with actions, and what may be wrong with the lists."""

import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Box
from verydeep.datasets.voc import read_voc

MAIN = {
    "cat_train": "000001  1\n000002 -1\n",
    "cat_val": "000003  0\n",
    "cat_test": "000004 -1\n000005  1\n",
    "dog_train": "000001 -1\n000002  1\n",
    "dog_val": "000003  1\n",
    "dog_test": "000004 -1\n000005  1\n",
}
ACTION = {
    "running_train": "2010_1 1  1\n2010_1 2 -1\n",
    "running_val": "2010_2 1 -1\n",
    "walking_train": "2010_1 1 -1\n2010_1 2  1\n",
    "walking_val": "2010_2 1  1\n",
    "other_train": "2010_1 1 -1\n2010_1 2 -1\n",
    "other_val": "2010_2 1 -1\n",
}
XML = """<annotation><object><name>person</name>
<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>20</xmax><ymax>22</ymax></bndbox>
</object><object><bndbox><xmin>5</xmin><ymin>1</ymin><xmax>32</xmax><ymax>24</ymax></bndbox></object></annotation>"""


def files(year, folder, lists, images):
    return (
        [f"VOC{year}/JPEGImages/{image}.jpg" for image in images],
        {f"VOC{year}/ImageSets/{folder}/{name}.txt": text.encode() for name, text in lists.items()},
    )


@pytest.fixture
def main(tree):
    images, others = files(2007, "Main", MAIN, [f"{i:06d}" for i in range(1, 6)])
    others |= {"VOC2007/ImageSets/Main/train.txt": b"000001\n000002\n"}
    return tree("VOCdevkit", images, others)


@pytest.fixture
def action(tree):
    images, others = files(2012, "Action", ACTION, ["2010_1", "2010_2"])
    others |= {f"VOC2012/Annotations/{name}.xml": XML.encode() for name in ("2010_1", "2010_2")}
    return tree("VOCdevkit", images, others)


def test_images_classes_and_splits(main, pack, tmp_path):
    for source in (main, main / "VOC2007", pack(main, tmp_path / "voc.tar")):
        found = read_voc(source, 2007)
        assert found.classes == ("cat", "dog")
        assert found.ids == tuple(f"{i:06d}" for i in range(1, 6))
        assert found.targets.tolist() == [[1, -1], [-1, 1], [0, 1], [-1, -1], [1, 1]]
        assert {name: part.tolist() for name, part in found.splits.items()} == {
            "train": [0, 1],
            "val": [2],
            "test": [3, 4],
        }
        assert found.dataset.image(0).shape == (24, 32, 3)
        assert found.boxes == ()


def test_people_and_their_boxes(action):
    found = read_voc(action, 2012, actions=True)
    assert found.classes == ("running", "walking")  # "other" is no action that is scored
    assert found.ids == ("2010_1#1", "2010_1#2", "2010_2#1")
    assert found.targets.tolist() == [[1, -1], [-1, 1], [-1, 1]]
    # Counted from 1 and with the last pixel in it, a box (3, 2, 20, 22) covers columns 2...19 and rows 1...21.
    assert found.boxes[:2] == (Box(2, 1, 20, 22), Box(4, 0, 32, 24))
    assert "test" not in found.splits


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("cat_train", "000001 1\n", "000002: not in the train lists|listed twice, or in some"),
        ("cat_train", "000001 2\n", r"cat_train.txt, line 1: '000001 2'; expected image 1\|0\|-1"),
        ("cat_val", None, "cat_val.txt is missing"),
        ("dog_test", "000004 -1\n000009  1\n", "000009|listed images are missing"),
    ],
)
def test_lists_that_do_not_fit(main, file, text, said):
    path = main / f"VOC2007/ImageSets/Main/{file}.txt"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_voc(main, 2007)


def test_what_is_missing_is_named(main, tmp_path):
    with pytest.raises(UserError, match="no VOC2012 with its folder ImageSets"):
        read_voc(main, 2012)
    (main / "VOC2007/JPEGImages/000003.jpg").unlink()
    with pytest.raises(UserError, match=r"1 listed images are missing \(JPEGImages/000003\.jpg\)"):
        read_voc(main, 2007)
    with pytest.raises(UserError, match="no such folder"):
        read_voc(tmp_path / "nowhere", 2007)


def test_boxes_that_are_not_there(action):
    annotation = action / "VOC2012/Annotations/2010_1.xml"
    annotation.write_text("<annotation></annotation>")
    with pytest.raises(UserError, match=r"2010_1\.xml: holds no box of object 1"):
        read_voc(action, 2012, actions=True)
    annotation.unlink()
    with pytest.raises(UserError, match=r"Annotations/2010_1\.xml is missing"):
        read_voc(action, 2012, actions=True)
