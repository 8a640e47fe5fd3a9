"""`verydeep convert`, from the command line."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.checkpoints.class_names import read_class_names
from verydeep.cli import convert

app = typer.Typer()
app.command()(convert.convert)


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with vgg16.pth: torchvision's names and shapes, narrow, with batch norm."""
    monkeypatch.chdir(tmp_path)
    before, layers = 3, []
    for full, depth in ((4, 2), (8, 2), (16, 3), (32, 3), (32, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(before, full, 3), nn.BatchNorm2d(full), nn.ReLU()]
            before = full
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(before * 4, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.ReLU(), nn.Dropout()]
    net = nn.Module()
    net.features, net.classifier = nn.Sequential(*layers), nn.Sequential(*head, nn.Linear(8, 3))
    torch.save(net.state_dict(), "vgg16.pth")
    return tmp_path


def test_the_example(folder):
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("│", " ").split())
    assert convert.EXAMPLE in shown
    program, command, *words = shlex.split(convert.EXAMPLE)
    assert (program, command) == ("verydeep", "convert")
    assert [line for line in run(*words).splitlines() if "assumed" not in line] == [
        "vgg16.pth: torchvision, configuration D with batch norm, 3 classes (0, ..., 2)",
        "input: RGB, 0 to 1, mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225 (R, G, B); pools round down",
        "d.safetensors",
    ]
    assert vd.load("d.safetensors").batch_norm


def test_options(folder):
    (folder / "names.txt").write_text("cat\ndog\n\nHündin\n", encoding="utf-8")
    words = ("--fold-batch-norm", "--classes", "names.txt", "--preprocessing", "caffe", "--json")
    values = json.loads(run("vgg16.pth", "d.safetensors", *words))
    assert values["classes"] == ["cat", "dog", "Hündin"]
    assert values["preprocessing"]["channel_order"] == "BGR"
    assert not values["batch_norm"]
    first, second = vd.load("vgg16.pth"), vd.load("d.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(first(x), second(x), rtol=1e-4, atol=1e-5)
    assert second.classes == ("cat", "dog", "Hündin")


@pytest.mark.parametrize(
    ("target", "name"),
    [("torchvision", "o.pth"), ("timm", "o.safetensors"), ("keras", "o.h5"), ("caffe", "o.caffemodel")],
)
def test_out_and_in_again(folder, target, name):
    run("vgg16.pth", "d.safetensors", "--fold-batch-norm")
    out = run("d.safetensors", name, "--to", target)
    assert f"{target} does not know this input by itself" in out
    back = vd.load(name)
    state = vd.load("d.safetensors").state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in back.state_dict().items())


def test_a_network_without_top_is_a_trunk(folder):
    state = {key: value for key, value in torch.load("vgg16.pth").items() if key.startswith("features")}
    torch.save(state, "bare.pth")
    assert "a trunk: the layers up to pool5, no scores; verydeep transfer" in run("bare.pth", "bare.safetensors")
    assert Path("bare.safetensors").stat().st_size < 1.1 * Path("bare.pth").stat().st_size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vgg16.pth", "d.pth"), r"d\.pth: must end in \.safetensors \(or name another project's format with --to\)"),
        (("gone.pth", "d.safetensors"), "gone.pth: no such weights file"),
        (("vgg16.pth", "d.h5", "--to", "keras"), "add --fold-batch-norm"),
        (("vgg16.pth", "d.safetensors", "--classes", "gone.txt"), "gone.txt: cannot be read"),
        (("keras:vgg16", "d.safetensors", "--offline"), "--offline forbids to download it"),
        (("keras:vgg17", "d.safetensors"), "did you mean keras:vgg1[69]"),
    ],
)
def test_wrong_requests_leave_nothing_behind(folder, words, message, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(folder / "cache"))
    with pytest.raises(UserError, match=message):
        run(*words)
    assert sorted(path.name for path in folder.iterdir()) == ["vgg16.pth"]


