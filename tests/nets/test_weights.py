import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.nets.families import load
from verydeep.nets.run_info import RunInfo
from verydeep.nets.vgg import VGG


def net() -> VGG:
    made = vd.create(
        "A-LRN",
        classes=["cat", "Hündin", "c"],
        width=1 / 16,
        fc_width=8,
        image_size=32,
        batch_norm=True,
        dropout=0.25,
        lrn_alpha=2e-5,
        preprocessing=vd.Preprocessing(channel_order="BGR", mean=(1.0, 2.0, 3.0), pool_round_up=False),
    )
    made.provenance = RunInfo(data="x", train_scales=(36, 72))
    return made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = net()
    saved.get_submodule("bn1_1").running_var.uniform_(1, 2)
    vd.save(saved, tmp_path / "n.safetensors")
    loaded = load(tmp_path / "n.safetensors")
    assert (loaded.config, loaded.provenance) == (saved.config, saved.provenance)
    assert not loaded.training
    x = torch.randn(2, 3, 40, 57)
    assert torch.equal(loaded(x), saved.eval()(x))
    assert list(tmp_path.iterdir()) == [tmp_path / "n.safetensors"]


def test_channels_last_weights_are_saved_the_same(tmp_path: Path) -> None:
    saved = net()
    vd.save(saved, tmp_path / "a.safetensors")
    vd.save(saved.to(memory_format=torch.channels_last), tmp_path / "b.safetensors")  # type: ignore[call-overload]
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def rewrite(path: Path, change: str) -> str:
    """Spoil a weights file in one way; return what the message must say."""
    tensors, metadata = load_file(path), json.loads(_metadata(path)["verydeep"])
    if change == "missing":
        del tensors["conv3_1.bias"]
        said = "conv3_1.bias: expected .* found no such tensor"
    elif change == "extra":
        tensors["conv9_9.weight"] = torch.zeros(1)
        said = "conv9_9.weight: expected no such tensor"
    elif change == "shape":
        tensors["fc7.weight"] = torch.zeros(8, 9, 1, 1)
        said = r"fc7.weight: expected \(8, 8, 1, 1\), found \(8, 9, 1, 1\)"
    else:
        metadata["format_version"] = 99
        said = "format version 99"
    save_file(tensors, path, {"verydeep": json.dumps(metadata)})
    return said


def _metadata(path: Path) -> dict[str, str]:
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    found: dict[str, str] = json.loads(header[8 : 8 + size])["__metadata__"]
    return found


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "version"])
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "n.safetensors"
    vd.save(net(), path)
    said = rewrite(path, change)
    with pytest.raises(UserError, match=said):
        load(path)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match="no such weights file"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="without verydeep's metadata"):
        load(path)
    for damaged in ("{", '{"format_version": 1}'):
        save_file({"a": torch.zeros(1)}, path, {"verydeep": damaged})
        with pytest.raises(UserError, match="verydeep's metadata is damaged"):
            load(path)
    vd.save(net(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load(path)
