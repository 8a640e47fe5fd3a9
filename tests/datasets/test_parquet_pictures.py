"""Pictures within Parquet files, written as Hugging Face's library writes them: its columns, types and description."""

import json
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verydeep.basics.errors import BadImageError, UserError
from verydeep.datasets import open_dataset, parquet_pictures
from verydeep.datasets.checking import decode_all
from verydeep.datasets.dataset import Box
from verydeep.images.decode import decode

SPLITS = ("train", "val", "test")
IMAGE = {"_type": "Image"}
CLASSES = ["zebra", "ant", "bee"]  # in no alphabetical order
LABEL = {"names": CLASSES, "_type": "ClassLabel"}


@pytest.fixture
def write(tmp_path):
    """Write a file: write(name, features, columns) -> its path; columns of pictures are bytes or None."""

    def make(name, features, columns, rows=100):
        arrays = {}
        for column, cells in columns.items():
            if features.get(column) == IMAGE:
                kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                pictures = [{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(cells)]
                arrays[column] = pa.array(pictures, kind)
            else:
                arrays[column] = pa.array(cells)
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(arrays).replace_schema_metadata(about), path, row_group_size=rows)
        return path

    return make


def numbered(picture, labels):
    return {"image": [picture(20 + i % 7, 24) for i in range(len(labels))], "label": labels}


FEATURES = {"image": IMAGE, "label": LABEL}


def test_shards_of_every_split_are_read_where_they_lie(write, picture, tmp_path):
    labels = {"train-00000-of-00002": [0, 1, 2] * 5, "train-00001-of-00002": [2, 1] * 4}
    labels |= {"validation-00000-of-00001": [0, 0, 1, 2], "test-00000-of-00001": [1, 2, 0, -1]}
    given = {}
    for name, numbers in labels.items():
        columns = numbered(picture, numbers)
        write(f"data/{name}.parquet", FEATURES, columns, rows=4)
        given |= {f"{name}/{row:06d}": data for row, data in enumerate(columns["image"])}
    (tmp_path / "set" / "README.md").write_text("---\nconfigs:\n---")
    parts = [open_dataset(tmp_path / "set", split) for split in SPLITS]
    assert [len(part) for part in parts] == [23, 4, 3]
    assert parts[0].classes == tuple(CLASSES)
    for part in parts:
        for index, sample in enumerate(part.samples):
            name = sample.id.removeprefix("data/")
            assert part.read(index) == given[name]
            assert sample.label == labels[name.partition("/")[0]][int(name[-6:])]
    assert "1 pictures are named without a label: not used" in parts[0].provenance
    assert parts[0].where(1).endswith("train-00000-of-00002.parquet, row 1")


@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_threads_read_each_its_picture(write, picture, tmp_path, rng, monkeypatch, kept):
    monkeypatch.setattr(parquet_pictures, "KEPT", kept)
    columns = numbered(picture, [0, 1, 2] * 20)
    write("train.parquet", FEATURES, columns, rows=7)
    part = open_dataset(tmp_path / "set", "train")
    order = rng.integers(0, len(part), 300).tolist()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(part.read, order))
    assert found == [columns["image"][int(part.samples[index].id[-6:])] for index in order]
    groups = part.storage.files[part.samples[0].id].shard.recent.groups
    assert len(groups) == 9 if kept else len(groups) <= 1


def test_lists_of_classes_are_several_labels(write, picture, tmp_path):
    features = {"image": IMAGE, "tags": {"feature": LABEL, "_type": "List"}}
    tags = [[0], [1, 2], [], [0, 2]] * 5
    write("x.parquet", features, {"image": [picture() for _ in tags], "tags": tags})
    parts = [open_dataset(tmp_path / "set", split) for split in SPLITS]
    found = {int(s.id[-6:]): s.labels for part in parts for s in part.samples}
    assert found == {row: tuple(own) for row, own in enumerate(tags)}


