"""What annotation tools export: COCO, YOLO, Label Studio, CVAT, VOC, Roboflow; and WebDataset's tars."""

import io
import json
import re
import tarfile

import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset

NAMES = [f"{number:02d}" for number in range(16)]
CLASS = dict(zip(NAMES, ["cat", "dog"] * 8, strict=True))
EDGES = (4, 6, 20, 18)  # on pictures of 24 x 32 pixels
SMALL = (0, 0, 3, 3)  # of the other class, beside it
OTHER = {"cat": "dog", "dog": "cat"}


def coco(names, folder="", **changes):
    def box(xmin, ymin, xmax, ymax):
        return [xmin, ymin, xmax - xmin, ymax - ymin]

    ids = {"dog": 3, "cat": 7, "nothing": 0}
    images, marks = [], []
    for number, name in enumerate(names):
        images.append(
            {"id": number, "file_name": f"{folder}{name}.png", "height": 24, "width": 32} | changes.get(name, {})
        )
        for label, edges in ((OTHER[CLASS[name]], SMALL), (CLASS[name], EDGES)):
            marks.append({"image_id": number, "category_id": ids[label], "bbox": box(*edges), "iscrowd": 0})
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return json.dumps({"images": images, "annotations": marks, "categories": categories}).encode()


def yolo(name):
    def line(label, edges):
        x, y = (edges[0] + edges[2]) / 64, (edges[1] + edges[3]) / 48
        return f"{['dog', 'cat'].index(label)} {x} {y} {(edges[2] - edges[0]) / 32} {(edges[3] - edges[1]) / 24}\n"

    return (line(OTHER[CLASS[name]], SMALL) + line(CLASS[name], EDGES)).encode()


def voc(name):
    def entry(label, edges):
        sides = zip(("xmin", "ymin", "xmax", "ymax"), (edges[0] + 1, edges[1] + 1, *edges[2:]), strict=True)
        return f"<object><name>{label}</name><bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in sides)}</bndbox></object>"

    size = "<size><width>32</width><height>24</height></size>"
    return f"<annotation>{size}{entry(OTHER[CLASS[name]], SMALL)}{entry(CLASS[name], EDGES)}</annotation>".encode()


def cvat(names):
    def box(label, edges):
        return f'<box label="{label}" ' + 'xtl="{}" ytl="{}" xbr="{}" ybr="{}"/>'.format(*edges)

    size = 'width="32" height="24"'
    images = "".join(
        f'<image name="{n}.png" {size}>{box(OTHER[CLASS[n]], SMALL)}{box(CLASS[n], EDGES)}</image>' for n in names
    )
    return f"<?xml version='1.0'?><annotations><version>1.1</version>{images}</annotations>".encode()


def label_studio(names, minimal=False):
    def mark(label, edges):
        shares = {"x": edges[0] / 0.32, "y": edges[1] / 0.24, "rotation": 0, "rectanglelabels": [label]}
        value = shares | {"width": (edges[2] - edges[0]) / 0.32, "height": (edges[3] - edges[1]) / 0.24}
        size = {"original_width": 32, "original_height": 24}
        return value | size if minimal else {"type": "rectanglelabels", "value": value, **size}

    tasks = []
    for name in names:
        marks = [mark(OTHER[CLASS[name]], SMALL), mark(CLASS[name], EDGES)]
        path = f"/data/upload/3/1f2e3d4c-{name}.png"
        full = {"data": {"image": path}, "annotations": [{"was_cancelled": True, "result": []}, {"result": marks}]}
        tasks.append({"image": path, "label": marks, "annotator": 1} if minimal else full)
    return json.dumps(tasks).encode()


