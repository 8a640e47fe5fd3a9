"""Random splits and folds: sizes, no image twice, the same every time."""

import numpy as np
import pytest

from verydeep.basics.errors import UserError
from verydeep.transfer.protocols import PROTOCOLS, find_protocol, folds, random_splits

CLASSES = tuple("abc")


def labels_of(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def test_the_papers_numbers():
    caltech, larger = PROTOCOLS["caltech101"], PROTOCOLS["caltech256"]
    assert (caltech.train, caltech.test, caltech.splits, caltech.aggregate) == (30, 50, 3, "stack")
    assert (larger.train, larger.test, larger.splits) == (60, None, 3)
    assert PROTOCOLS["voc2007"].scales == (256, 384, 512, 640, 768)
    assert PROTOCOLS["voc2007"].eleven_point
    assert not PROTOCOLS["voc2012"].eleven_point


@pytest.mark.parametrize("name", ["caltech101", "caltech256"])
def test_random_splits_have_the_protocols_sizes(name, rng):
    protocol, counts = find_protocol(name), (61, 140, 75)
    labels = rng.permutation(labels_of(*counts))
    splits = random_splits(labels, CLASSES, protocol, seed=4)
    assert len(splits) == 3
    for split in splits:
        for k, count in enumerate(counts):
            sizes = [sum(labels[i] == k for i in part) for part in (split.train, split.validation, split.test)]
            held = protocol.train // 5
            assert sizes == [protocol.train - held, held, min(count - protocol.train, protocol.test or count)]
        every = np.concatenate([split.train, split.validation, split.test])
        assert len(set(every.tolist())) == len(every)
    assert not np.array_equal(splits[0].test, splits[1].test)
    again = random_splits(labels, CLASSES, protocol, seed=4)
    other = random_splits(labels, CLASSES, protocol, seed=5)
    assert all(np.array_equal(a.train, b.train) for a, b in zip(splits, again, strict=True))
    assert not np.array_equal(splits[0].train, other[0].train)


def test_too_few_images_are_named():
    with pytest.raises(UserError, match="class b: has 30 images, the protocol caltech101 needs 30 to train on and one"):
        random_splits(labels_of(40, 30, 40), CLASSES, find_protocol("caltech101"))
    with pytest.raises(UserError, match="expected one of caltech101"):
        find_protocol("caltech")


def test_every_image_is_tested_in_one_fold_and_classes_are_spread_evenly(rng):
    counts = (23, 8, 41)
    labels = rng.permutation(labels_of(*counts))
    found = folds(labels, CLASSES, 4)
    assert sorted(np.concatenate([split.test for split in found]).tolist()) == list(range(len(labels)))
    for split in found:
        parts = (split.train, split.validation, split.test)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
        for k, count in enumerate(counts):
            tested = sum(labels[i] == k for i in split.test)
            assert tested in (count // 4, count // 4 + 1)
            assert sum(labels[i] == k for i in split.validation) == max(1, round(0.2 * (count - tested)))


def test_folds_that_cannot_be_made():
    with pytest.raises(UserError, match="class b: has 4 images, 5 folds need 5"):
        folds(labels_of(10, 4), CLASSES[:2], 5)
    with pytest.raises(UserError, match="at least two"):
        folds(labels_of(10, 4), CLASSES[:2], 1)


def test_images_are_ranked_by_scores_also_where_posteriors_are_equal():
    targets = np.array([[-1, 1], [1, -1]], np.int8)
    scores = np.array([[50.0, 60.0], [60.0, 50.0]])
    assert PROTOCOLS["voc2012"].metrics(scores, np.ones((2, 2)), targets)["merit"] == 1
    found = PROTOCOLS["folder"].metrics(scores, np.ones((2, 2)), targets)
    assert (found["merit"], found["accuracy"], found["class_recall"]) == (1, 1, [1, 1])
