"""Tables of labels as people have them: read by what their columns are called and hold, or asked back."""

import io
import json
import re

import pandas as pd
import pytest

from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.dataset import Box

NAMES = [f"{number:03d}" for number in range(20)]
BREED = dict(zip(NAMES, ["pug", "beagle"] * 10, strict=True))
PICTURES = [f"photos/{name}.png" for name in NAMES]


def labels(folder, **options):
    """Return every picture's class, whatever its split, with how it was opened."""
    parts = [open_dataset(folder, split, **options) for split in ("train", "val", "test")]
    return {s.id.rpartition("/")[2][:-4]: p.classes[s.label] for p in parts for s in p.samples}


def written(frame, kind):
    file = io.BytesIO()
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    elif kind == "json":
        frame.to_json(file, orient="records")
    else:
        frame.to_csv(file, index=False, sep={"csv": ",", "tsv": "\t", "txt": ";"}[kind])
    return file.getvalue()


FORMS = {
    "a path": {"path": PICTURES, "breed": list(BREED.values())},
    "a name": {"file_name": [f"{name}.png" for name in NAMES], "label": list(BREED.values())},
    "Kaggle's id without ending": {"id": NAMES, "Class": list(BREED.values()), "age": range(20)},
    "a path of another machine": {
        "filepath": [f"C:\\data\\set\\photos\\{name}.png" for name in NAMES],
        "category": list(BREED.values()),
    },
    "no name for the label": {"image": PICTURES, "xyz": list(BREED.values()), "width": range(100, 120)},
    "numbers beside names": {"img": PICTURES, "label": [0, 1] * 10, "label_name": list(BREED.values())},
    "a column for each class": {"image": PICTURES, "pug": [1, 0] * 10, "beagle": [0, 1] * 10},
    "numbers in front": {"n": range(20), "image": PICTURES, "label": list(BREED.values())},
}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "txt"])
@pytest.mark.parametrize("form", FORMS)
def test_columns_are_found(tree, kind, form):
    folder = tree("dogs", PICTURES, {f"labels.{kind}": written(pd.DataFrame(FORMS[form]), kind)})
    assert labels(folder) == BREED


@pytest.mark.parametrize("where", ["metadata.csv", "photos/metadata.csv", "photos/metadata.jsonl"])
def test_hugging_faces_metadata_stands_beside_the_pictures(tree, where):
    prefix = "" if "/" in where else "photos/"
    frame = pd.DataFrame({"file_name": [f"{prefix}{n}.png" for n in NAMES], "breed": list(BREED.values())})
    assert labels(tree("dogs", PICTURES, {where: written(frame, where.rpartition(".")[2])})) == BREED