@pytest.mark.parametrize("form", ["lists in a struct", "structs in a list"])
def test_objects_are_boxes(write, picture, tmp_path, form):
    boxes, kinds = [[1.0, 2.0, 10.0, 5.0], [0.0, 0.0, 2.0, 2.0]], [[0, 1], [1, 0]] * 6
    if form == "lists in a struct":
        feature = {
            "bbox": {"_type": "List"},
            "category": {"feature": LABEL, "_type": "List"},
            "area": {"_type": "List"},
        }
        objects = [{"bbox": boxes, "category": own, "area": [50, 4]} for own in kinds]
    else:
        feature = {"feature": {"bbox": {"_type": "List"}, "category": LABEL}, "_type": "List"}
        objects = [[{"bbox": box, "category": k} for box, k in zip(boxes, own, strict=True)] for own in kinds]
    write("x.parquet", {"image": IMAGE, "objects": feature}, {"image": [picture() for _ in kinds], "objects": objects})
    part = open_dataset(tmp_path / "set", "train", boxes=True)
    assert {part.classes[s.label] == CLASSES[kinds[int(s.id[-6:])][0]] for s in part.samples} == {True}
    assert {s.boxes for s in part.samples} == {(Box(1, 2, 11, 7),)}


def test_two_kinds_of_classes_are_asked_back(write, picture, tmp_path):
    fine = {"names": ["a", "b", "c", "d"], "_type": "ClassLabel"}
    columns = {"img": [picture() for _ in range(24)], "fine_label": [0, 1, 2, 3] * 6, "coarse_label": [0, 0, 1, 1] * 6}
    write("train.parquet", {"img": IMAGE, "fine_label": fine, "coarse_label": LABEL}, columns)
    with pytest.raises(UserError, match="fine_label, coarse_label may each be its labels; say which: --reader table:"):
        open_dataset(tmp_path / "set", "train")
    part = open_dataset(tmp_path / "set", "train", reader="table:::coarse_label")
    assert {(int(s.id[-6:]) % 4 // 2, part.classes[s.label]) for s in part.samples} == {(0, "zebra"), (1, "ant")}


def test_configurations_beside_each_other_are_asked_back(write, picture, tmp_path):
    for config in ("color", "gray"):
        write(f"{config}/train-00000-of-00001.parquet", FEATURES, numbered(picture, [0, 1] * 6))
    with pytest.raises(UserError, match=r"same split, but no parts of one table; give the folder of one"):
        open_dataset(tmp_path / "set", "train")
    assert len(open_dataset(tmp_path / "set" / "color", "train")) == 8


def test_what_is_wrong_is_named(write, picture, tmp_path, pack):
    columns = numbered(picture, [0, 1] * 8)
    columns["image"][2], columns["image"][3] = None, b"no picture"
    path = write("train.parquet", FEATURES, columns)
    part = open_dataset(tmp_path / "set", "train", holdout=0.1)
    bad = [str(found) for found in decode_all(part) if isinstance(found, BadImageError)]
    assert [text.removeprefix(f"{path}, ").partition(":")[0] for text in bad] == ["row 2", "row 3"]
    assert "column image holds no picture, perhaps the path of one" in bad[0]
    good = open_dataset(tmp_path / "set", "train", holdout=0.1, on_bad_image="skip")
    assert len(good) == len(part) - 2
    with pytest.raises(UserError, match=r"holds pictures, which are read in a folder only; unpack the archive"):
        open_dataset(pack(tmp_path / "set", tmp_path / "set.tar"), "train")
    write("train.parquet", FEATURES, numbered(picture, [0, 1] * 9))
    part.storage.files[part.samples[0].id].shard.recent.groups.clear()
    with pytest.raises(BadImageError, match=r"row \d+: cannot be read \(the file has changed since it was opened\)"):
        part.read(0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"train.parquet: is damaged \(.*\); copy or download it again"):
        open_dataset(tmp_path / "set", "train")


def test_large_row_groups_are_said(write, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pictures, "LARGE_GROUP", 1000)
    write("train.parquet", FEATURES, numbered(picture, [0, 1] * 8))
    part = open_dataset(tmp_path / "set", "train")
    assert "write the files anew with 100 rows a group" in part.provenance
    assert decode(part.read(0), "x").shape[2] == 3


def test_a_row_group_that_no_memory_is_for_is_refused(write, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pictures, "MOST_GROUP", 1000)
    write("train.parquet", FEATURES, numbered(picture, [0, 1] * 8))
    with pytest.raises(UserError, match=r"train\.parquet: has a row group of .* write the file anew with 100 rows"):
        open_dataset(tmp_path / "set", "train")
