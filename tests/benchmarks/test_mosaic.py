"""Photographs in a mosaic: what is counted, by hand."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from benchmarks import commands as bench
from benchmarks import mosaic
from verydeep.basics.errors import UserError

pytest.importorskip("pyvips", reason="pyvips is not installed (make test installs it)")


@pytest.fixture
def weights(tmp_path):
    names = ["n00000001 cat", "n00000002 dog", "n00000003 owl", *(f"n0000001{k} other" for k in range(5))]
    net = vd.create("A", names, width=1 / 16, image_size=64, fc_width=16, seed=4)
    vd.save(net, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_found_photographs_are_counted(tmp_path, weights, rng):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("n00000001_a", "n00000002_b", "n00000003_c", "n99999999_d", "n00000001_e")):
        picture = Image.fromarray(rng.integers(0, 256, (9, 7 + number, 3), dtype=np.uint8))
        picture.resize((300 + 20 * number, 260)).save(folder / f"{name}.png")
    result = mosaic.run(folder, weights, (0.5,), side=200, stride=8, picture=tmp_path / "drawn.png")
    assert (result["photographs"], result["known"]) == (5, 4)
    assert (result["mosaic_width"], result["mosaic_height"]) == (600, 400)
    (row,) = result["rows"]
    assert row["error"] < 1e-5
    assert 0 <= row["found_1"] <= row["found_5"] <= 4
    assert min(Image.open(tmp_path / "drawn.png").size) > 300

    # The mosaic again, by hand; every window of 64 at half size that lies in a photograph's square.
    files = sorted(folder.iterdir())
    whole = np.zeros((400, 600, 3), np.uint8)
    for k, file in enumerate(files):
        picture = vd.images.rescale.rescale(np.asarray(Image.open(file)), 200)
        left = (picture.shape[1] - 200) // 2
        whole[200 * (k // 3) : 200 * (k // 3) + 200, 200 * (k % 3) : 200 * (k % 3) + 200] = picture[
            :, left : left + 200
        ]
    level = vd.score_map(whole, weights, scales=(0.5,), stride=8).levels[0]
    first = five = peaks = 0
    for k, label in ((0, 0), (1, 0), (2, 1), (3, 2)):
        top, left = 200 * (k // 3), 200 * (k % 3)
        cells = [
            level.values[:, i, j]
            for i, j in np.ndindex(level.values.shape[1:])
            if (w := level.window_of(i, j))[0] >= top and w[1] >= left and w[2] <= top + 200 and w[3] <= left + 200
        ]
        order = np.argsort(-np.mean(cells, axis=0)).tolist()
        first, five = first + (order[0] == label), five + (label in order[:5])
        i, j = np.unravel_index(level.values[label].argmax(), level.values.shape[1:])
        y, x = level.center(i, j)
        peaks += top <= y < top + 200 and left <= x < left + 200
    assert (row["found_1"], row["found_5"], row["peaks"]) == (first, five, peaks)


def test_photographs_of_no_known_class(tmp_path, weights):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (90, 90)).save(tmp_path / "photos" / "n99999999_x.png")
    with pytest.raises(UserError, match="no photograph is of one of the network's 8 classes"):
        mosaic.run(tmp_path / "photos", weights, side=200)


def test_the_example_of_the_help_runs(tmp_path, weights, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open("imagenet-samples.tar", "w") as archive:
        for name in ("n00000001_cat.JPEG", "n00000002_dog.JPEG"):
            Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / name)
            archive.add(name)
    (tmp_path / "runs" / "B").mkdir(parents=True)
    weights.rename(tmp_path / "runs" / "B" / "best.safetensors")
    (example,) = [line for line in bench.mosaic.__doc__.splitlines() if "Example:" in line]
    result = CliRunner().invoke(bench.app, example.split()[3:])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("2 photographs, 1440 x 720 pixels; 2 are of one of the network's 8 classes")
    assert Path("mosaic.png").stat().st_size > 5000
