"""The benchmark of descriptors: both ways run the same passes, and the figures hold together."""

import pytest

from benchmarks import features
from verydeep.basics.errors import UserError
from verydeep.inference.forward import Forward


def test_both_ways_run_the_same_passes(monkeypatch):
    calls = []
    original = Forward.activations
    monkeypatch.setattr(
        Forward, "activations", lambda self, views, layer: calls.append(len(views)) or original(self, views, layer)
    )
    result = features.run(images=2, scale=224, width=1 / 32, repeats=1, device="cpu")
    assert calls == [2, 2, 2, 2, 2]  # to warm up; extraction and its mirror images; the bare passes and theirs
    extraction, bare = result["rows"]
    assert result["ratio"] == pytest.approx(bare["seconds"] / extraction["seconds"])
    assert extraction["images_per_second"] == pytest.approx(2 / extraction["seconds"])
    assert "processor" in result["machine"]


def test_numbers_that_make_no_benchmark():
    with pytest.raises(UserError, match="images 0"):
        features.run(images=0)