SETS = {
    "COCO": (
        NAMES,
        "images/",
        {"annotations/instances.json": coco(NAMES), "annotations/captions.json": b'{"images": []}'},
    ),
    "COCO with folders": (NAMES, "a/b/", {"x.json": coco(NAMES, "b/")}),
    "YOLO": (
        NAMES,
        "images/",
        {f"labels/{n}.txt": yolo(n) for n in NAMES} | {"data.yaml": b"nc: 2\nnames: ['dog', 'cat']\n"},
    ),
    "YOLO beside": (NAMES, "", {f"{n}.txt": yolo(n) for n in NAMES} | {"classes.txt": b"dog\ncat\n"}),
    "YOLO's mapping": (
        NAMES,
        "images/",
        {f"labels/{n}.txt": yolo(n) for n in NAMES} | {"d.yml": b"names:\n  0: dog\n  1: cat # x\nnc: 2"},
    ),
    "YOLO's list": (
        NAMES,
        "images/",
        {f"labels/{n}.txt": yolo(n) for n in NAMES} | {"d.yml": b"names:\n- dog\n- 'cat'\nnc: 2"},
    ),
    "VOC": (NAMES, "JPEGImages/", {f"Annotations/{n}.xml": voc(n) for n in NAMES}),
    "LabelImg": (NAMES, "images/", {f"annotations/{n}.xml": voc(n) for n in NAMES}),
    "XML beside": (NAMES, "", {f"{n}.xml": voc(n) for n in NAMES}),
    "CVAT": (NAMES, "images/", {"annotations.xml": cvat(NAMES)}),
    "Label Studio": (NAMES, "", {"project-1.json": label_studio(NAMES)}),
    "Label Studio, minimal": (NAMES, "up/", {"project-1.json": label_studio(NAMES, minimal=True)}),
}


@pytest.mark.parametrize("kind", SETS)
def test_classes_of_largest_objects_and_their_boxes(tree, picture, kind, pack, tmp_path):
    names, folder, files = SETS[kind]
    ending = "jpg" if kind == "VOC" else "png"
    files = {f"{folder}{name}.{ending}": picture() for name in names} | files
    source = tree("set", [], files)
    for path in (source, pack(source, tmp_path / "set.tar")):
        parts = [open_dataset(path, split, boxes=True) for split in ("train", "val", "test")]
        classes = ("dog", "cat") if "YOLO" in kind or "COCO" in kind else ("cat", "dog")
        assert {part.classes for part in parts} == {classes}
        assert {s.id.rpartition("/")[2][:-4]: classes[s.label] for p in parts for s in p.samples} == CLASS
        for sample in (sample for part in parts for sample in part.samples):
            (box,) = sample.boxes
            assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(EDGES)
        assert not any(part.bad_boxes for part in parts)


ROBOFLOW = {
    "COCO": lambda split, names: {f"{split}/_annotations.coco.json": coco(names)},
    "VOC": lambda split, names: {f"{split}/{name}.xml": voc(name) for name in names},
    "YOLO": lambda split, names: {f"{split}/labels/{name}.txt": yolo(name) for name in names},
    "classes": lambda split, names: {
        f"{split}/_classes.csv": "".join(
            ["filename, cat, dog\n", *(f"{n}.png, {int(CLASS[n] == 'cat')}, {int(CLASS[n] == 'dog')}\n" for n in names)]
        ).encode()
    },
}


@pytest.mark.parametrize("kind", ROBOFLOW)
def test_roboflows_folders_are_splits(tree, kind):
    share = {"train": NAMES[:8], "valid": NAMES[8:12], "test": NAMES[12:]}
    folder = "images/" if kind == "YOLO" else ""
    images = [f"{split}/{folder}{name}.png" for split, names in share.items() for name in names]
    files = {path: data for split, names in share.items() for path, data in ROBOFLOW[kind](split, names).items()}
    if kind == "YOLO":
        files["data.yaml"] = b"train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['dog', 'cat']\n"
    source = tree("set", images, files | {"README.roboflow.txt": b"x", "README.dataset.txt": b"y, z\n1, 2\n"})
    for split, names in zip(("train", "val", "test"), share.values(), strict=True):
        part = open_dataset(source, split)
        assert {s.id.rpartition("/")[2][:-4]: part.classes[s.label] for s in part.samples} == {
            n: CLASS[n] for n in names
        }


