"""The benchmark of score maps: the ways are what they say, and the figures hold together."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import commands as bench
from benchmarks import scoremap
from verydeep.basics.errors import UserError

pytest.importorskip("pyvips", reason="pyvips is not installed (make test installs it)")


def test_the_example_of_the_help_runs():
    (example,) = [line for line in bench.scoremap.__doc__.splitlines() if "Example:" in line]
    result = CliRunner().invoke(bench.app, [*example.split()[3:], "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.output)["rows"]
    assert row["way"] == "bands, limited"
    assert 0 < row["memory_for_the_map"] < row["peak_memory"] < 2**31
    assert row["seconds"] > 0


def test_the_ways_find_the_same_but_for_the_tiles_borders(tmp_path, monkeypatch):
    """Every way in this process; what each sends is compared."""
    pytest.importorskip("zarr", reason="zarr is not installed (it needs Python 3.11)")
    sent = {}

    def in_process(way, image, memory, width, threads):
        class Here:
            def send(self, result):
                sent[way] = result

        grad = torch.is_grad_enabled()
        try:
            scoremap._serve(Here(), way, image, memory, width, threads)
        finally:
            torch.set_grad_enabled(grad)
        row, values = sent[way]
        return {"way": way, **row}, values

    monkeypatch.setattr(scoremap, "_in_process", in_process)
    rows = {row["way"]: row for row in scoremap.run(side=704, memory=2**33, width=1 / 16)["rows"]}
    assert set(rows) >= {"whole", "bands", "bands, limited", "tiles"}
    assert rows["whole"]["error"] == 0
    assert rows["bands"]["error"] < 1e-5
    assert rows["bands, limited"]["error"] < 1e-5
    assert rows["tiles"]["error"] > 1e-2
    if "MONAI" in rows:  # an optional peer
        assert rows["MONAI"]["error"] > 1e-2


def test_tiles_by_hand(tmp_path):
    """Every cell is the mean of what the tiles that hold it say of it."""
    net = scoremap._network(1 / 16)
    scoremap._write_image(tmp_path / "a.tif", 960)
    with torch.inference_mode():
        found = scoremap._tiles(net, tmp_path / "a.tif")
        pixels = scoremap._pixels(net, tmp_path / "a.tif")
        said = [[[] for _ in range(30)] for _ in range(30)]
        for top in (0, 384, 448):
            for left in (0, 384, 448):
                scores = net.score_map(pixels[:, :, top : top + 512, left : left + 512])[0].numpy()
                for i, j in np.ndindex(scores.shape[1:]):
                    said[top // 32 + i][left // 32 + j].append(scores[:, i, j])
    expected = np.array([[np.mean(cell, axis=0) for cell in row] for row in said]).transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_an_image_smaller_than_a_tile():
    for side in (480, 6000):
        with pytest.raises(UserError, match=f"side {side}: at least one tile of 512 pixels, and whole cells"):
            scoremap.run(side=side)
