"""What a survey says, against sizes and counts that are known; the contact sheet's pictures and boxes."""

import numpy as np
import pytest
from PIL import Image

from verydeep.datasets.contact_sheet import CAPTION, GAP, INK, PAPER, RED, TILE, choose, contact_sheet
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.datasets.storage import open_storage
from verydeep.datasets.survey import survey


@pytest.fixture
def mixed(tree, picture):
    """Six images of known sizes, one of them damaged."""
    sizes = {"train/a/1.png": (20, 30), "train/a/2.png": (50, 10), "train/b/1.png": (8, 9), "train/b/2.png": (40, 41)}
    others = {name: picture(*size) for name, size in sizes.items()}
    others |= {"train/a/3.png": b"text", "test/a/1.png": picture(100, 5), "test/b/1.png": picture(5, 7)}
    return tree("set", [], others)


def test_counts_sizes_and_damage(mixed):
    train, test = survey([_own(mixed, "train"), _own(mixed, "test")])
    assert train.per_class == (3, 2)
    assert (train.smallest, train.median, train.largest) == ((8, 9), (20, 30), (40, 41))
    assert [bad.name for bad in train.bad] == [str(mixed / "train/a/3.png")]
    assert (test.per_class, test.smallest, test.largest, test.bad) == ((1, 1), (5, 7), (100, 5), ())


def _own(folder, split):
    storage = open_storage(folder)
    names = sorted(name for name in storage.files if name.startswith(f"{split}/"))
    return Dataset("set", split, ("a", "b"), [Sample(n, "ab".index(n.split("/")[1])) for n in names], storage)


def test_images_of_two_splits_are_decoded_once(mixed, monkeypatch):
    decoded = []
    original = Dataset.image
    monkeypatch.setattr(Dataset, "image", lambda self, i: decoded.append(self.samples[i].id) or original(self, i))
    first, second = survey([_own(mixed, "train"), _own(mixed, "train")])
    assert sorted(decoded) == sorted(sample.id for sample in first.dataset.samples)
    assert first.per_class == second.per_class
    assert [str(bad) for bad in first.bad] == [str(bad) for bad in second.bad]


def test_nothing_but_damage(tree):
    folder = tree("set", [], {"train/a/1.png": b"", "train/b/1.png": b"text"})
    (found,) = survey([_own(folder, "train")])
    assert (found.smallest, found.median, found.largest, len(found.bad)) == (None, None, None, 2)


def test_a_sheet_shows_picture_box_and_name(tree):
    folder = tree("set", ["b/1.png"])
    (folder / "a").mkdir()
    Image.new("RGB", (60, 30), (0, 0, 200)).save(folder / "a/1.png")
    samples = [Sample("a/1.png", 0, (Box(15, 10, 30, 20),)), Sample("b/1.png", 1)]
    sheet = np.asarray(contact_sheet(Dataset("set", "train", ("a", "b" * 80), samples, open_storage(folder))))
    rows, columns = TILE + CAPTION + 2 * GAP, 12 * (TILE + GAP) + GAP
    assert sheet.shape == (rows, columns, 3)
    tile = sheet[GAP : GAP + TILE, GAP : GAP + TILE]
    blue = (tile == (0, 0, 200)).all(axis=2)
    red = (tile == RED).all(axis=2)
    picture = np.flatnonzero((blue | red).any(axis=1))
    assert (picture[0], picture[-1] + 1) == (TILE // 4, TILE * 3 // 4)  # 2:1, in the middle
    found = np.flatnonzero(red.any(axis=0)), np.flatnonzero(red.any(axis=1))
    scale = TILE / 60
    edges = [15 * scale, 30 * scale - 1, TILE / 4 + 10 * scale, TILE / 4 + 20 * scale - 1]
    np.testing.assert_allclose([found[0][0], found[0][-1], found[1][0], found[1][-1]], edges, atol=1)
    caption = sheet[GAP + TILE : GAP + TILE + CAPTION]
    dark = (caption.astype(int).sum(axis=2) < sum(PAPER) - (sum(PAPER) - sum(INK)) // 2).any(axis=0)
    assert dark[GAP : GAP + 20].any()
    assert dark[2 * GAP + TILE : 2 * (GAP + TILE)].any()
    assert not dark[2 * (GAP + TILE) :].any()  # the long name is cut


@pytest.mark.parametrize(("classes", "each", "columns"), [(2, 12, 12), (10, 9, 9), (20, 4, 12), (102, 1, 12)])
def test_classes_are_shown_evenly(tmp_path, classes, each, columns):
    samples = [Sample(f"{label}/{i}", label) for i in range(30) for label in range(classes)]
    chosen, wide = choose(Dataset("set", "train", tuple(map(str, range(classes))), samples, None))
    labels = [samples[index].label for index in chosen]
    shown = sorted(set(labels))
    assert (wide, len(shown)) == (columns, min(classes, 96))
    assert (shown[0], shown[-1]) == (0, classes - 1)
    assert labels == [label for label in shown for _ in range(each)]
    assert len(set(chosen)) == len(chosen)