def test_the_input_is_stated_and_shown_back(folder):
    said = run("vgg16.pth", "w.safetensors")
    assert "input: RGB, 0 to 1, mean 0.485, 0.456, 0.406" in said
    assert "assumed, as usual in files of torchvision: this one does not say. State another one by --like" in said
    said = run(
        "vgg16.pth", "w.safetensors", "--channel-order", "bgr", "--range", "255", "--mean", "1,2,3", "--std", "2"
    )
    assert "input: BGR, 0 to 255, mean 1, 2, 3, std 2, 2, 2 (R, G, B)" in said
    assert "assumed" not in said
    given = vd.load("w.safetensors").preprocessing
    assert (given.channel_order, given.value_range, given.mean, given.std) == ("BGR", 255, (1, 2, 3), (2, 2, 2))
    said = run("vgg16.pth", "w.safetensors", "--like", "caffe", "--interpolation", "bicubic")
    assert vd.load("w.safetensors").preprocessing.interpolation == "bicubic"
    assert "input: BGR, 0 to 255, mean 123.68" in said
    with pytest.raises(UserError, match="--mean '1,2': expected a number, or three"):
        run("vgg16.pth", "w.safetensors", "--mean", "1,2")


def test_a_picture_is_tried_under_each_common_input(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)).save("photo.png")
    tried = json.loads(run("vgg16.pth", "--try", "photo.png", "--json"))["tried"]
    assert len(tried) == 7
    assert not Path("w.safetensors").exists()
    for name, like in (("caffe, keras", "caffe"), ("torchvision, timm", "torchvision")):
        run("vgg16.pth", "w.safetensors", "--like", like)
        net = vd.load("w.safetensors")
        net.preprocessing = replace(net.preprocessing, pool_round_up=False)
        top = vd.predict(net, "photo.png").top
        assert next(found for key, found in tried.items() if name in key) == [[label, value] for label, value in top]
    assert "RGB, -1 to 1: " in run("vgg16.pth", "--try", "photo.png")
    with pytest.raises(UserError, match="say which file to write, or --try"):
        run("vgg16.pth")


def test_the_trunk_alone(folder):
    whole = vd.load("vgg16.pth")
    said = run("vgg16.pth", "t.safetensors", "--trunk")
    assert "a trunk: the layers up to pool5" in said
    assert "left out: fc6, fc7, fc8" in said
    vd.save(whole, "whole.safetensors")
    run("whole.safetensors", "again.safetensors", "--trunk")
    for name in ("t.safetensors", "again.safetensors"):
        trunk = vd.load(name)
        assert (trunk.classes, trunk.layer_names[-1]) == ((), "pool5")
        x = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(trunk.activations(x, "pool5"), whole.activations(x, "pool5"))
    assert Path("t.safetensors").stat().st_size < Path("whole.safetensors").stat().st_size


def test_the_trunk_of_a_file_whose_head_is_another(folder):
    state = torch.load("vgg16.pth", weights_only=True)
    odd = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    torch.save({**odd, "attention.query.weight": torch.zeros(4, 4)}, "odd.pth")
    with pytest.raises(UserError, match=r"attention\.query"):
        run("odd.pth", "t.safetensors")
    assert "left out: extra attention.query.weight" in run("odd.pth", "t.safetensors", "--trunk")
    assert vd.load("t.safetensors").classes == ()


def test_a_runs_folder_is_converted(folder):
    net = vd.create("A", 3, width=1 / 16, image_size=64, fc_width=8, seed=0)
    Path("run").mkdir()
    vd.save(net, "run/best.safetensors")
    run("run", "w.pth", "--to", "torchvision")
    assert vd.load("w.pth").classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n.txt", b"\xef\xbb\xbfant\r\nb\xc3\xa9e\r\n\r\n"),
        ("n.json", b'["ant", "b\xc3\xa9e"]'),
        ("n.json", b'{"1": "b\xc3\xa9e", "0": "ant"}'),
        ("n.json", b'{"b\xc3\xa9e": 1, "ant": 0}'),
        ("n.txt", b'\xef\xbb\xbf{"0": ["ant"], "1": ["b\xc3\xa9e"]}'),
    ],
)
def test_class_names_as_people_have_them(name, content, folder):
    Path(name).write_bytes(content)
    assert read_class_names(Path(name)) == ["ant", "bée"]


@pytest.mark.parametrize(
    "content", ['{"0": "ant", "2": "bee"}', '{"0": "ant", "00": "bee"}', '["ant", 3]', "[1", '{"a": "b"}']
)
def test_class_names_that_are_none(content, folder):
    Path("n.json").write_text(content)
    with pytest.raises(UserError, match=r"n\.json: (expected|not valid JSON)"):
        read_class_names(Path("n.json"))
