"""A network's folder of the Hugging Face hub, written and read with nobody asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.nets.run_info import RunInfo
from verydeep.nets.vgg import VGG


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture
def net() -> VGG:
    made = vd.create(
        "D",
        ["cat", "Hündin", "c"],
        width=1 / 16,
        fc_width=8,
        image_size=32,
        batch_norm=True,
        preprocessing=vd.Preprocessing(channel_order="BGR", mean=(1.0, 2.0, 3.0), pool_round_up=False),
    )
    made.provenance = RunInfo(data="pets", train_scales=(36, 72))
    return made


def test_what_is_saved_is_loaded(net: VGG, tmp_path: Path) -> None:
    assert isinstance(net, PyTorchModelHubMixin)
    net.save_pretrained(tmp_path / "repository")
    files = sorted(path.name for path in (tmp_path / "repository").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    x = torch.randn(2, 3, 40, 57)
    expected = net.eval()(x)
    for loaded in (
        vd.VGG.from_pretrained(str(tmp_path / "repository")),
        vd.load(tmp_path / "repository" / "model.safetensors"),
    ):
        assert not loaded.training
        assert torch.equal(loaded(x), expected)
        for name in ("classes", "preprocessing", "provenance", "image_size", "configuration"):
            assert getattr(loaded, name) == getattr(net, name), name


def test_the_config_and_the_card_say_what_it_is(net: VGG, tmp_path: Path) -> None:
    net.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["network"]
    assert config["configuration"] == "D"
    assert config["classes"] == ["cat", "Hündin", "c"]
    assert config["preprocessing"]["channel_order"] == "BGR"
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    for words in (
        "library_name: verydeep",
        "configuration D",
        "with batch norm",
        "BGR from 0 to",
        "- data: pets",
        "1.0, 2.0, 3.0",
    ):
        assert words in card
    assert "{" not in card.split("```")[2]  # every place of the template is filled


def test_saving_again_replaces_weights_and_keeps_the_card_that_its_owner_edited(net: VGG, tmp_path: Path) -> None:
    net.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    net.get_submodule("fc8").bias.data.fill_(7.0)  # type: ignore[union-attr, operator]
    net.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (load_file(tmp_path / "model.safetensors")["fc8.bias"] == 7).all()


def test_a_folder_without_weights_is_refused(net: VGG, tmp_path: Path) -> None:
    net.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        vd.VGG.from_pretrained(str(tmp_path))


def test_without_the_library_networks_work_and_say_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "import verydeep as vd\n"
        "net = vd.create('A', 3, width=1 / 64, fc_width=4, image_size=32)\n"
        "for call in (net.save_pretrained, net.push_to_hub, vd.VGG.from_pretrained):\n"
        "    try: call('folder')\n"
        "    except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install 'verydeep[hub]'") == 3
    assert list(tmp_path.iterdir()) == []