def test_cocos_own_folders(tree):
    images = [*(f"train2017/{n}.png" for n in NAMES[:10]), *(f"val2017/{n}.png" for n in NAMES[10:])]
    files = {
        "annotations/instances_train2017.json": coco(NAMES[:10]),
        "annotations/instances_val2017.json": coco(NAMES[10:]),
        "annotations/person_keypoints_val2017.json": coco(NAMES[10:]),
        "annotations/captions_val2017.json": b'{"info": {}, "images": [], "annotations": []}',
    }
    source = tree("coco", images, files)
    assert [sample.id for sample in open_dataset(source, "val").samples] == images[10:]
    assert len(open_dataset(source, "test")) == 2
    twice = tree("twice", images, {"a.json": coco(NAMES), "b.json": coco(NAMES)})
    with pytest.raises(
        UserError, match=r"a\.json, b\.json are for the same pictures; say which: --reader coco:a\.json"
    ):
        open_dataset(twice, "train")
    assert len(open_dataset(twice, "train", reader="coco:b.json").classes) == 2


def test_class_folders_name_what_yolos_text_numbers(tree):
    files = {f"{label}/{name}.txt": yolo(name) for name, label in CLASS.items()}
    source = tree("set", [f"{label}/{name}.png" for name, label in CLASS.items()], files)
    assert open_dataset(source, "train").classes == ("cat", "dog")
    (source / "classes.txt").write_text("Dog\nCat\n")
    assert open_dataset(source, "train").classes == ("Dog", "Cat")


def test_yolo_folders_that_only_the_yaml_knows(tree):
    images = [f"images/{'one' if n < NAMES[12] else 'two'}/{n}.png" for n in NAMES]
    files = {image.replace("images", "labels").replace("png", "txt"): yolo(image[-6:-4]) for image in images}
    source = tree(
        "set", images, files | {"x.yaml": b"path: ../set\ntrain: images/one # 12\nval: images/two\nnames: [dog, cat]"}
    )
    assert [sample.id for sample in open_dataset(source, "val").samples] == images[12:]


def test_boxes_of_another_size_and_bad_ones_are_named(tree):
    changes = {"01": {"width": 64, "height": 48}, "02": {"width": 0}}
    content = json.loads(coco(NAMES, **changes))
    content["annotations"][7]["bbox"] = [5, 5, 0, 3]
    source = tree("set", [f"{n}.png" for n in NAMES[:-1]], {"x.json": json.dumps(content).encode()})
    parts = [open_dataset(source, split, boxes=True) for split in ("train", "val", "test")]
    assert {str(error) for part in parts for error in part.bad_boxes} == {
        f"{source}/x.json, 01.png: drawn on 64 x 48 pixels, the image has 32 x 24",
        f"{source}/x.json, 03.png: box 5 5 5 8 has no area",
    }
    assert "1 pictures with a bad box are left out" in parts[0].provenance
    assert "1 pictures that are named are not there, or not there once: 15.png" in parts[0].provenance


@pytest.mark.parametrize("minimal", [False, True])
def test_choices_are_classes(tree, minimal):
    tasks = []
    for name, label in CLASS.items():
        path = f"/data/local-files/?d=pets%2F{name}.png"
        result = [{"type": "choices", "value": {"choices": [label]}}]
        full = {"data": {"image": path}, "annotations": [{"result": result}]}
        tasks.append({"image": path, "choice": label, "annotator": 1} if minimal else full)
    source = tree("set", [f"pets/{n}.png" for n in NAMES], {"x.json": json.dumps(tasks).encode()})
    part = open_dataset(source, "train")
    assert all(part.classes[s.label] == CLASS[s.id[-6:-4]] for s in part.samples)
    tasks[0] = {"image": path, "choice": {"choices": ["cat", "dog"]}, "annotator": 1}
    source = tree("several", [f"pets/{n}.png" for n in NAMES], {"x.json": json.dumps(tasks).encode()})
    with pytest.raises(UserError, match=r"has several labels \(cat, dog\), and --labels one allows one"):
        open_dataset(source, "train", labels="one")


