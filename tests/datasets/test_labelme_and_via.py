"""LabelMe's and VIA's files as these tools write them, and what is doubtful in them."""

import csv
import io
import json
import math

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.dataset import Box

NAMES = [f"{number:02d}" for number in range(16)]
CLASS = {name: ("cat", "dog")[number % 2] for number, name in enumerate(NAMES)}
PICTURES = [f"{name}.png" for name in NAMES]  # 24 x 32


def every(source, **options):
    """Return class or classes, and boxes, of every picture."""
    found = {}
    for split in ("train", "val", "test"):
        part = open_dataset(source, split, **options)
        for s in part.samples:
            classes = part.classes[s.label] if s.labels is None else tuple(part.classes[k] for k in s.labels)
            found[s.id.rpartition("/")[2][:-4]] = (classes, s.boxes)
    return found


def shape(label, points, kind="rectangle", group=None):
    return {"label": label, "points": points, "group_id": group, "description": "", "shape_type": kind, "flags": {}}


def labelme(shapes, picture, flags=None, size=(24, 32)):
    values = {"version": "5.4.1", "flags": flags or {}, "shapes": shapes, "imagePath": picture, "imageData": "iVBORw0"}
    return json.dumps({**values, "imageHeight": size[0], "imageWidth": size[1]}).encode()


