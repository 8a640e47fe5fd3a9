"""Caltech-101: recognized however it was unpacked, and the real one."""

import io
import tarfile
from collections import Counter

import numpy as np
from PIL import Image

from verydeep.datasets import open_dataset

CATEGORIES = ("BACKGROUND_Google", "Faces_easy", "accordion", "yin_yang")
IMAGES = [f"{name}/image_{i:04d}.jpg" for name in CATEGORIES for i in range(1, 6)]


def test_alone_or_beside_its_annotations(tree, pack, tmp_path):
    alone = tree("101_ObjectCategories", IMAGES)
    notes = {"Annotations/accordion/annotation_0001.mat": b"MATLAB 5.0", "show_annotation.m": b"function"}
    beside = tree("caltech-101", [f"101_ObjectCategories/{image}" for image in IMAGES], notes)
    sources = [alone, beside, pack(alone, tmp_path / "a.tar"), pack(beside, tmp_path / "b.tar")]
    for split in ("train", "val", "test"):
        first, *others = (open_dataset(source, split) for source in sources)
        assert (first.name, first.classes) == ("caltech-101", CATEGORIES)
        assert "4 categories, BACKGROUND_Google among them" in first.provenance
        for other in others:
            assert (other.name, other.samples) == (first.name, first.samples)


def test_the_real_set(shared_data, rng):
    path = shared_data / "caltech-101.tar"
    splits = [open_dataset(path, split) for split in ("train", "val", "test")]
    assert splits[0].name == "caltech-101"
    assert len(splits[0].classes) == 102
    with tarfile.open(path) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile() and m.name.endswith(".jpg")}
        ids = [sample.id for dataset in splits for sample in dataset.samples]
        assert len(ids) == len(names) == 9_144
        assert set(ids) == names
        for index in rng.integers(0, len(splits[2]), 5).tolist():
            member = archive.extractfile(f"101_ObjectCategories/{splits[2].samples[index].id}")
            data = member.read()
            assert splits[2].read(index) == data
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
            found = splits[2].image(index).astype(float)
            assert found.shape == expected.shape
            assert abs(found - expected).mean() < 1
    for dataset in splits:
        counts = Counter(sample.label for sample in dataset.samples)
        assert len(counts) == 102
        assert all(dataset.classes[s.label] == s.id.partition("/")[0] for s in dataset.samples)
