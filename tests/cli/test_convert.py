"""`verydeep convert`, from the command line."""

import json
import shlex
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
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
    assert run(*words).splitlines() == [
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
