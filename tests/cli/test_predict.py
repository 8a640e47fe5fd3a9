"""`verydeep predict`, from pictures to words."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.predict import predict
from verydeep.nets.run_info import RunInfo

app = typer.Typer()
app.command()(predict)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    net = vd.create("A", list("abcdefgh"), width=1 / 16, image_size=64, fc_width=16, seed=1)
    net.provenance = RunInfo(train_scales=(64, 96))
    path = tmp_path_factory.mktemp("predict") / "net.safetensors"
    vd.save(net, path)
    return path


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(2)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("one.png", "two.jpg"):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(folder / name)
    return folder


def _run(weights, *words):
    result = CliRunner().invoke(app, ["--weights", str(weights), *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_classes_and_posteriors_are_printed(weights, pictures):
    result = _run(weights, pictures / "one.png", "--top", "3")
    expected = vd.predict(weights, pictures / "one.png", top=3)
    lines = result.stdout.splitlines()
    assert lines[0] == f"{pictures / 'one.png'} (dense@80)"
    assert [line.split() for line in lines[1:]] == [[name, f"{value:.1%}"] for name, value in expected.top]


def test_json_of_a_folder(weights, pictures):
    rows = json.loads(_run(weights, pictures, "--json", "--protocol", "crops@64").stdout)
    assert [row["image"] for row in rows] == [str(pictures / "one.png"), str(pictures / "two.jpg")]
    for row in rows:
        expected = vd.predict(weights, row["image"], "crops@64")
        assert row["protocol"] == "crops@64"
        assert [guess["class"] for guess in row["top"]] == [name for name, _ in expected.top]
        assert [guess["posterior"] for guess in row["top"]] == pytest.approx([value for _, value in expected.top])


def test_a_bad_picture_is_named_and_the_others_are_predicted(weights, pictures):
    (pictures / "not.png").write_text("no picture")
    result = _run(weights, pictures, pictures / "gone.png", "--json")
    assert result.exit_code == 2
    rows = {row["image"].rpartition("/")[2]: row for row in json.loads(result.stdout)}
    assert "top" in rows["one.png"]
    assert "top" in rows["two.jpg"]
    assert rows["gone.png"]["error"] == "no such file or directory"
    assert len([line for line in result.stderr.splitlines() if "not.png" in line or "gone.png" in line]) == 2


def test_a_heatmap_is_drawn(weights, pictures, tmp_path):
    result = _run(weights, pictures / "two.jpg", "--heatmap", tmp_path / "new" / "heat.png")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(tmp_path / "new" / "heat.png")
    assert min(Image.open(tmp_path / "new" / "heat.png").size) > 300
    with pytest.raises(UserError, match="2 pictures are given; name a folder for their drawings"):
        _run(weights, pictures, "--heatmap", tmp_path / "other.png")
    with pytest.raises(UserError, match="must end in"):
        _run(weights, pictures / "two.jpg", "--heatmap", tmp_path / "heat.doc")
    assert not (tmp_path / "other.png").exists()


@pytest.mark.parametrize(
    ("words", "message"), [(("--protocol", "dense@20"), "the least is 33"), (("--top", "0"), "at least one class")]
)
def test_wrong_requests_are_refused(weights, pictures, words, message):
    with pytest.raises(UserError, match=message):
        _run(weights, pictures, *words)


def test_several_are_drawn_and_written_as_csv(weights, pictures, tmp_path):
    result = _run(weights, pictures, "--heatmap", tmp_path / "maps", "--csv", tmp_path / "top.csv", "--json")
    names = [Path(row["image"]) for row in json.loads(result.stdout) if "top" in row]
    assert {file.name for file in (tmp_path / "maps").iterdir()} == {f"{name.stem}.png" for name in names}
    with (tmp_path / "top.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = json.loads(result.stdout)[0]
    found = [(row["image"], row["rank"], row["class"], float(row["posterior"])) for row in rows[: len(first["top"])]]
    assert found == [(first["image"], str(i), one["class"], one["posterior"]) for i, one in enumerate(first["top"], 1)]


def test_what_a_folder_holds_beside_pictures_is_told(weights, pictures, tmp_path):
    (pictures / "more").mkdir()
    for name in ("a.txt", "b.TXT", "more/c.json", "LICENSE"):
        (pictures / name).write_text("{}")
    (pictures / ".hidden").write_text("")
    result = _run(weights, pictures, "--json", "--csv", tmp_path / "top.csv")
    assert result.exit_code == 0
    *rows, last = json.loads(result.stdout)
    assert [Path(row["image"]).name for row in rows] == ["one.png", "two.jpg"]
    first = [str(pictures / name) for name in ("LICENSE", "a.txt", "b.TXT", "more/c.json")]
    assert last == {"skipped": 4, "by_ending": {".txt": 2, "": 1, ".json": 1}, "first": first}
    (line,) = [line for line in result.stderr.splitlines() if "skipped" in line]
    assert line == (
        "verydeep: note: skipped 4 files that are no pictures (2 .txt, 1 without an ending, 1 .json): "
        f"{', '.join(first[:3])} and 1 more"
    )
    assert "skipped" not in (tmp_path / "top.csv").read_text()
    assert "skipped" not in _run(weights, pictures / "one.png", "--json").stdout
