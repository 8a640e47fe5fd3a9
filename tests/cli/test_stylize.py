"""`verydeep stylize`: the picture, the preview, Ctrl-C, what is refused."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from tests.perceptual.conftest import net  # noqa: F401 (a fixture)
from verydeep.cli.main import app
from verydeep.cli.stylize import EXAMPLE
from verydeep.images import files

SHORT = "stylize photo.jpg painting.jpg --weights trunk.safetensors --size 64 --steps 3 --out"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, rng, net):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    vd.save(net, "trunk.safetensors")
    for name, shape in (("photo.jpg", (40, 60, 3)), ("painting.jpg", (50, 50, 3))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(name)


def _run(words):
    return CliRunner().invoke(app, shlex.split(words))


def test_the_example_of_the_help():
    program, *words = shlex.split(EXAMPLE.replace("--steps 100", "--steps 2").replace("256", "80"))
    assert program == "verydeep"
    result = _run(shlex.join(words))
    assert result.exit_code == 0, result.output
    assert Image.open("new.jpg").size == (120, 80)
    assert "120 x 80 pixels; trunk: D, trunk.safetensors (verydeep, SHA-256" in result.stdout


def test_it_is_the_functions_picture_and_the_last_preview():
    assert _run(f"{SHORT} deep/out.png --preview now.png --seed 7 --style-weight 2").exit_code == 0
    expected = vd.stylize(
        vd.trunk("trunk.safetensors"), "photo.jpg", "painting.jpg", size=64, steps=3, seed=7, style_weight=2
    )
    for name in ("deep/out.png", "now.png"):
        np.testing.assert_array_equal(np.array(Image.open(name)), expected)


def test_an_interrupt_leaves_what_there_is(monkeypatch):
    written = []

    def write(path, picture):
        written.append(picture)
        files_write(path, picture)
        if len(written) == 2:
            raise KeyboardInterrupt

    files_write = files.write_picture
    monkeypatch.setattr(files, "write_picture", write)
    result = _run(f"{SHORT} out.png --preview now.png --steps 50")
    assert result.exit_code == 130
    assert "out.png: as far as it was, 96 x 64 pixels" in result.stderr
    np.testing.assert_array_equal(np.array(Image.open("out.png")), written[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("out.bmp", "out.bmp: the name must end in .png, .jpg, .jpeg"),
        ("out.png --preview now.txt", "now.txt: the name must end in"),
        ("photo.jpg/out.png", "photo.jpg/out.png: cannot be written"),
        ("out.png --size 20000", "30000 x 20000 pixels take"),
        ("out.png --memory 1MiB --size 256", "--memory allows"),
        ("out.png --size 0", "cannot rescale"),
        ("out.png --steps -1", "steps -1"),
        ("out.png --device tpu", "tpu"),
    ],
)
def test_what_is_refused(words, message):
    result = _run(f"{SHORT} {words}")
    assert message in f"{result.exception}{result.stderr}"
    assert result.exit_code in (1, 2)
    assert not Path("out.png").exists()