def test_tags_of_cvat_are_classes_and_videos_are_refused(tree):
    images = "".join(f'<image name="{n}.png" subset="Train"><tag label="{CLASS[n]}"/></image>' for n in NAMES)
    source = tree(
        "set", [f"{n}.png" for n in NAMES], {"annotations.xml": f"<annotations>{images}</annotations>".encode()}
    )
    part = open_dataset(source, "train")
    assert all(part.classes[s.label] == CLASS[s.id[:2]] for s in part.samples)
    video = tree("video", [f"{n}.png" for n in NAMES], {"annotations.xml": b"<annotations><track/></annotations>"})
    with pytest.raises(UserError, match="annotates a video"):
        open_dataset(video, "train")


@pytest.mark.parametrize("kind", ["cls", "number", "json"])
def test_webdatasets_shards(tmp_path, picture, kind):
    (tmp_path / "set").mkdir()
    shards = {"train-000": NAMES[:6], "train-001": NAMES[6:11], "imagenet-val-000": NAMES[11:]}
    for shard, names in shards.items():
        with tarfile.open(tmp_path / f"set/{shard}.tar", "w") as archive:
            for name in names:
                label = CLASS[name] if kind == "cls" else str(["cat", "dog"].index(CLASS[name]))
                texts = {"json": json.dumps({"label": int(label), "width": 3})} if kind == "json" else {"cls": label}
                for ending, data in {"jpg": picture(kind="JPEG"), **{k: t.encode() for k, t in texts.items()}}.items():
                    info = tarfile.TarInfo(f"{name}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    if kind != "cls":
        (tmp_path / "set/classnames.txt").write_text("cat\ndog\n")
    train, val = (open_dataset(tmp_path / "set", split) for split in ("train", "val"))
    assert {s.id: val.classes[s.label] for s in val.samples} == {
        f"imagenet-val-000/{n}.jpg": CLASS[n] for n in NAMES[11:]
    }
    assert all(train.classes[s.label] == CLASS[s.id[-6:-4]] for s in train.samples)
    assert train.image(0).shape == (24, 32, 3)
    alone = open_dataset(tmp_path / "set/train-000.tar", "train")
    assert len(alone.classes) == 2


def test_webdatasets_lists_are_several_labels(tree, picture):
    labels = {name: [c for i, c in enumerate("abc") if int(name) >> i & 1] for name in NAMES}
    files = {f"{n}.json": json.dumps({"label": own}).encode() for n, own in labels.items()}
    source = tree("set", [f"{n}.png" for n in NAMES], files)
    parts = [open_dataset(source, split) for split in ("train", "val", "test")]
    assert {s.id[:2]: [part.classes[k] for k in s.labels] for part in parts for s in part.samples} == labels


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.json", b'{"images": [}', "x.json: is no JSON"),
        (
            "x.json",
            b'{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "is not as COCO writes it",
        ),
        (
            "x.json",
            b'{"images": [[]], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "is not as COCO writes it",
        ),
        ("x.json", b'[{"data": {}, "annotations": [{}]}]', "is not as Label Studio writes it"),
        (
            "x.json",
            b'[{"data": {"image": "00.png"}, "annotations": [{"result": [{}]}]}]',
            "is not as Label Studio writes it",
        ),
        ("x.xml", b"<annotations><image", "is no valid XML"),
        ("00.txt", b"0 0.5 0.5 0.2 0.2\nx", "no labels; "),
    ],
)
def test_damaged_files_are_named(tree, name, data, said):
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        open_dataset(tree("set", [f"{n}.png" for n in NAMES], {name: data}), "train")
    assert "\n" not in str(raised.value)
