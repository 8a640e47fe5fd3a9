"""`verydeep perceive`: two pictures, two folders, the audit, the drawing; what is refused."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from tests.perceptual import reference
from tests.perceptual.conftest import fitted, net  # noqa: F401 (fixtures)
from verydeep.cli.main import app
from verydeep.cli.perceive import EXAMPLE


@pytest.fixture
def folder(tmp_path, monkeypatch, rng, net, fitted):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    vd.save(net, tmp_path / "trunk.safetensors")
    for name in ("restored", "original"):
        Path(name).mkdir()
        for i, ending in enumerate(("png", "bmp")):
            pixels = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{name}/{i}.{ending if name == 'original' else 'png'}")
        Image.open(f"{name}/0.png").save(f"{name}.png")
    return fitted


def _run(words):
    return CliRunner().invoke(app, ["perceive", *shlex.split(words)])


def _unit(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].double() / 255


def test_the_example_of_the_help(folder, net):  # noqa: F811
    program, command, *words = shlex.split(EXAMPLE)
    assert (program, command) == ("verydeep", "perceive")
    said = json.loads(_run(shlex.join(words)).stdout)
    maps = [reference.maps(net, _unit(path)) for path in ("restored.png", "original.png")]
    expected = sum(0.2 * reference.gram_loss(*(m[f"conv{block}_1.relu"] for m in maps)) for block in range(1, 6))
    assert said["pairs"][0]["distance"] == pytest.approx(float(expected), rel=1e-4)
    assert said["trunk"]["origin"].startswith("trunk.safetensors (verydeep, SHA-256 ")


def test_two_folders(folder, net):  # noqa: F811
    words = "restored original --weights trunk.safetensors --fitted vgg.pth"
    said = json.loads(_run(f"{words} --json").stdout)
    assert [row["name"] for row in said["pairs"]] == ["0", "1"]
    lin = list(folder.lin.values())
    for row in said["pairs"]:
        expected = reference.lpips(net, _unit(row["picture"]), _unit(row["reference"]), lin)
        assert row["distance"] == pytest.approx(float(expected), rel=1e-4)
    assert said["mean"] == pytest.approx(np.mean([row["distance"] for row in said["pairs"]]))
    table = _run(words).stdout
    assert f"{said['mean']:.6f}" in table
    assert "do not compare" in table
    assert "dists" in _run(f"{words.replace('vgg.pth', 'weights.pt')} --metric dists").stdout.lower()


def test_the_audit_begins_with_the_right_way_and_shows_the_wrong_ones(folder):
    said = json.loads(
        _run("restored.png original.png --weights trunk.safetensors --fitted vgg.pth --audit --json").stdout
    )
    (row,) = said["pairs"]
    ways = {one["given"]: one["distance"] for one in row["audit"]}
    assert ways["as these weights want them"] == pytest.approx(row["distance"], rel=1e-5)
    swapped = vd.LPIPS(vd.load("trunk.safetensors"), folder.lpips, channels="bgr")
    with torch.no_grad():
        expected = float(swapped(_unit("restored.png").float(), _unit("original.png").float()))
    assert ways["pictures in BGR, taken for RGB"] == pytest.approx(expected, rel=1e-5)
    assert len(ways) >= 10
    assert len({f"{value:.9f}" for value in ways.values()}) >= len(ways) - 1


def test_the_drawing(folder):
    words = "restored.png original.png --weights trunk.safetensors --fitted vgg.pth --heatmap out/where.png"
    assert _run(words).exit_code == 0
    assert Image.open("out/where.png").size[0] > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("restored original.png", "restored is a folder, original.png is none"),
        ("restored.png original --metric style", "original is a folder"),
        ("restored original --metric style --audit", "holds 2 pictures"),
        ("restored.png original.png --metric style --heatmap a.png", "is of the metric lpips"),
        ("restored.png original.png --fitted vgg.pth --heatmap a.txt", "must end in"),
        ("restored.png original.png --metric style --fitted vgg.pth", "style has none"),
        ("restored.png original.png --fitted weights.pt", "found no such array"),
        ("restored.png original.png --metric style --memory 100KiB", "too little for even one row"),
        ("restored.png original.png --metric style --audit --memory 100KiB", "as --heatmap and --audit need it"),
        ("restored.png trunk.safetensors --metric style", "trunk.safetensors: "),
        ("restored.png small.png --metric style", "56 x 40 and 20 x 20 pixels"),
        ("restored other --metric style", "nothing of this name in other"),
    ],
)
def test_what_is_refused(folder, words, message):
    Path("other").mkdir()
    Image.new("RGB", (20, 20)).save("small.png")
    Image.new("RGB", (56, 40)).save("other/0.png")
    result = _run(f"{words} --weights trunk.safetensors")
    assert message in (str(result.exception) + result.stderr)
    assert result.exit_code in (1, 2)
    assert not Path("a.png").exists()


def test_in_bands_where_memory_is_short(folder, rng):
    """What would take 80 MiB as a whole; and arrays, which are always read in windows."""
    from verydeep.scoremaps.plan import within

    for name in ("large", "other"):
        pixels = rng.integers(0, 256, (900, 1100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{name}.png")
        np.save(f"{name}.npy", pixels)
    words = "--metric content --weights trunk.safetensors --json --memory"
    rooms = {"png": "4GiB", "npy": "4GiB"}
    found = [json.loads(_run(f"large.{end} other.{end} {words} {room}").stdout) for end, room in rooms.items()]
    little = (60 * 2**20 - within(0, torch.device("cpu"))) // 2**20
    found.append(json.loads(_run(f"large.png other.png {words} {little}MiB").stdout))
    distances = [one["pairs"][0]["distance"] for one in found]
    assert distances[1:] == pytest.approx([distances[0]] * 2, rel=2e-5)
    assert distances[0] != distances[1]  # the sums' order: they did come another way


def test_one_bad_pair_does_not_stop_the_others(folder):
    Path("restored/1.png").write_bytes(b"no picture")
    result = _run("restored original --metric content --weights trunk.safetensors --json")
    assert result.exit_code == 2
    good, bad = json.loads(result.stdout)["pairs"]
    assert good["distance"] > 0
    assert "restored/1.png" in bad["error"]
