"""Every engine gives the same scores; `auto` follows its rule."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.main import app
from verydeep.engines import library
from verydeep.inference.runtime import FEW, layers_by, pick_engine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BUILT = library.find() is not None
FAST = BUILT and library.best_processor() != "portable"
ENGINES = ["torch"] + ["native"] * BUILT


@pytest.fixture(scope="module")
def net():
    options = {"classes": 7, "width": 1 / 8, "image_size": 64, "fc_width": 24}
    return vd.create("B", initialization="he", seed=0, **options).eval()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """A weights file and a picture."""
    folder = tmp_path_factory.mktemp("engine")
    vd.save(net, folder / "net.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layer", ["conv1_1", "conv3_2.relu", "pool4", "fc6.relu", "fc7", "fc8"])
def test_every_engine_gives_every_layer(net, engine, layer):
    run = layers_by(engine, net, layer)
    for shape in ((2, 3, 64, 64), (1, 3, 70, 131)):
        x = torch.randn(shape) * 60
        with torch.inference_mode():
            found, expected = run(x), net.activations(x, layer)
        assert found.shape == expected.shape
        assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_goes_on_from_a_layer(net, engine):
    x = torch.randn(2, 3, 100, 131) * 60
    with torch.inference_mode():
        features, expected = net.activations(x, "pool5"), net.score_map(x)
        found = layers_by(engine, net, after="pool5")(features)
        assert float((net.activations(features, "fc8", after="pool5") - expected).abs().max()) == 0
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_norm_and_its_layers(engine):
    net = vd.create("A", classes=5, width=1 / 8, image_size=64, fc_width=24, batch_norm=True, seed=0).eval()
    x = torch.randn(1, 3, 64, 64) * 60
    for layer in ("conv2_1", "conv2_1.relu"):
        with torch.inference_mode():
            found, expected = layers_by(engine, net, layer)(x), net.activations(x, layer)
        assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_auto_follows_its_rule():
    native = "native" if FAST else "torch"
    assert pick_engine("auto", CPU) == native
    assert pick_engine("auto", CPU, images=FEW) == native
    assert pick_engine("auto", CPU, images=FEW - 1) == "torch"
    assert pick_engine("auto", CPU, "bf16") == "torch"
    assert pick_engine("auto", CUDA) == "torch"
    assert pick_engine("torch", CUDA, "bf16") == "torch"


def test_engines_that_cannot_do_it_say_so():
    with pytest.raises(UserError, match="engine native runs on the CPU in float32"):
        pick_engine("native", CUDA)
    with pytest.raises(UserError, match="not on cpu in bf16"):
        pick_engine("native", CPU, "bf16")
    with pytest.raises(UserError, match="expected one of auto, native, torch"):
        pick_engine("openvino", CPU)


@pytest.mark.parametrize("engine", ENGINES)
def test_predict_by_every_engine(files, engine):
    words = ["predict", str(files / "picture.png"), "--weights", str(files / "net.safetensors"), "--json"]
    answers = []
    for name in (engine, "torch"):
        result = CliRunner().invoke(app, [*words, "--engine", name])
        assert result.exit_code == 0, result.output
        answers.append({row["class"]: row["posterior"] for row in json.loads(result.stdout)[0]["top"]})
    assert answers[0] == pytest.approx(answers[1], abs=1e-4)


def test_evaluation_records_its_engine_and_continues_by_another(files, tmp_path):
    net = vd.create(
        "A", classes=vd.open_dataset("scenes", "test").classes, width=1 / 8, image_size=64, fc_width=16, seed=0
    )
    data = vd.open_dataset("scenes", "test").subset(range(20))
    by_torch = vd.evaluate(net, data, "dense@64", engine="torch", cache=tmp_path)
    assert by_torch.metadata["engine"] == "torch"
    again = vd.evaluate(net, data, "dense@64", engine="auto", cache=tmp_path)  # already there
    assert again.metadata["engine"] == "torch"
    by_auto = vd.evaluate(net, data, "dense@64")
    assert by_auto.metadata["engine"] == ("native" if FAST else "torch")
    np.testing.assert_allclose(by_auto.probabilities, by_torch.probabilities, atol=1e-5)


def test_features_by_another_engine(files):
    picture = [str(files / "picture.png")]
    rows = [
        vd.Descriptor(files / "net.safetensors", scales=(64, 96), engine=engine).transform(picture)
        for engine in ENGINES
    ]
    for other in rows[1:]:
        np.testing.assert_allclose(other, rows[0], atol=1e-5)


@pytest.mark.skipif(not BUILT, reason=library.MISSING)
def test_sixteen_bits_are_recorded_and_not_mixed_with_others(files, tmp_path):
    data = tmp_path / "data"
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (data / name).mkdir(parents=True)
        for number in range(3):
            shutil.copy(files / "picture.png", data / name / f"{number}.png")
    words = ["evaluate", str(files / "two.safetensors"), "--data", str(data), "--protocol", "dense@64", "--out"]
    net = vd.create("B", ["a", "b"], width=1 / 8, image_size=64, fc_width=24, initialization="he", seed=0)
    vd.save(net, files / "two.safetensors")
    for precision in ("float32", "fixed16"):
        done = CliRunner().invoke(app, [*words, str(tmp_path / precision), "--precision", precision])
        assert done.exit_code == 0, done.output
    found = [vd.Posteriors.read(tmp_path / name / "dense@64.parquet") for name in ("float32", "fixed16")]
    difference = np.abs(found[0].probabilities - found[1].probabilities).max()
    assert 0 < difference < 1e-3
    assert found[1].metadata["options"]["precision"] == "fixed16"
    other = CliRunner().invoke(app, [*words, str(tmp_path / "float32"), "--precision", "fixed16"])
    assert isinstance(other.exception, UserError)


@pytest.mark.skipif(not BUILT, reason=library.MISSING)
def test_sixteen_bits_are_every_commands(files, tmp_path):
    net = vd.create("B", ["a", "b"], width=1 / 8, image_size=64, fc_width=24, initialization="he", seed=0)
    net.fc8.weight.data *= 1e-3  # lest the posterior be 1
    vd.save(net, tmp_path / "two.safetensors")
    picture, weights = str(files / "picture.png"), str(tmp_path / "two.safetensors")
    found, descriptors = {}, {}
    for precision in ("float32", "fixed16"):
        out = tmp_path / f"{precision}.parquet"
        words = ["predict", picture, "--weights", weights, "--precision", precision, "--json"]
        found[precision] = json.loads(CliRunner().invoke(app, words).output)[0]["top"][0]["posterior"]
        words = [
            "features",
            picture,
            "--weights",
            weights,
            "--scales",
            "64",
            "--out",
            str(out),
            "--cache",
            str(tmp_path),
        ]
        assert CliRunner().invoke(app, [*words, "--precision", precision]).exit_code == 0
        descriptors[precision] = np.stack(pq.read_table(out)["descriptor"].to_numpy())
    assert 0 < abs(found["float32"] - found["fixed16"]) < 1e-3
    # From one cache, which has to tell them apart.
    assert 0 < np.abs(descriptors["float32"] - descriptors["fixed16"]).max() < 1e-2


def test_sixteen_bits_need_the_native_engine(monkeypatch):
    for name, device in (("torch", CPU), ("auto", CUDA)):
        with pytest.raises(UserError, match="precision fixed16 is the native engine's"):
            pick_engine(name, device, "fixed16")
    monkeypatch.setattr(library, "find", lambda: None)
    monkeypatch.setattr(library, "load", _missing)
    with pytest.raises(UserError, match="not built"):
        pick_engine("auto", CPU, "fixed16")


def _missing():
    raise UserError("the native library was not built")
