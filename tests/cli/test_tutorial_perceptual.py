"""Every cell of docs/tutorials/perceptual.md, in its order, with a narrow trunk and a few pictures."""

import re
import shlex
from importlib.util import find_spec

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from tests.cli.test_tutorial_few_photographs import ROOT, photographs
from tests.perceptual.conftest import fitted, net  # noqa: F401 (fixtures)
from verydeep.cli.main import app
from verydeep.nets.run_info import RunInfo


@pytest.fixture
def here(tmp_path, monkeypatch, net, fitted):  # noqa: F811
    """What the tutorial says is needed, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("verydeep.perceptual.lpips.installed", lambda *names: fitted.lpips)
    photographs(tmp_path / "photos")
    picture = next((tmp_path / "photos" / "sunflower").iterdir())
    (tmp_path / "new.jpg").write_bytes(picture.read_bytes())
    Image.effect_noise((80, 80), 90).convert("RGB").save("painting.jpg")
    vd.save(net, tmp_path / "trunk.safetensors")
    classifier = vd.create("A", "xy", width=1 / 16, image_size=64, fc_width=32, initialization="he")
    classifier.provenance = RunInfo(train_scales=(64, 64))
    vd.save(classifier, tmp_path / "classifier.safetensors")
    return tmp_path


def test_the_cells_run_one_after_another(here, capsys):
    text = (ROOT / "docs" / "tutorials" / "perceptual.md").read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "python", "python", "python", "sh", "sh", "sh"]
    values = {}
    for kind, cell in blocks:
        if kind == "python":
            exec(compile(cell.replace("steps=40", "steps=4"), "tutorial", "exec"), values)
            continue
        for line in cell.splitlines():
            program, *words = shlex.split(line)
            assert program == "verydeep"
            if words[0] == "explain" and find_spec("captum") is None:
                print(f"captum is not installed: {line} is left out")
                continue
            result = CliRunner().invoke(app, words, catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows if re.fullmatch(r"\D+ +0\.\d{4} \d+\.\d{4}", row)] == [
        "bicubic",
        "by pixels",
        "by features",
    ]
    assert values["large"].shape[1:] == (3, 64, 64)
    assert all(p.grad is None for p in values["trunk"].parameters())
    moved = [values["learned"](w, 2).layers[-1].weight for w in (0, values["weight"])]
    assert not torch.equal(*moved)
    for name in ("where.png", "painted.jpg", *(("why.png", "edges.png") if find_spec("captum") else ())):
        assert (here / name).is_file(), name
