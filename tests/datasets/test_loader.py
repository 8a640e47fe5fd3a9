"""The loader: the same batches whatever the threads, processes and interruptions; every view as drawn."""

import io
import secrets
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.rng import generator
from verydeep.datasets.color import measure_color
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.loader import AHEAD, Augmentation, Share, TrainingLoader
from verydeep.images.color import measure, moments, shift
from verydeep.images.rescale import rescaled_size
from verydeep.images.view import draw_view

FIELDS = ("images", "labels", "indices", "shifts")


class Files:
    """Files in memory, as a data set's storage holds them; counts and remembers what is read."""

    def __init__(self, contents):
        self.contents = contents
        self.reads = []
        self.threads = set()

    def read(self, name):
        self.reads.append(name)
        self.threads.add(threading.current_thread().name)
        return self.contents[name]

    def where(self, name):
        return f"folder/{name}"


class Drawn(Dataset):
    """A data set that makes its pictures itself."""

    def image(self, index):
        return np.full((40 + index, 50, 3), index, np.uint8)

    def read(self, index):
        raise AssertionError("there is no file to read")


def make_dataset(count=23, seed=0, kind=Dataset):
    rng = np.random.default_rng(seed)
    contents = {}
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        file = io.BytesIO()
        coarse.resize((int(rng.integers(30, 70)), int(rng.integers(30, 70)))).save(file, "JPEG" if i % 3 else "PNG")
        contents[f"{i}.jpg"] = file.getvalue()
    samples = [Sample(name, i % 4) for i, name in enumerate(contents)]
    return kind("files", "train", ("a", "b", "c", "d"), samples, Files(contents))


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def color(dataset):
    return measure_color(dataset, seed=0)


@pytest.fixture
def seed():
    number = secrets.randbelow(2**32)
    print(f"seed {number}")
    return number


def make_loader(dataset, color=None, **options):
    how = {"crop": 16, "scales": (18, 40), "color": color}
    how |= {name: options.pop(name) for name in [*options] if name in Augmentation.__dataclass_fields__}
    return TrainingLoader(dataset, Augmentation(**how), **{"batch_size": 4, "seed": 1, "workers": 2, **options})


def assert_same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for field in FIELDS:
            assert torch.equal(getattr(batch, field), getattr(other, field))


def test_batches_have_the_promised_form(dataset, color, seed):
    loader = make_loader(dataset, color, seed=seed)
    assert loader.batches_per_epoch == 5
    batches = list(loader.epoch(0))
    assert len(batches) == 5
    for batch in batches:
        assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (4, 16, 16, 3))
        assert (batch.labels.dtype, batch.labels.shape) == (torch.int64, (4,))
        assert (batch.indices.dtype, batch.indices.shape) == (torch.int64, (4,))
        assert (batch.shifts.dtype, batch.shifts.shape) == (torch.float32, (4, 3))
        assert batch.labels.tolist() == [dataset.samples[i].label for i in batch.indices.tolist()]
    indices = torch.cat([batch.indices for batch in batches])
    assert len(set(indices.tolist())) == 20  # 3 of 23 left over
    other = torch.cat([batch.indices for batch in loader.epoch(1)])
    assert not torch.equal(indices, other)


@pytest.mark.parametrize("form", ["sqrt", "literal", "none"])
def test_samples_are_the_views_drawn(dataset, color, seed, form):
    """Against Pillow: whole image rescaled, cut, flipped; every choice drawn anew from (seed, epoch, index)."""
    batch = next(make_loader(dataset, color, seed=seed, color_form=form, color_scale=0.2).epoch(3))
    for pixels, index, offset in zip(batch.images, batch.indices.tolist(), batch.shifts, strict=True):
        image = dataset.image(index)
        view = draw_view(*image.shape[:2], 16, (18, 40), generator(seed, 3, index))
        rows, columns = rescaled_size(*image.shape[:2], view.side)
        whole = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)
        expected = np.asarray(whole).astype(int)[view.top : view.top + 16, view.left : view.left + 16]
        assert np.abs(pixels.numpy() - (expected[:, ::-1] if view.flip else expected)).mean() < 2
        np.testing.assert_allclose(offset, shift(color, view.normals, form, 0.2), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 3), st.integers(0, 2**40))
