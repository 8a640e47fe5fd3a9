"""All images of a set at once: splits, duplicates, parts of pictures."""

import shutil

import numpy as np
import pytest

from verydeep.basics.errors import BadImageError
from verydeep.datasets import scenes
from verydeep.datasets.dataset import Box
from verydeep.datasets.opening import Reading
from verydeep.transfer.data import as_dataset, in_boxes, read_data
from verydeep.transfer.protocols import PROTOCOLS, Split

FOLDER = PROTOCOLS["folder"]


def test_a_folder_has_every_image_once_in_the_splits_of_training(colors):
    found = read_data(str(colors), FOLDER, Reading())
    assert found.classes == ("blue", "green", "red")
    assert len(found.ids) == len(set(found.ids)) == 48
    assert {name: len(part) for name, part in found.own.items()} == {"train": 31, "val": 8, "test": 9}
    assert all(found.classes[label] == name.split("/")[0] for name, label in zip(found.ids, found.labels, strict=True))
    assert (found.targets.sum(axis=1) == -1).all()


def test_the_embedded_scenes(monkeypatch):
    for split in ("train", "val", "test"):
        monkeypatch.setitem(scenes.COUNTS, split, 14)
    found = read_data("scenes", FOLDER, Reading())
    assert len(found.ids) == len(set(found.ids)) == 42
    assert len(set(found.hashes)) == 42


def test_duplicates_are_found_by_content(colors):
    shutil.copy(colors / "red" / "00.png", colors / "blue" / "copy.png")
    found = read_data(str(colors), FOLDER, Reading())
    place = {name: i for i, name in enumerate(found.ids)}
    one, other = place["red/00.png"], place["blue/copy.png"]
    rest = np.setdiff1d(np.arange(len(found.ids)), [one, other])
    across = found.duplicates(Split("s", np.append(rest[:20], one), rest[20:30], np.append(rest[30:], other)))
    assert across == {"split": "s", "test_images": 1, "examples": [["blue/copy.png", "red/00.png"]]}
    within = Split("s", np.append(rest[:20], [one, other]), rest[20:30], rest[30:])
    assert found.duplicates(within)["test_images"] == 0


def test_a_box_cuts_its_part_out(rng):
    picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    whole = as_dataset([picture, picture])
    boxes = in_boxes(whole, [Box(2, 3, 12, 9), Box(-5, 10, 100, 100)])
    np.testing.assert_array_equal(boxes.image(0), picture[3:9, 2:12])
    np.testing.assert_array_equal(boxes.image(1), picture[10:])
    assert [boxes.size(i) for i in (0, 1)] == [(6, 10), (10, 30)]
    assert boxes.content_hash(0) != boxes.content_hash(1)
    np.testing.assert_array_equal(boxes.subset([1]).image(0), boxes.image(1))
    with pytest.raises(BadImageError, match="holds no pixel"):
        in_boxes(whole, [Box(40, 3, 50, 9), Box(0, 0, 1, 1)]).image(0)