def test_hugging_faces_objects(tree):
    rows = [
        {"file_name": f"{n}.png", "objects": {"bbox": [[1, 2, 10, 5], [0, 0, 2, 2]], "categories": [BREED[n], "cat"]}}
        for n in NAMES
    ]
    folder = tree("dogs", PICTURES, {"photos/metadata.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    train = open_dataset(folder, "train", boxes=True)
    assert labels(folder) == BREED
    assert {sample.boxes for sample in train.samples} == {(Box(1, 2, 11, 7),)}


def test_caffes_list_and_csv_without_names(tree):
    lines = "".join(f"photos/{name}.png {int(BREED[name] == 'pug')}\n" for name in NAMES)
    numbers = {name: str(int(breed == "pug")) for name, breed in BREED.items()}
    assert labels(tree("a", PICTURES, {"train.txt": lines.encode()})) == numbers
    assert labels(tree("b", PICTURES, {"x.csv": lines.replace(" ", ",").encode()})) == numbers
    assert labels(tree("c", PICTURES, {"x.json": json.dumps({f"{n}.png": BREED[n] for n in NAMES}).encode()})) == BREED


def test_splits_of_files_columns_and_folders(tree):
    def table(names):
        return written(pd.DataFrame({"id": names, "label": [BREED[n] for n in names]}), "csv")

    both = [f"{split}_images/{name}.png" for split in ("train", "test") for name in NAMES]
    kaggle = tree("kaggle", both, {"train.csv": table(NAMES), "sample_submission.csv": table(NAMES)})
    assert labels(kaggle) == BREED
    every = [open_dataset(kaggle, split) for split in ("train", "val", "test")]
    assert all(s.id.startswith("train_images") for part in every for s in part.samples)
    assert "20 pictures have no label: not used" in every[0].provenance
    files = tree(
        "files",
        PICTURES,
        {"train.csv": table(NAMES[:12]), "val.csv": table(NAMES[12:16]), "test.csv": table(NAMES[16:])},
    )
    assert [len(open_dataset(files, split)) for split in ("train", "val", "test")] == [12, 4, 4]
    frame = pd.DataFrame(
        {"file": PICTURES, "label": list(BREED.values()), "Split": ["Train"] * 10 + ["valid"] * 6 + ["?"] * 4}
    )
    column = tree("column", PICTURES, {"x.csv": written(frame, "csv")})
    assert len(open_dataset(column, "val")) == 6
    assert "4 pictures are named without a label: not used" in open_dataset(column, "val").provenance
    leaking = tree("leaking", PICTURES, {"train.csv": table(NAMES), "test.csv": table(NAMES[:3])})
    with pytest.raises(UserError, match=r"000 is in .* what is tested must not be trained on"):
        open_dataset(leaking, "train")


def test_boxes_of_a_table(tree):
    frame = pd.DataFrame(
        {"filename": [f"{n}.png" for n in NAMES], "width": 32, "height": 24, "class": list(BREED.values())}
        | {"xmin": 3, "ymin": 4, "xmax": 30, "ymax": 20}
    )
    frame.loc[4, "xmax"] = 1
    frame.loc[5, "width"] = 64
    more = pd.DataFrame(
        {"filename": ["000.png"], "width": 32, "height": 24, "class": "cat"}
        | {"xmin": 0, "ymin": 0, "xmax": 4, "ymax": 4}
    )
    folder = tree("dogs", PICTURES, {"_annotations.csv": written(pd.concat([frame, more]), "csv")})
    parts = [open_dataset(folder, split, boxes=True) for split in ("train", "val", "test")]
    assert labels(folder) == BREED
    assert {s.boxes for p in parts for s in p.samples if s.boxes} == {(Box(3, 4, 30, 20),)}
    assert {str(error).partition(", ")[2] for p in parts for error in p.bad_boxes} == {
        "004.png: box 3 4 1 20 has no area",
        "005.png: drawn on 64 x 24 pixels, the image has 32 x 24",
    }


def test_boxes_that_are_shares_of_the_sides(tree):
    frame = pd.DataFrame({"ImageID": NAMES, "LabelName": list(BREED.values())})
    frame = frame.assign(XMin=0.25, XMax=1.0, YMin=0.0, YMax=0.5)
    train = open_dataset(tree("dogs", PICTURES, {"boxes.csv": written(frame, "csv")}), "train", boxes=True)
    assert {sample.boxes for sample in train.samples} == {(Box(8, 0, 32, 12),)}


REFUSED = {
    "two labels": ({"image": PICTURES, "breed": list(BREED.values()), "color": ["red", "tan", "tan", "red"] * 5}, None),
    "two columns": ({"image": PICTURES, "label": list(BREED.values()), "class": ["a"] * 7 + ["b"] * 13}, "may each be"),
    "two unnamed": ({"image": PICTURES, "xyz": list(BREED.values()), "uvw": ["a"] * 7 + ["b"] * 13}, ":COLUMN"),
    "no pictures": ({"image": [f"{n}x.png" for n in NAMES], "label": list(BREED.values())}, "lies in no class folder"),
    "one class": ({"image": PICTURES, "label": "pug"}, "one class only (pug)"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_ambiguous_is_asked_back(tree, form):
    columns, said = REFUSED[form]
    pictures = [name.replace("photos/", "") for name in PICTURES]
    folder = tree(
        "dogs", pictures, {"labels.csv": written(pd.DataFrame(columns).replace({"photos/": ""}, regex=True), "csv")}
    )
    if said is None:
        assert labels(folder) == BREED
        return
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        open_dataset(folder, "train")
    assert "\n" not in str(raised.value)


def test_columns_may_be_said(tree):
    frame = pd.DataFrame(
        {"image": PICTURES, "mask": PICTURES[::-1], "a": list(BREED.values()), "b": ["x"] * 7 + ["y"] * 13}
    )
    folder = tree("dogs", PICTURES, {"t.csv": written(frame, "csv"), "u.csv": written(frame, "csv")})
    assert labels(folder, reader="table:t.csv:image:a") == BREED
    assert set(labels(folder, reader="table:t.csv::b").values()) == {"x", "y"}
    with pytest.raises(UserError, match=r"t\.csv and u\.csv both have labels; say --reader table:t\.csv:image:a"):
        open_dataset(folder, "train", reader="table::image:a")
    for reader, said in (("table:v.csv", "has no table v.csv"), ("table:t.csv::c", "has no column c")):
        with pytest.raises(UserError, match=said):
            open_dataset(folder, "train", reader=reader)


def test_class_folders_and_a_table_must_mean_the_same(tree):
    pictures = [f"{BREED[name]}/{name}.png" for name in NAMES]

    def folder(name, **columns):
        frame = pd.DataFrame({"file": pictures, **columns})
        return tree(name, pictures, {"info.csv": written(frame, "csv")})

    assert labels(folder("same", label=[int(b == "pug") for b in BREED.values()])) == BREED
    assert labels(folder("other", age=range(20), color=["tan", "red"] * 10, sex=["m"] * 7 + ["f"] * 13)) == BREED
    other = folder("different", label=["m"] * 7 + ["f"] * 13)
    with pytest.raises(
        UserError, match=r"name different classes; say --reader table:info\.csv:file:label or --reader class-"
    ):
        open_dataset(other, "train")
    assert labels(other, reader="class-folders") == BREED
    assert set(labels(other, reader="table").values()) == {"m", "f"}


def test_tables_of_splits_are_read_where_folders_have_none(tree):
    pictures = [f"{BREED[name]}/{name}.png" for name in NAMES]
    frame = pd.DataFrame({"Path": pictures, "ClassId": [int(b == "pug") for b in BREED.values()]})
    tables = {"Train.csv": written(frame[:15], "csv"), "Test.csv": written(frame[15:], "csv")}
    assert [s.id for s in open_dataset(tree("set", pictures, tables), "test").samples] == sorted(pictures[15:])


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("labels.csv", b"image,label\n000.png,a\n001.png,b,c\n", "line 3 has 3 columns, expected 2"),
        ("labels.csv", "image,label\n000.png,\xe9\n".encode("latin-1"), "is not UTF-8 text"),
        ("labels.jsonl", b'{"image": "000.png", "label": "a"}\n{', "labels.jsonl: is damaged"),
        ("labels.parquet", b"PAR1xxxxPAR1", "labels.parquet: is damaged"),
    ],
)
def test_damaged_tables_are_named(tree, name, data, said):
    with pytest.raises(UserError, match=re.escape(said)):
        open_dataset(tree("dogs", [f"{n}.png" for n in NAMES], {name: data}), "train")
