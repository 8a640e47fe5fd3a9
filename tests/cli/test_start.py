"""The commands for one's own photographs of docs/start.md, as written; the README's are among them."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from tests.conftest import SEED
from verydeep.checkpoints.writing import write
from verydeep.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
START, README = ROOT / "docs" / "start.md", ROOT / "README.md"
CLASSES, PHOTOGRAPHS = ("emu", "lotus", "revolver", "scissors", "umbrella"), 235

# All that is added to the commands: narrow networks and fewer steps, so that the test takes seconds and not minutes.
NARROW = ["--set", "network.width=0.0625", "--set", "network.fc_width=32", "--set", "schedule.epochs=2"]
FEW_STEPS = ["--set", "schedule.least_steps=0"]
BOX = """<annotation><size><width>{0}</width><height>{1}</height></size><object><name>{2}</name><bndbox><xmin>5</xmin>
<ymin>8</ymin><xmax>60</xmax><ymax>70</ymax></bndbox></object></annotation>"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with photos/ and new.jpg; a narrow D lies in the cache where the authors' is downloaded to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(SEED)
    for i in range(PHOTOGRAPHS):
        name = CLASSES[i % len(CLASSES)]
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        height, width = (int(side) for side in rng.integers(80, 100, 2))
        picture = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        picture[..., i % 3] += np.uint8(100 if i % len(CLASSES) < 3 else 20)
        path = tmp_path / "photos" / name / f"image_{i:04d}.jpg"
        Image.fromarray(picture).save(path)
        path.with_suffix(".xml").write_text(BOX.format(width, height, name))
    Image.open(path).save("new.jpg")
    net = vd.create("D", width=1 / 16, fc_width=16, initialization="he", seed=0)
    net.preprocessing = vd.Preprocessing(channel_order="BGR")
    write(net, tmp_path / "cache" / "VGG_ILSVRC_16_layers.caffemodel", "caffe")
    return tmp_path


def commands() -> list[list[str]]:
    return in_blocks(START.read_text(encoding="utf-8").split("## Your own photographs")[1].split("\n## ")[0])


def in_blocks(text: str) -> list[list[str]]:
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_readmes_commands_are_among_them() -> None:
    own = [line for line in in_blocks(README.read_text(encoding="utf-8")) if line[0] == "verydeep"]
    assert len(own) == 2
    assert all(line in commands() for line in own)


def test_the_commands_run_one_after_another(here: Path) -> None:
    lines = commands()
    assert [line[1] for line in lines].count("train") >= 3
    for program, *words in lines:
        assert program == "verydeep"
        if words[0] == "train":
            words += FEW_STEPS if "caffe:vgg16" in words else NARROW + FEW_STEPS
            words += ["--set", "schedule.epochs=1"] if "caffe:vgg16" in words else []
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"
    for name in (
        "contact-sheet.png",
        "where.png",
        "photos-d/report.html",
        "runs/tuned/card.md",
        "runs/B-boxes/card.md",
    ):
        assert (here / name).is_file(), name
    assert vd.load("photos-d/classifier.safetensors").classes == CLASSES
