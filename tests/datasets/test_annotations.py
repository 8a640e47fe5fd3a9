"""Boxes in XML, of every reader that has them: what is good is read, what is bad is named."""

import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from verydeep.basics.errors import BadBoxError, UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.annotations import make_box, parse_objects
from verydeep.datasets.boxes import outside, sizes, with_boxes
from verydeep.datasets.dataset import Box
from verydeep.images.decode import decode

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def xml(*objects):
    return f"<annotation><size/>{''.join(OBJECT.format(*o) for o in objects)}</annotation>".encode()


def test_a_box_is_kept_by_its_edges_whatever_the_first_pixels_number():
    assert make_box(["1", "1", "64", "48"], 1, "a") == Box(0, 0, 64, 48)
    assert make_box(["0", "0", "63", "47"], 0, "a") == Box(0, 0, 64, 48)
    assert make_box(["5", "6", "5", "6"], 0, "a") == Box(5, 6, 6, 7)  # one pixel


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ("3 1 2 9", "box 3 1 2 9 has xmax 2 below xmin 3"),
        ("1 9 2 3", "box 1 9 2 3 has ymax 3 below ymin 9"),
        ("1 2 nan 4", "box 1 2 nan 4 is not finite"),
        ("1 2 inf 4", "box 1 2 inf 4 is not finite"),
        ("1 2 three 4", "1 2 three 4 is no box of four numbers"),
    ],
)
def test_bad_boxes_name_file_and_value(edges, said):
    with pytest.raises(BadBoxError) as raised:
        make_box(edges.split(), 1, "dir/a.xml")
    assert str(raised.value) == f"dir/a.xml: {said}"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<annotation><object>", "is no valid XML"),
        (b"", "is no valid XML"),
        (b"<annotation><object><name>x</name></object></annotation>", "an object without bndbox"),
        (OBJECT.format("x", 1, 2, 3, 4).replace("<ymax>4</ymax>", "").encode(), "an object without bndbox"),
    ],
)
def test_bad_files_are_named(data, said):
    with pytest.raises(BadBoxError, match=f"a.xml: .*{said}") as raised:
        parse_objects(data, "a.xml")
    assert "\n" not in str(raised.value)


def test_objects_are_read_in_order():
    data = xml(("cat", 1, 2, 3, 4), (" dog\n", "5", "6.5", "7", "8"))
    assert parse_objects(data, "a") == [("cat", ["1", "2", "3", "4"]), ("dog", ["5", "6.5", "7", "8"])]


@pytest.fixture
def folders(tree):
    """Two classes of ten pictures of 24 x 32 pixels, a good box beside each, but for what is changed."""

    def make(changes=None, others=None):
        images = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)]
        files = {image.replace("png", "xml"): xml((image[:3], 1, 2, 20, 12)) for image in images}
        files |= changes or {}
        return tree("pets", images, {**{n: d for n, d in files.items() if d is not None}, **(others or {})})

    return make


def test_folders_of_classes_with_a_file_beside_each_image(folders):
    source = folders({"cat/3.xml": xml(("cat", 1, 1, 9, 9), ("dog", 2, 2, 5, 5), ("cat", 11, 3, 30, 22))})
    every = [s for split in ("train", "val", "test") for s in open_dataset(source, split, boxes=True).samples]
    assert len(every) == 20
    for sample in every:
        several = (Box(0, 0, 9, 9), Box(10, 2, 30, 22))
        assert sample.boxes == (several if sample.id == "cat/3.png" else (Box(0, 1, 20, 12),))
    # Files are read only where boxes are asked for.
    assert not any(sample.boxes for sample in open_dataset(source, "train").samples)


def test_annotations_in_a_folder_of_their_own(tree):
    images = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)]
    files = {f"Annotations/{image.replace('png', 'xml')}": xml((image[:3], 1, 2, 20, 12)) for image in images}
    train = open_dataset(tree("pets", images, files), "train", boxes=True)
    assert all(sample.boxes == (Box(0, 1, 20, 12),) for sample in train.samples)
    assert train.classes == ("cat", "dog")


def test_everything_bad_is_listed_at_once_and_costs_no_image(folders):
    bad = {
        "cat/0.xml": xml(("cat", 9, 1, 3, 4)),
        "cat/1.xml": xml(("cat", "nan", 1, 3, 4)),
        "cat/2.xml": xml(),
        "cat/3.xml": xml(("sofa", 1, 1, 3, 4)),
        "dog/0.xml": b"<annotation>",
        "dog/77.xml": xml(("dog", 1, 1, 3, 4)),
        "dog/1.xml": xml(("dog", 1, 1, 33, 40)),
        "dog/2.xml": None,  # no box at all is no fault
    }
    source = folders(bad)
    datasets = [open_dataset(source, split, boxes=True) for split in ("train", "val", "test")]
    found = {str(error) for d in datasets for error in (*d.bad_boxes, *outside(d, sizes(d)))}
    assert found == {
        f"{source}/cat/0.xml: box 9 1 3 4 has xmax 3 below xmin 9",
        f"{source}/cat/1.xml: box nan 1 3 4 is not finite",
        f"{source}/cat/2.xml: has no objects",
        f"{source}/cat/3.xml: has no object of its image's class cat (sofa and so on)",
        f"{source}/dog/0.xml: is no valid XML (no element found: line 1, column 12)",
        f"{source}/dog/77.xml: annotates an image that is not there",
        f"{source}/dog/1.png: its box with edges 0 0 33 40 reaches out of the image of 32 x 24 pixels",
    }
    assert sum(map(len, datasets)) == 20
    assert all(math.isfinite(box.xmin) for d in datasets for s in d.samples for box in s.boxes)


