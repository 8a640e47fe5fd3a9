"""Nothing is computed twice: not after a stop, not for equal pictures, not for another command."""

import numpy as np
import pytest

from verydeep.transfer import store as module
from verydeep.transfer.data import as_dataset
from verydeep.transfer.store import Store


class Mean:
    """A part that counts what it is asked for; it fails at picture `bad`."""

    name, width = "mean color", 3

    def __init__(self, version=1, bad=None):
        self.identity = {"part": "mean", "version": version}
        self.bad, self.asked = bad, 0

    def rows(self, dataset):
        for i in reversed(range(len(dataset))):  # any order will do
            if dataset.samples[i].id == self.bad:
                raise RuntimeError("stopped here")
            self.asked += 1
            yield [i], dataset.image(i).mean(axis=(0, 1), dtype=np.float32)[None]


@pytest.fixture
def dataset(rng):
    return as_dataset([rng.integers(0, 256, (4, 5, 3), dtype=np.uint8) for _ in range(10)])


def keys_of(dataset):
    return [dataset.content_hash(i) for i in range(len(dataset))]


def wanted(dataset):
    return np.stack([picture.mean(axis=(0, 1), dtype=np.float32) for picture in dataset.pictures])


@pytest.mark.parametrize("kept", [True, False])
def test_rows_come_in_the_order_asked_for(dataset, tmp_path, kept, monkeypatch, rng):
    monkeypatch.setattr(module, "PIECE_BYTES", 3 * (16 + 12))  # three rows a piece
    store, part, keys = Store(tmp_path if kept else None), Mean(), keys_of(dataset)
    assert store.fill(part, dataset, keys) == 10
    order = rng.permutation(10)
    np.testing.assert_array_equal(store.read(part, [keys[i] for i in order]), wanted(dataset)[order])
    assert store.fill(part, dataset, keys) == 0
    assert part.asked == 10
    assert len(list(tmp_path.glob("*/*.npy"))) == (4 if kept else 0)


def test_a_stopped_extraction_continues(dataset, tmp_path):
    keys, stopped = keys_of(dataset), Mean(bad="4")
    with pytest.raises(RuntimeError, match="stopped here"):
        Store(tmp_path).fill(stopped, dataset, keys)
    assert stopped.asked == 5
    part = Mean()
    assert Store(tmp_path).fill(part, dataset, keys) == part.asked == 5
    np.testing.assert_array_equal(Store(tmp_path).read(part, keys), wanted(dataset))
    assert not list(tmp_path.glob("*/.*"))  # nothing half-written


def test_equal_pictures_are_computed_once_and_other_settings_apart(dataset, tmp_path):
    twice = as_dataset([*dataset.pictures, *dataset.pictures])
    part = Mean()
    store = Store(tmp_path)
    assert store.fill(part, twice, keys_of(twice)) == part.asked == 10
    np.testing.assert_array_equal(store.read(part, keys_of(twice)), np.tile(wanted(dataset), (2, 1)))
    assert Store(tmp_path).fill(Mean(version=2), dataset, keys_of(dataset)) == 10


def test_a_hash_that_ends_in_zeros_is_itself(tmp_path):
    dataset = as_dataset([np.full((2, 2, 3), i, np.uint8) for i in range(3)])
    keys = [b"a" * 16, b"a" * 12 + b"\0" * 4, b"\0" * 16]
    Store(tmp_path).fill(Mean(), dataset, keys)
    np.testing.assert_array_equal(Store(tmp_path).read(Mean(), keys)[:, 0], [0, 1, 2])
