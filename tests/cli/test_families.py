"""The commands on networks of other papers, from training to a file for another engine."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.main import app
from verydeep.nets.architectures import ARCHITECTURES
from verydeep.scoremaps.finer import strides

NAMES = list(ARCHITECTURES)
SIDE = 96
SMALL = {"width": 1 / 16, "fc_width": 64, "image_size": SIDE}


def run(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Pictures of noise around one color a class, in splits."""
    for split, count in (("train", 12), ("val", 4)):
        for c, name in enumerate(("blue", "green", "red")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 130, (110, 120 + i, 3), dtype=np.uint8)
                image[..., 2 - c] += 120
                Image.fromarray(image).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    net = vd.create(request.param, list("abcde"), **SMALL, initialization="he", seed=1)
    vd.save(net, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


SETTINGS = (
    *("network.width=0.0625", "network.fc_width=64", f"network.image_size={SIDE}", "network.batch_norm=true"),
    *(f"images.scales=[{SIDE + 8},{SIDE + 8}]", "optimizer.batch_size=12", "schedule.epochs=2"),
    *("optimizer.learning_rate=0.01", "initialization.scheme=he", "images.divide_by_std=true"),
)


@pytest.mark.parametrize("name", NAMES)
def test_from_training_to_tables(name: str, photos: Path, tmp_path: Path) -> None:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    out = tmp_path / "run"
    run("train", "--net", name, "--data", photos, "--recipe", "paper-s256", "--out", out, *words)
    net = vd.load(out / "best.safetensors")
    assert (net.configuration.name, net.image_size, net.classes) == (name, SIDE, ("blue", "green", "red"))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in log if "loss" in line)
    where = tmp_path / "posteriors"
    scale = SIDE + 8
    protocols = [f"center@{scale}", f"dense@{scale},{scale + 20}", f"crops@{scale}", f"dense+crops@{scale}"]
    run("evaluate", out, "--data", photos, *(w for p in protocols for w in ("--protocol", p)), "--out", where)
    files = sorted(where.glob("*.parquet"))
    assert len(files) >= len(protocols)
    assert name in run("tables", tmp_path)
    assert "top-1" in run("fuse", *files[:2])
    tuned = tmp_path / "tuned"
    run("train", "--init-from", out, "--reset", net.config.classifier, "--data", photos, "--recipe", "paper-s256",
        "--set", "schedule.epochs=1", "--out", tuned)  # fmt: skip
    assert vd.load(tuned / "best.safetensors").config.width == net.config.width


@pytest.mark.parametrize("weights", NAMES, indirect=True)
def test_pictures_through_it(weights: Path, photos: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    net, picture = vd.load(weights), rng.integers(0, 256, (150, 190, 3), np.uint8)
    with torch.no_grad():
        x = net.preprocessing(torch.from_numpy(picture[None]))
        scores = net.score_map(x)[0]
    for engine in ("native", "torch"):
        found = vd.score_map(picture, weights, engine=engine, softmax=False).levels[0].values
        np.testing.assert_allclose(found, scores, atol=1e-4 * float(scores.abs().max()))
    stride = strides(vd.densify(net).layers)[1]
    finer, step = vd.score_map(picture, weights, softmax=False, stride=stride).levels[0].values, net.stride // stride
    rows, columns = scores.shape[1:]
    shared = finer[:, ::step, ::step][:, :rows, :columns]
    np.testing.assert_allclose(shared, found[:, : shared.shape[1], : shared.shape[2]], rtol=1e-4, atol=1e-3)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    text = run("predict", tmp_path / "photo.png", "--weights", weights, "--heatmap", tmp_path / "heat.png")
    assert "photo.png" in text
    vectors = vd.Descriptor(weights, scales=(SIDE, SIDE + 24)).fit().transform([picture])
    layer = net.configuration.described
    with torch.no_grad():
        width = net.activations(x, layer).shape[1]
    assert vectors.shape == (1, width)
    out = tmp_path / "transfer"
    run("transfer", "--weights", weights, "--data", photos, "--scales", f"{SIDE},{SIDE + 24}", "--out", out)
    classifier = vd.load(out / "classifier.safetensors")
    assert classifier.layer_names[-1] == net.config.classifier
    assert classifier.classes == ("blue", "green", "red")
    how = ("--protocol", f"descriptor@{SIDE},{SIDE + 24}", "--out", tmp_path / "posteriors")
    run("evaluate", out / "classifier.safetensors", "--data", photos, *how)
    assert len(vd.score_map(picture, out / "classifier.safetensors").levels[0].values) == 3


@pytest.mark.parametrize("weights", NAMES, indirect=True)
@pytest.mark.parametrize("raw_input", [False, True])
def test_in_onnx_runtime(weights: Path, raw_input: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    run("export", weights, "--format", "onnx", "--out", tmp_path / "net.onnx", *(["--raw-input"] if raw_input else []))
    net = vd.load(weights).double()
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    for height, width in ((SIDE, SIDE), (131, 117), (150, 97)):
        pictures = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        pixels = net.preprocessing(torch.from_numpy(pictures))
        with torch.no_grad():
            expected = net.score_map(pixels.double()).numpy()
        given = pictures if raw_input else pixels.numpy()
        _, found = session.run(None, {session.get_inputs()[0].name: given})
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.raises(UserError, match="is read from verydeep's own weights file alone"):
        vd.load(tmp_path / "net.onnx")


@pytest.mark.parametrize("format_", ["torch", "openvino"])
@pytest.mark.parametrize("weights", ["alexnet", "nin"], indirect=True)
def test_in_other_engines(weights: Path, format_: str, tmp_path: Path) -> None:
    end = {"torch": "pt2", "openvino": "xml"}[format_]
    run("export", weights, "--format", format_, "--out", tmp_path / f"net.{end}")  # which compares it with the network
    assert (tmp_path / f"net.{end}").is_file()


@pytest.mark.parametrize("weights", ["nin"], indirect=True)
def test_no_file_of_another_project_holds_it(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="convert --to writes the paper's networks, no nin; try export"):
        run("convert", weights, tmp_path / "n.h5", "--to", "keras")
    assert not (tmp_path / "n.h5").exists()


def test_described() -> None:
    found = json.loads(run("describe", "alexnet", "--json"))
    assert (found["parameters"], found["image_size"], found["weight_layers"]) == (60_965_224, [227, 227], 8)
    assert (found["stride"], found["window"], found["score_map"]) == (32, 227, [1, 1])
    text = run("describe", "nin", "--image-size", "300x400", "--cell", "1,2")
    assert "configuration nin: 12 weight layers, 7,595,176 parameters" in text
    assert "window rows 32 to 255, columns 64 to 287" in text
    with pytest.raises(UserError, match=r"other papers' alexnet, .* \(did you mean alexnet\?\)"):
        run("describe", "alexnt")