@settings(max_examples=15, deadline=None)
def test_threads_do_not_matter(color, count, batch_size, epoch, seed):
    dataset = make_dataset(count, seed % 1000)
    one, four = (make_loader(dataset, color, seed=seed, batch_size=batch_size, workers=w) for w in (1, 4))
    assert_same(one.epoch(epoch), four.epoch(epoch))
    assert_same(one.epoch(epoch), one.epoch(epoch))


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_the_batches_of_one(dataset, color, seed, world_size):
    whole = list(make_loader(dataset, color, seed=seed, batch_size=6).epoch(2))
    parts = [
        list(make_loader(dataset, color, seed=seed, batch_size=6, share=Share(r, world_size)).epoch(2))
        for r in range(world_size)
    ]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {len(share.images) for share in shares} == {6 // world_size}
        for field in FIELDS:
            assert torch.equal(getattr(batch, field), torch.cat([getattr(share, field) for share in shares]))


def test_starting_later_gives_the_tail(dataset, color, seed):
    loader = make_loader(dataset, color, seed=seed)
    batches = list(loader.epoch(4))
    for start in range(6):
        assert_same(loader.epoch(4, start), batches[start:])


def test_balanced_sampling_shows_every_class_alike_and_rare_images_in_other_views(color, seed):
    dataset = make_dataset(41)
    rare = [*range(1, 40, 4), 0, 2, 6, 10]  # ten of class b, one of a, three of c
    dataset = dataset.subset(rare)
    loader = make_loader(dataset, color, seed=seed, batch_size=7, balanced=True, scales=(18, 60))
    batches = list(loader.epoch(1))
    labels = np.concatenate([batch.labels for batch in batches])
    assert sorted(np.bincount(labels)[:3]) == [4, 5, 5]
    alone = [
        pixels.numpy().tobytes()
        for batch in batches
        for pixels, label in zip(batch.images, batch.labels, strict=True)
        if label == 0
    ]
    assert len(alone) >= 4
    assert len(set(alone)) >= 3  # not one and the same; two of them may fall together by chance
    assert_same(loader.epoch(1, 1), batches[1:])
    one, three = (make_loader(dataset, color, seed=seed, batch_size=7, balanced=True, workers=w) for w in (1, 3))
    assert_same(one.epoch(2), three.epoch(2))
    seen = {i for epoch in range(30) for batch in loader.epoch(epoch) for i in batch.indices.tolist()}
    assert seen == set(range(14))  # no image of a common class is never shown
    first = make_loader(dataset, color, seed=seed, balanced=True)
    views = {i: p for b in first.epoch(0) for i, p in zip(b.indices.tolist(), b.images, strict=True)}
    plain = {
        i: p
        for b in make_loader(dataset, color, seed=seed).epoch(0)
        for i, p in zip(b.indices.tolist(), b.images, strict=True)
    }
    common = [i for i in views if i in plain and dataset.samples[i].label == 1]
    assert all(torch.equal(views[i], plain[i]) for i in common)  # seen once, an image has the view it always had


def test_a_set_smaller_than_a_batch(dataset):
    loader = make_loader(dataset, batch_size=100)
    assert loader.batches_per_epoch == 1
    (batch,) = loader.epoch(0)
    assert sorted(batch.indices.tolist()) == list(range(23))
    shares = [next(make_loader(dataset, batch_size=100, share=Share(r, 4)).epoch(0)) for r in range(4)]
    assert torch.equal(torch.cat([share.indices for share in shares]), batch.indices)


def test_seeds_and_epochs_differ(dataset, color):
    batches = [next(make_loader(dataset, color, seed=s).epoch(e)) for s, e in ((1, 0), (2, 0), (1, 1))]
    assert len({batch.images.numpy().tobytes() for batch in batches}) == 3
    assert len({batch.shifts.numpy().tobytes() for batch in batches}) == 3


def test_no_color_and_no_flip(dataset, seed):
    plain = make_loader(dataset, None, seed=seed, flip=False)
    flipped = make_loader(dataset, None, seed=seed)
    count = 0
    for without, batch in zip(plain.epoch(0), flipped.epoch(0), strict=True):
        assert not batch.shifts.any()
        for a, b in zip(without.images, batch.images, strict=True):
            assert torch.equal(a, b) or torch.equal(a, b.flip(1))
            count += not torch.equal(a, b)
    assert 0 < count < 20


def test_a_set_that_makes_its_pictures():
    for batch in make_loader(make_dataset(kind=Drawn)).epoch(0):
        assert torch.equal(batch.images, batch.indices.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 16, 16, 3))


