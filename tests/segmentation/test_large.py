"""Bands of rows give the whole image's scores, whatever is computed at a time, and go on after a stop."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from tests.segmentation.conftest import network
from verydeep.basics.errors import UserError
from verydeep.images.rescale import rescale
from verydeep.inference.runtime import Runtime
from verydeep.segmentation.large import Job, Strip, segment_in_bands
from verydeep.segmentation.segmenter import Segmenter


class Kept(Job):
    """Keeps the scores of every block."""

    def _scores(self, scored, down, across, pixels):
        found = super()._scores(scored, down, across, pixels)
        (top, bottom), (left, right) = pixels
        self.kept[:, top:bottom, left:right] = found[0]
        return found


CASES = [
    ("32s", "image", "A", True),
    ("16s", "map", "B", False),
    ("8s", "image", "A", False),
    ("8s", "map", "A", True),
    ("8s", "image", "alexnet", True),
]


@pytest.mark.parametrize(("head", "padding", "name", "round_up"), CASES)
def test_bands_and_strips_are_the_whole_image(head, padding, name, round_up, tmp_path, rng, monkeypatch) -> None:
    net = network(head, padding, name, round_up, **({"image_size": 227} if name == "alexnet" else {}))
    height, width = rng.integers(30, 260, 2).tolist()
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = Segmenter.of(net, Runtime(engine="torch"), 1.0).scores(image)
    size = float(whole.abs().max())
    job = Kept(image, net)
    monkeypatch.setattr(job, "_block_rows", lambda width: int(rng.integers(1, 40)))
    plan = job.strips(None)[0].plan
    edges = [0, width // 3, width // 3 + 1, width]
    parts = [Strip(a, b, replace(plan, work=1)) for a, b in pairwise(edges)]
    for number, strips in enumerate(([Strip(0, width, plan)], parts)):
        job.kept = torch.full_like(whole, torch.nan)
        labels = np.asarray(job.run(strips, tmp_path / f"{number}.zarr"))[0]
        # Sums of float32 in another order; a misplaced row would differ by the scores' own size.
        torch.testing.assert_close(job.kept, whole, rtol=0, atol=2e-5 * size)
        assert (labels == job.kept.argmax(0).numpy()).all()


def test_a_stopped_map_goes_on_and_another_is_refused(tmp_path, rng, monkeypatch) -> None:
    net = network()
    image = rng.integers(0, 256, (200, 90, 3), dtype=np.uint8)
    expected = np.asarray(Job(image, net).run(Job(image, net).strips(None), tmp_path / "whole.zarr"))
    job = Job(image, net)
    job._block_rows = lambda width: 16
    blocks = job._labels
    calls = []

    def stopping(*args):
        if len(calls) == 7:
            raise KeyboardInterrupt
        calls.append(1)
        return blocks(*args)

    monkeypatch.setattr(job, "_labels", stopping)
    with pytest.raises(KeyboardInterrupt):
        job.run(job.strips(None), tmp_path / "map.zarr")
    again = Job(image, net)
    first = []
    real = again._part
    monkeypatch.setattr(again, "_part", lambda part, plan: first.append(part.top) or real(part, plan))
    assert (np.asarray(again.run(again.strips(None), tmp_path / "map.zarr")) == expected).all()
    assert first == [7 * 16]
    other = Job(image[:150], net)
    with pytest.raises(UserError, match="something else"):
        other.run(other.strips(None), tmp_path / "map.zarr")


def test_a_tiled_tiff_that_lies_where_the_image_does(tmp_path: Path, rng) -> None:
    tifffile = pytest.importorskip("tifffile")
    net = network("16s")
    vd.save(net, tmp_path / "w.safetensors")
    pixels = rng.integers(0, 256, (300, 280, 3), dtype=np.uint8)
    tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 1000.0, 2000.0, 0.0), True)]
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=(64, 64), extratags=tags, photometric="rgb")
    said = segment_in_bands(tmp_path / "image.tif", tmp_path / "w.safetensors", tmp_path / "map.tif", factor=0.5)
    assert said["map"] == [140, 150]
    with tifffile.TiffFile(tmp_path / "map.tif") as tiff:
        page = tiff.pages[0]
        assert page.is_tiled
        assert page.tags[33550].value[:2] == pytest.approx((1.0, 1.0))
        assert page.tags[33922].value[3:5] == (1000.0, 2000.0)
        found = page.asarray()
    image = Image.open(tmp_path / "map.tif")
    assert image.mode == "P"

    half = rescale(pixels, 140)
    scores = Segmenter.of(net, Runtime(engine="torch"), 1.0).scores(half)
    differs = torch.from_numpy(found.astype(np.int64)) != scores.argmax(0)
    margin = scores.topk(2, dim=0).values
    assert float((margin[0] - margin[1])[differs].sum()) <= 1e-4 * float(scores.abs().max())
    assert not list(tmp_path.glob(".map*")), "what it worked on is gone"
    with pytest.raises(UserError, match="MiB are too little"):
        segment_in_bands(tmp_path / "image.tif", tmp_path / "w.safetensors", tmp_path / "o.tif", memory=1 << 20)
    with pytest.raises(UserError, match="must end in"):
        segment_in_bands(tmp_path / "image.tif", tmp_path / "w.safetensors", tmp_path / "o.png")