SHAPES = {
    "rectangle": (shape("", [[20, 4], [2, 16]]), Box(2, 4, 20, 16)),  # drawn from right to left
    "polygon": (shape("", [[3, 5], [9, 2], [14, 11.5], [4, 7]], "polygon"), Box(3, 2, 14, 11.5)),
    "circle": (shape("", [[12, 10], [15, 14]], "circle"), Box(7, 5, 17, 15)),
    "linestrip": (shape("", [[1, 1], [5, 8], [2, 9]], "linestrip"), Box(1, 1, 5, 9)),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("folder", ["", "annotations/"])
def test_shapes_of_labelme_are_boxes(tree, kind, folder):
    drawn, box = SHAPES[kind]
    path = "..\\photos\\" if folder else ""
    files = {f"{folder}{n}.json": labelme([{**drawn, "label": CLASS[n]}], f"{path}{n}.png") for n in NAMES}
    source = tree("set", [f"{'photos/' if folder else ''}{name}" for name in PICTURES], files)
    assert every(source, boxes=True) == {n: (CLASS[n], (box,)) for n in NAMES}


def test_parts_of_a_group_are_one_object(tree):
    def shapes(name):
        parts = [shape("x", [[1, 1], [4, 4]], group=3), shape("x", [[20, 10], [30, 20]], "rectangle", 3)]
        alone = [shape(CLASS[name], [[0, 0], [15, 15]])]
        return [*({**part, "label": CLASS[name]} for part in parts), *alone, shape("far", [[0, 0], [9, 9]], group=3)]

    files = {f"{n}.json": labelme(shapes(n), f"{n}.png") for n in NAMES}
    wanted = {n: (CLASS[n], (Box(0, 0, 15, 15), Box(1, 1, 30, 20))) for n in NAMES}
    assert every(tree("set", PICTURES, files), boxes=True) == wanted


def test_flags_of_labelme_are_classes(tree):
    flags = {n: {"__ignore__": False, "cat": CLASS[n] == "cat", "dog": CLASS[n] == "dog"} for n in NAMES}
    files = {f"{n}.json": labelme([], f"{n}.png", flags[n]) for n in NAMES}
    assert every(tree("one", PICTURES, files)) == {n: (CLASS[n], ()) for n in NAMES}
    files["03.json"] = labelme([], "03.png", {"cat": True, "dog": True})
    files["04.json"] = labelme([], "04.png", {"cat": False, "dog": False})
    found = every(tree("several", PICTURES, files))
    assert (found["03"], found["04"], found["05"]) == ((("cat", "dog"), ()), ((), ()), (("dog",), ()))


def test_troubles_of_labelme_are_named(tree):
    files = {f"{n}.json": labelme([shape(CLASS[n], [[1, 2], [9, 8]])], f"{n}.png") for n in NAMES}
    files["00.json"] = labelme([shape("cat", [[1, 2], [9, 8]])], "another.jpg")  # renamed since: found by its own name
    files["01.json"] = labelme([shape("dog", [[1, 2], [9, 8]])], "02.png")  # a copy whose imagePath was left
    files["06.json"] = labelme([shape("cat", [[1, 2], [9, 8]])], "06.png", size=(48, 64))
    files["07.json"] = labelme([shape("dog", [[5, 5]], "point")], "07.png")
    files["gone.json"] = labelme([shape("dog", [[1, 2], [9, 8]])], "gone.png")
    source = tree("set", PICTURES, files)
    parts = [open_dataset(source, split, boxes=True) for split in ("train", "val", "test")]
    assert {s.id[:2]: part.classes[s.label] for part in parts for s in part.samples} == CLASS
    said = parts[0].provenance
    assert "1 files name a picture that is another file's: the one called as they are counts: 01.json (02.png)" in said
    assert "1 pictures that are named are not there, or not there once: gone.png" in said
    assert {str(error).partition("set/")[2] for part in parts for error in part.bad_boxes} == {
        "06.json, 06.png: drawn on 64 x 48 pixels, the image has 32 x 24",
        "07.json, 07.png: box 5 5 5 5 has no area",
    }
    broken = tree(
        "broken", PICTURES, {"x.json": b'{"version": "5", "shapes": [{"points": []}], "imagePath": "00.png"}'}
    )
    with pytest.raises(UserError, match=r"x.json: is not as LabelMe writes it \(KeyError: 'label'\)"):
        open_dataset(broken, "train")


def via(name, regions, about=None):
    return {"filename": name, "size": 1234, "regions": regions, "file_attributes": about or {}}


def region(shape, **about):
    return {"shape_attributes": shape, "region_attributes": about}


RECT = {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 8}


def project(entries, kind):
    metadata = {f"{e['filename']}{e['size']}": e for e in entries}
    if kind == "export of VIA 1":
        metadata = {key: {**e, "regions": dict(enumerate(e["regions"]))} for key, e in metadata.items()}
    if kind == "project":
        about = {"_via_settings": {"project": {"name": "x"}}, "_via_img_metadata": metadata}
        return "via_project.json", json.dumps({**about, "_via_attributes": {}, "_via_data_format_version": "2.0.10"})
    if kind != "CSV":
        return "via_region_data.json", json.dumps(metadata)
    file = io.StringIO()
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    rows = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
    file.write(f"{head}\n")
    for e in entries:
        for number, each in enumerate(e["regions"] or [{"shape_attributes": {}, "region_attributes": {}}]):
            cells = (json.dumps(e["file_attributes"]), len(e["regions"]), number, *map(json.dumps, each.values()))
            rows.writerow([e["filename"], e["size"], *cells])
    return "via_export.csv", file.getvalue()


@pytest.mark.parametrize("kind", ["project", "export", "export of VIA 1", "CSV"])
def test_regions_of_via_are_boxes(tree, kind):
    default = {"caption": "a pet", "public_domain": "no", "image_url": ""}
    entries = [via(f"{n}.png", [region(RECT, type=CLASS[n]), region(RECT, type="")], default) for n in NAMES[:-1]]
    name, content = project([*entries, via(PICTURES[-1], [])], kind)
    source = tree("set", [f"images/{p}" for p in PICTURES], {name: content.encode()})
    assert every(source, boxes=True) == {n: (CLASS[n], (Box(2, 3, 12, 11),)) for n in NAMES[:-1]}
    assert "1 pictures are named without a label: not used" in open_dataset(source, "train").provenance
    assert every(source, labels="several")[NAMES[-1]] == ((), ())


def rotated(rx, ry, theta):
    """Return the box around an ellipse at (15, 11), point by point."""
    t = np.linspace(0, 2 * np.pi, 100_001)
    x = 15 + rx * np.cos(t) * math.cos(theta) - ry * np.sin(t) * math.sin(theta)
    y = 11 + rx * np.cos(t) * math.sin(theta) + ry * np.sin(t) * math.cos(theta)
    return x.min(), y.min(), x.max(), y.max()


@pytest.mark.parametrize(
    ("shape", "edges"),
    [
        ({"name": "polygon", "all_points_x": [3, 9, 14], "all_points_y": [5, 2, 11]}, (3, 2, 14, 11)),
        ({"name": "polyline", "all_points_x": [3, 9], "all_points_y": [5, 2]}, (3, 2, 9, 5)),
        ({"name": "circle", "cx": 12, "cy": 10, "r": 5.5}, (6.5, 4.5, 17.5, 15.5)),
        ({"name": "ellipse", "cx": 15, "cy": 11, "rx": 8, "ry": 3}, (7, 8, 23, 14)),
        ({"name": "ellipse", "cx": 15, "cy": 11, "rx": 8, "ry": 3, "theta": 0.6}, rotated(8, 3, 0.6)),
    ],
)
def test_shapes_of_via(tree, shape, edges):
    name, content = project([via(f"{n}.png", [region(shape, label=CLASS[n])]) for n in NAMES], "project")
    found = every(tree("set", PICTURES, {name: content.encode()}), boxes=True)
    for n in NAMES:
        assert found[n][0] == CLASS[n]
        [box] = found[n][1]
        assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(edges, abs=1e-6)


def test_boxes_that_are_ticked_and_files_attributes(tree):
    ticked = [via(f"{n}.png", [region(RECT, kind={CLASS[n]: True, "wet": True, "old": False})]) for n in NAMES]
    source = tree("ticked", PICTURES, {"x.json": project(ticked, "export")[1].encode()})
    assert every(source, labels="several")["00"] == (("cat", "wet"), ())
    of_files = [via(f"{n}.png", [], {"caption": "x", "animal": CLASS[n]}) for n in NAMES]
    assert every(tree("files", PICTURES, {"x.json": project(of_files, "project")[1].encode()})) == {
        n: (CLASS[n], ()) for n in NAMES
    }


def test_what_is_not_clear_in_via_is_asked_back(tree):
    two = [via(f"{n}.png", [region(RECT, animal=CLASS[n], color="red" if n < "08" else "tan")]) for n in NAMES]
    source = tree("two", PICTURES, {"x.json": project(two, "export")[1].encode()})
    with pytest.raises(
        UserError, match=r"attributes animal, color may each be the class; say which: --reader via:x.json:ATTR"
    ):
        open_dataset(source, "train")
    assert {classes for classes, _ in every(source, reader="via::color").values()} == {"red", "tan"}
    named = [via(f"{n}.png", [region(RECT, name=CLASS[n], id=n)]) for n in NAMES]
    files = {kind: project(named, kind) for kind in ("project", "export")}
    both = tree("both", PICTURES, {name: content.encode() for name, content in files.values()})
    with pytest.raises(UserError, match=r"are for the same pictures; say which: --reader via:via_project\.json"):
        open_dataset(both, "train")
    assert {n: c for n, (c, _) in every(both, reader="via:via_project.json").items()} == CLASS
    none = tree(
        "none", PICTURES, {"x.json": project([via(f"{n}.png", [region(RECT)]) for n in NAMES], "export")[1].encode()}
    )
    with pytest.raises(UserError, match="no region or file has an attribute with a value"):
        open_dataset(none, "train")
    with pytest.raises(UserError, match=r"has no y\.json; it has x\.json"):
        open_dataset(none, "train", reader="via:y.json")


def test_splits_in_folders_of_via(tree):
    files, pictures = {}, []
    for split, names in (("train", NAMES[:8]), ("val", NAMES[8:])):
        entries = [via(f"{n}.png", [region(RECT, name=CLASS[n])]) for n in names]
        files[f"{split}/via_region_data.json"] = project(entries, "export")[1].encode()
        pictures += [f"{split}/{n}.png" for n in names]
    source = tree("set", pictures, files)
    assert {s.id for s in open_dataset(source, "val").samples} == set(pictures[8:])
