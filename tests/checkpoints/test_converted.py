"""Other projects' weights given to a command as they are."""

import shlex
import socket

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.checkpoints import converted, public
from verydeep.cli.main import app
from verydeep.training.run_folder import find_weights


@pytest.fixture
def folder(tmp_path, monkeypatch, rng, tools):
    """A folder with a picture and a .pth as torchvision writes it; the cache is in it, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    converted._say.cache_clear()
    Image.fromarray(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save("photo.png")
    net = vd.create("A", 4, width=1 / 32, fc_width=8, image_size=64)
    state = {key.replace("fc6", "classifier.0").replace("fc7", "classifier.3").replace("fc8", "classifier.6"): value
             for key, value in net.state_dict().items() if not key.startswith("conv")}  # fmt: skip
    state = {key: value.flatten(1) if value.ndim > 1 else value for key, value in state.items()}
    places = {"conv1_1": 0, "conv2_1": 3, "conv3_1": 6, "conv3_2": 8, "conv4_1": 11, "conv4_2": 13}
    places |= {"conv5_1": 16, "conv5_2": 18}
    for name, place in places.items():
        layer = net.get_submodule(name)
        state |= {f"features.{place}.weight": layer.weight, f"features.{place}.bias": layer.bias}
    torch.save({key: value.detach() for key, value in state.items()}, "theirs.pth")
    return net


def run(words):
    return CliRunner().invoke(app, shlex.split(words), catch_exceptions=False)


def test_predict_takes_a_file_of_another_project(folder, tmp_path, monkeypatch):
    first = run("predict photo.png --weights theirs.pth --protocol dense@64 --json")
    assert first.exit_code == 0
    assert "theirs.pth" in first.stderr
    assert "input RGB from 0 to 1, mean 0.485" in first.stderr  # what is assumed is said
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    net = vd.load(kept)
    assert torch.equal(net.fc6.weight, folder.fc6.weight)
    assert torch.equal(net.conv5_2.weight, folder.conv5_2.weight)

    monkeypatch.setattr(converted, "load", None)  # a second conversion would fail
    again = run("predict photo.png --weights theirs.pth --protocol dense@64 --json")
    assert again.stdout == first.stdout
    assert "as converted before" in again.stderr


def test_another_file_under_the_same_name_is_converted_anew(folder, tmp_path):
    before = find_weights("theirs.pth")
    state = torch.load("theirs.pth", weights_only=True)
    torch.save({key: value + 1 for key, value in state.items()}, "theirs.pth")
    after = find_weights("theirs.pth")
    assert before != after
    assert torch.equal(vd.load(after).fc8.bias, folder.fc8.bias + 1)


def test_a_name_without_network_is_one_line(folder, tmp_path, monkeypatch):
    with socket.socket() as listener:  # a port at which nobody answers
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setattr("verydeep.checkpoints.download.ATTEMPTS", 1)
    name = "keras:vgg16-notop"
    there = public.PUBLISHED[name]
    gone = type(there)(f"http://127.0.0.1:{port}/vgg16.h5", there.digest, there.about)
    monkeypatch.setitem(public.PUBLISHED, name, gone)
    with pytest.raises(UserError, match=r"cannot be downloaded .* or fetch it elsewhere and give the file's path"):
        find_weights(name)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_what_is_no_network_leaves_nothing(folder, tmp_path):
    torch.save({"weight": torch.zeros(3)}, "other.pth")
    with pytest.raises(UserError, match=r"other\.pth"):
        find_weights("other.pth")
    assert not (tmp_path / "cache").exists()