def test_memory_is_bounded():
    dataset = make_dataset(200)
    files = dataset.storage
    batches = make_loader(dataset, batch_size=10, workers=4).epoch(0)
    for used in range(1, 6):
        next(batches)
        time.sleep(0.02)
        assert len(files.reads) <= 10 * (used + AHEAD)
    batches.close()
    assert len(files.threads) <= 4


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("in_threads")]


@pytest.mark.parametrize("end", ["closed", "dropped", "exhausted", "interrupted"])
def test_threads_end_with_the_iterator(dataset, end):
    batches = make_loader(dataset).epoch(0)
    next(batches)
    assert loader_threads()
    if end == "closed":
        batches.close()
    elif end == "dropped":
        del batches
    elif end == "exhausted":
        list(batches)
    else:
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert not loader_threads()


def test_a_bad_image_is_an_error_in_the_consumer():
    dataset = make_dataset(12)
    files = dataset.storage
    index = 1 + int(next(make_loader(dataset, batch_size=12).epoch(0)).indices[5]) // 3 * 3  # a JPEG
    name = dataset.samples[index].id
    files.contents[name] = files.contents[name][:-200]
    with pytest.raises(BadImageError, match=f"folder/{name}: damaged JPEG file"):
        list(make_loader(dataset).epoch(0))
    assert not loader_threads()


def test_waiting_is_counted():
    class Slow(Drawn):
        def image(self, index):
            time.sleep(0.01)
            return super().image(index)

    loader = make_loader(make_dataset(8, kind=Slow), workers=1)
    began = time.perf_counter()
    list(loader.epoch(0))
    assert 0.07 <= loader.waited <= time.perf_counter() - began
    quick = make_loader(make_dataset(8, kind=Slow), workers=1)
    for _ in quick.epoch(0):
        time.sleep(0.1)
    assert quick.waited < loader.waited


def test_color_is_measured_on_a_sample(dataset):
    everything = measure(moments(dataset.image(i)) for i in range(len(dataset)))
    assert measure_color(dataset, seed=5, images=100) == everything
    some = measure_color(dataset, seed=5, images=7)
    assert some == measure_color(dataset, seed=5, images=7)
    assert some not in (everything, measure_color(dataset, seed=6, images=7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "a batch of 0 images for 1 processes: expected an image for each"),
        ({"batch_size": 6, "share": Share(0, 7)}, "a batch of 6 images for 7 processes"),
        ({"scales": (12, 40)}, "expected crop <= Smin <= Smax"),
        ({"scales": (40, 30)}, "expected crop <= Smin <= Smax"),
    ],
)
def test_numbers_that_do_not_fit(dataset, options, message):
    with pytest.raises(UserError, match=message):
        make_loader(dataset, **options)


def test_an_empty_set():
    with pytest.raises(UserError, match="files train: no images to train on"):
        make_loader(make_dataset(0))
