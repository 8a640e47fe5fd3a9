"""The hold-out: disjoint, stratified, stable."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Sample
from verydeep.datasets.layout import Layout
from verydeep.datasets.splits import choose_split, hold_out
from verydeep.datasets.storage import Storage

sizes = st.lists(st.integers(3, 40), min_size=2, max_size=8)
shares = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32)


def _samples(sizes, first=0):
    return [Sample(f"class{k:02d}/{i}.jpg", k) for k, n in enumerate(sizes, first) for i in range(n)]


def _layout(**parts):
    classes = tuple(f"class{k:02d}" for k in range(50))
    return Layout("set", classes, parts, Storage(Path("set"), {}))


def _ids(samples):
    return [sample.id for sample in samples]


@given(sizes, shares, seeds)
def test_the_three_splits_share_the_images_out_with_every_class_in_each(sizes, share, seed):
    samples = _samples(sizes)
    splits = {split: choose_split(_layout(train=samples), split, seed, share)[0] for split in ("train", "val", "test")}
    everything = [i for part in splits.values() for i in _ids(part)]
    assert sorted(everything) == sorted(_ids(samples))
    for part in splits.values():
        assert {s.label for s in part} == set(range(len(sizes)))
        assert _ids(part) == [i for i in _ids(samples) if i in set(_ids(part))]  # the source's order


@given(sizes, shares, seeds)
def test_the_share_of_each_class_is_held_out(sizes, share, seed):
    kept, held = hold_out(_samples(sizes), tuple("x" * len(sizes)), share, f"test {seed}")
    assert len(kept) + len(held) == sum(sizes)
    counts = Counter(sample.label for sample in held)
    for label, size in enumerate(sizes):
        assert abs(counts[label] - share * size) <= 0.5 or counts[label] in (1, size - 1)


@given(sizes, sizes, shares, seeds)
def test_classes_added_change_nothing_for_the_others(sizes, more, share, seed):
    small, large = _layout(train=_samples(sizes)), _layout(train=_samples(sizes) + _samples(more, len(sizes)))
    for split in ("train", "val", "test"):
        before = _ids(choose_split(small, split, seed, share)[0])
        after = [s.id for s in choose_split(large, split, seed, share)[0] if s.label < len(sizes)]
        assert before == after


def test_an_image_added_moves_at_most_one_other():
    before = set(_ids(hold_out(_samples([50]), ("x",), 0.2, "test 0")[1]))
    after = set(_ids(hold_out(_samples([51]), ("x",), 0.2, "test 0")[1])) - {"class00/50.jpg"}
    assert len(before ^ after) <= 1


def test_seeds_hold_out_different_images_evenly():
    held = Counter(i for seed in range(400) for i in _ids(hold_out(_samples([20]), ("x",), 0.25, f"test {seed}")[1]))
    assert len(held) == 20
    assert max(abs(count - 100) for count in held.values()) < 5 * (400 * 0.25 * 0.75) ** 0.5


def test_the_sources_own_splits_are_kept():
    train, val, test = _samples([9, 9]), [Sample("v", 0)], [Sample("t", 1)]
    own = _layout(train=train, val=val, test=test)
    for split, samples in (("train", train), ("val", val), ("test", test)):
        found, provenance = choose_split(own, split, 0, 0.2)
        assert found == samples
        assert provenance == f"{split}: the set's own {split} images"


def test_val_is_test_only_where_the_set_is_used_so():
    train, val = _samples([10, 10]), [Sample("v", 0)]
    usual = Layout("set", ("a", "b"), {"train": train, "val": val}, Storage(Path("set"), {}), val_is_test=True)
    found, provenance = choose_split(usual, "test", 0, 0.2)
    assert found == val
    assert "val and test are the same images" in provenance
    assert choose_split(usual, "train", 0, 0.2)[0] == train
    held, provenance = choose_split(_layout(train=train, val=val), "test", 7, 0.2)
    assert len(held) == 4
    assert set(_ids(held)) < set(_ids(train))
    assert "20% of each class, seed 7" in provenance


def test_what_cannot_be_split_is_said():
    with pytest.raises(UserError, match="class class01: has 1 images, too few to hold some out; expected 3"):
        choose_split(_layout(train=_samples([5, 1])), "train", 0, 0.2)
    with pytest.raises(UserError, match="has no train images"):
        choose_split(_layout(test=_samples([5, 5])), "train", 0, 0.2)
    with pytest.raises(UserError, match=r"holdout is 1\.5"):
        choose_split(_layout(train=_samples([5, 5])), "train", 0, 1.5)
