"""Every command of the tutorials on tables, boxes and large images, in their order, with small networks."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from tests.conftest import SEED
from verydeep.cli.main import app
from verydeep.nets.run_info import RunInfo

PAGES = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
CLASSES = ("cat", "dog", "newt")
A_CLASS = 6

# All that is added: narrow networks and few steps, so that a page takes seconds.
NARROW = ["network.width=0.0625", "network.fc_width=16", "schedule.epochs=1", "schedule.least_steps=0"]
NARROW += ["optimizer.batch_size=8", "precision=float32", "schedule.warmup_epochs=0"]
BOX = """<annotation><size><width>{0}</width><height>{1}</height></size><object><name>{2}</name><bndbox><xmin>5</xmin>
<ymin>8</ymin><xmax>60</xmax><ymax>70</ymax></bndbox></object></annotation>"""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a folder of pictures with boxes in the working directory, and new.jpg."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(folder: str) -> None:
        rng = np.random.default_rng(SEED)
        for number in range(A_CLASS * len(CLASSES)):
            name = CLASSES[number % len(CLASSES)]
            height, width = (int(side) for side in rng.integers(80, 100, 2))
            picture = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            picture[..., number % len(CLASSES)] += np.uint8(100)
            path = tmp_path / folder / name / f"{number:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            path.with_suffix(".xml").write_text(BOX.format(width, height, name))
        Image.open(path).save("new.jpg")

    return make


def run_page(name: str, section: str = "") -> None:
    """Run the page's commands and Python as they stand, training narrow networks; write its preset, narrow, too.

    `section` says behind which heading to begin.
    """
    text = (PAGES / name).read_text(encoding="utf-8")
    text = text.partition(section)[2] if section else text
    for kind, block in re.findall(r"```(sh|python|toml)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            exec(compile(block, name, "exec"), {})
        elif kind == "toml":
            overrides = f"overrides = {NARROW}\n".replace("'", '"')
            Path("study.toml").write_text(re.sub(r'(recipe = "[\w-]+"\n)', rf"\1{overrides}", block), encoding="utf-8")
        else:
            for line in block.replace("\\\n", "").splitlines():
                program, *words = shlex.split(line)
                assert program == "verydeep"
                if words[0] == "train":
                    words += [word for value in NARROW for word in ("--set", value)]
                result = CliRunner().invoke(app, words, catch_exceptions=False)
                assert result.exit_code == 0, f"{line}\n{result.output}"


def test_tables(pictures: Callable[[str], None]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed (make test installs it)")
    pictures("photos")
    run_page("tables.md")
    assert Path("study/report.html").is_file()
    assert "Table 5" in CliRunner().invoke(app, ["tables", "study"]).stdout


def test_boxes(pictures: Callable[[str], None]) -> None:
    pictures("pets")
    run_page("boxes.md")
    assert list(Path("drawn").iterdir())
    assert Path("threshold.json").is_file()


@pytest.mark.usefixtures("a_process_of_its_own")
def test_large_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("zarr", "pyvips"):
        pytest.importorskip(module, reason=f"{module} is not installed (make test installs it)")
    monkeypatch.chdir(tmp_path)
    net = vd.create("A", CLASSES, width=1 / 16, image_size=64, fc_width=16, initialization="he", seed=SEED % 2**31)
    net.provenance = RunInfo(train_scales=(64, 64))
    vd.save(net, Path("runs/B/best.safetensors"))
    rng = np.random.default_rng(SEED)
    Image.fromarray(rng.integers(0, 256, (300, 420, 3), dtype=np.uint8)).save("slide.tif")
    run_page("large-images.md")
    header, *_ = Path("peaks.csv").read_text(encoding="utf-8").splitlines()
    assert "," in header
    assert Path("look.png").is_file()


def test_exports_of_annotators(pictures: Callable[[str], None]) -> None:
    pictures("export")
    for file in Path("export").rglob("*.xml"):
        file.unlink()
    tasks = []
    for path in sorted(Path("export").rglob("*.jpg")):
        width, height = Image.open(path).size
        value = {"x": 10, "y": 10, "width": 60, "height": 70, "rotation": 0, "rectanglelabels": [path.parent.name]}
        region = {"type": "rectanglelabels", "from_name": "box", "to_name": "picture", "value": value}
        region |= {"original_width": width, "original_height": height}
        points = {"points": [[10, 10], [70, 10], [70, 80], [10, 80]], "polygonlabels": [path.parent.name]}
        area = {**region, "type": "polygonlabels", "from_name": "area", "value": points}
        image = {"image": f"/data/upload/1/0a1b2c3d-{path.name}"}
        tasks.append({"data": image, "annotations": [{"result": [region, area]}]})
    Path("export/project-1.json").write_text(json.dumps(tasks), encoding="utf-8")
    net = vd.create("B", ("cat", "dog"), width=1 / 16, image_size=64, fc_width=16, batch_norm=True, seed=0)
    net.provenance = RunInfo(train_scales=(64, 64))
    vd.save(net, Path("runs/B/best.safetensors"))
    run_page("../annotators.md", "## Back again")
    assert vd.load("runs/B2/best.safetensors").classes == CLASSES
    assert Path("runs/B2-boxes/card.md").is_file()
    assert vd.load("runs/B2-pixels/best.safetensors").classes == ("background", *CLASSES)