def test_training_and_testing_refuse_bad_boxes_or_leave_their_images_out(folders):
    every = {f"{name}/{i}.xml" for name in ("cat", "dog") for i in range(10)}
    source = folders({name: xml((name[:3], 9, 1, 3, 4)) for name in every if "4" in name or "5" in name})
    train = open_dataset(source, "train", boxes=True)
    count = len(train.bad_boxes)
    assert count > 1
    said = re.escape(f"has xmax 3 below xmin 9 (and {count - 1} more; verydeep data show --boxes lists them)")
    with pytest.raises(UserError, match=said) as raised:
        with_boxes(train, skip_bad=False)
    assert "\n" not in str(raised.value)
    part, shapes = with_boxes(train, skip_bad=True)
    assert len(part) == len(shapes) == len(train) - count
    assert set(shapes) == {(24, 32)}
    assert all(sample.boxes for sample in part.samples)


def test_a_pixel_over_the_edge_is_cut_off(folders):
    source = folders({f"{name}/{i}.xml": xml((name, 0, 2, 33, 12)) for name in ("cat", "dog") for i in range(10)})
    part, _ = with_boxes(open_dataset(source, "train", boxes=True), skip_bad=False)
    assert {sample.boxes for sample in part.samples} == {(Box(0, 1, 32, 12),)}


def test_a_data_set_without_boxes_is_refused(tree):
    images = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)]
    with pytest.raises(UserError, match="none of 12 images has a box, so there is nothing to localize"):
        with_boxes(open_dataset(tree("pets", images), "train", boxes=True), skip_bad=False)


def test_boxes_belong_to_what_names_a_localizers_run(folders):
    one = open_dataset(folders(), "train", boxes=True)
    other = open_dataset(folders({"cat/3.xml": xml(("cat", 1, 2, 21, 12))}), "train", boxes=True)
    moved = [s for s in one.samples if s.id == "cat/3.png"]
    assert one.fingerprint() == other.fingerprint()
    assert (one.fingerprint(boxes=True) != other.fingerprint(boxes=True)) == bool(moved)
    assert one.fingerprint(boxes=True) != one.fingerprint()


def sized(height, width, *objects):
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return xml(*objects).replace(b"<size/>", size.encode())


def test_boxes_drawn_on_an_image_of_another_size_are_bad(folders):
    source = folders({"cat/3.xml": sized(48, 64, ("cat", 1, 1, 9, 9)), "dog/2.xml": sized(0, 0, ("dog", 1, 1, 9, 9))})
    parts = [open_dataset(source, split, boxes=True) for split in ("train", "val", "test")]
    assert [str(error) for part in parts for error in part.bad_boxes] == [
        f"{source}/cat/3.xml: drawn on 64 x 48 pixels, the image has 32 x 24"
    ]
    assert {s.id for part in parts for s in part.samples if not s.boxes} == {"cat/3.png"}


@pytest.fixture
def turned(tree, rng):
    """Pictures that EXIF turns, each with one object, and its box as it was drawn on what is stored or shown."""

    def make(orientation, drawn_on, square=False):
        files, marks = {}, {}
        for name in [f"{label}/{i}" for label in ("cat", "dog") for i in range(4)]:
            stored = np.zeros((24, 24 if square else 32, 3), np.uint8)
            top, left = rng.integers(0, 10, 2)
            stored[top : top + 5, left : left + 9] = 255
            exif = Image.Exif()
            exif[0x0112] = orientation
            file = io.BytesIO()
            Image.fromarray(stored).save(file, "PNG", exif=exif)
            files[f"{name}.png"] = file.getvalue()
            shown = decode(file.getvalue(), name)[..., 0] > 0
            rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
            marks[f"{name}.png"] = Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            box = marks[f"{name}.png"] if drawn_on == "shown" else Box(left, top, left + 9, top + 5)
            shape = shown.shape if drawn_on == "shown" else stored.shape[:2]
            files[f"{name}.xml"] = sized(*shape, (name[:3], box.xmin + 1, box.ymin + 1, box.xmax, box.ymax))
        return tree("pets", [], files), marks

    return make


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
def test_boxes_drawn_before_exif_turns_the_image_are_learned_only_when_put_right(turned, orientation, square, drawn_on):
    source, marks = turned(orientation, drawn_on, square)
    train = open_dataset(source, "train", boxes=True)
    sizes_tell = orientation >= 5 and not square
    if orientation == 1 or (sizes_tell and drawn_on == "shown"):
        assert not train.bad_boxes
        assert all(sample.boxes == (marks[sample.id],) for sample in train.samples)
    else:
        said = "drawn before the EXIF rotation" if sizes_tell else "--boxes-as-stored or --boxes-as-shown"
        assert len(train.bad_boxes) == len(train)
        assert all(said in error.reason for error in train.bad_boxes)
        with pytest.raises(UserError, match="--boxes-as-stored"):
            with_boxes(train, skip_bad=False)
    right = open_dataset(source, "train", boxes=True, boxes_as_stored=drawn_on == "stored")
    assert not right.bad_boxes
    assert all(sample.boxes == (marks[sample.id],) for sample in right.samples)
