"""Every command of docs/tutorials/few-photographs.md, in its order, with a small network."""

import re
import shlex
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.cli.main import app
from verydeep.nets.run_info import RunInfo

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES = ("butterfly", "dolphin", "grand_piano", "laptop", "starfish", "sunflower")
A_CLASS = 15  # pictures: enough for every command, and soon done


def photographs(folder: Path) -> None:
    """Pictures of Caltech-101 where it is at hand, else noise in six colors."""
    tar = ROOT.parent / "shared" / "data" / "caltech-101.tar"
    if tar.is_file():
        with tarfile.open(tar) as archive:
            for member in archive.getmembers():
                *_, category, name = ("", *Path(member.name).parts)
                if category in CATEGORIES and name <= f"image_{A_CLASS:04d}.jpg":
                    (folder / category).mkdir(parents=True, exist_ok=True)
                    (folder / category / name).write_bytes(archive.extractfile(member).read())
        return
    print(f"no photographs at {tar}: noise takes their place")
    rng = np.random.default_rng(0)
    for c, category in enumerate(CATEGORIES):
        (folder / category).mkdir(parents=True)
        for i in range(A_CLASS):
            picture = rng.integers(0, 130, (80, 100, 3), dtype=np.uint8) + np.uint8([c % 2, c // 2 % 2, c // 4]) * 120
            Image.fromarray(picture.astype(np.uint8)).save(folder / category / f"image_{i + 1:04d}.jpg")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the tutorial says is needed, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path / "photos")
    (tmp_path / "new.jpg").write_bytes((tmp_path / "photos" / "sunflower" / "image_0001.jpg").read_bytes())
    inputs = vd.Preprocessing(std=(60.0, 60.0, 60.0))  # of unit variance, which random weights pass on
    net = vd.create(
        "A", "xy", width=1 / 16, image_size=64, fc_width=32, initialization="he", seed=1, preprocessing=inputs
    )
    net.provenance = RunInfo(train_scales=(64, 96))
    vd.save(net, tmp_path / "runs" / "W" / "best.safetensors")
    trunk = vd.create("A", 0, width=1 / 16, initialization="he", seed=1, preprocessing=inputs, trunk="pool5")
    vd.save(trunk, tmp_path / "trunk.safetensors")
    return tmp_path


@pytest.mark.usefixtures("a_process_of_its_own")
def test_the_commands_run_one_after_another(here: Path) -> None:
    blocks = re.findall(
        r"```(sh|python)\n(.*?)```", (ROOT / "docs" / "tutorials" / "few-photographs.md").read_text(), re.DOTALL
    )
    assert [kind for kind, _ in blocks].count("sh") >= 5
    began = time.process_time()
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "tutorial", "exec"), {})
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            assert program == "verydeep"
            if words[0] == "scoremap" and find_spec("zarr") is None:
                print(f"zarr is not installed: {line} is left out")
                continue
            result = CliRunner().invoke(app, words, catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    print(f"{time.process_time() - began:.0f} s of processor time")
    for name in (
        "photos.png",
        "flowers/report.html",
        "where.png",
        "flowers.pt2",
        "tuned/card.md",
        "both/result.json",
        "features.parquet",
    ):
        assert (here / name).is_file(), name
    made = vd.load("flowers/classifier.safetensors")
    assert (made.classes, made.config.trunk) == (CATEGORIES, "conv5_2.relu")
    assert (here / "posteriors" / "descriptor@160,224.parquet").is_file()
