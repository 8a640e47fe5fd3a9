"""Which format a file is of, and what is said where it is of none."""

import random
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.checkpoints.reading import load
from verydeep.checkpoints.writing import write
from verydeep.nets.run_info import RunInfo

ENDINGS = (".pth", ".safetensors", ".caffemodel", ".mat", ".h5", ".weights.h5", ".keras", ".onnx", ".bin", "")


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file(ending, tmp_path):
    path = tmp_path / f"w{ending}"
    with pytest.raises(UserError, match="no such weights file"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"is empty \(0 bytes\)"):
        load(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_noise(ending, tmp_path):
    path = tmp_path / f"w{ending}"
    for size in (1, 7, 8, 9, 100, 5000):
        path.write_bytes(random.randbytes(size))
        with pytest.raises(UserError, match="w") as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    (tmp_path / "w").write_text("hello, this is no network\n")
    with pytest.raises(UserError, match="no weights file of a known format; these are read: verydeep, torchvision"):
        load(tmp_path / "w")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(UserError, match="a zip archive that is neither torch's nor Keras's"):
        load(tmp_path / "w.zip")
    torch.save({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3), "fc.weight": torch.zeros(9, 5)}, tmp_path / "r.pth")
    with pytest.raises(
        UserError, match=r"conv1_1\.weight \(features\.0\.weight in the file\): expected 64 x 3 x 3 x 3"
    ):
        load(tmp_path / "r.pth")
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"conv1_1\.weight"):
        load(tmp_path / "a.safetensors")


def test_our_own_files_are_read_as_ever(tmp_path, same_network):
    net = vd.create("C", ["a", "b"], width=1 / 16, image_size=64, fc_width=8)
    vd.save(net, tmp_path / "n.safetensors")
    same_network(net, vd.load(tmp_path / "n.safetensors"))
    with pytest.raises(UserError, match="says its classes and preprocessing itself"):
        vd.load(tmp_path / "n.safetensors", classes=["c", "d"])
    vd.save(net, tmp_path / "whatever")
    same_network(net, vd.load(str(tmp_path / "whatever")))


def test_a_prototxt_beside_another_format(tmp_path):
    net = vd.create("A", ["a", "b"], width=1 / 16, image_size=64, fc_width=8)
    write(net, tmp_path / "w.pth", "torchvision")
    with pytest.raises(UserError, match=r"a prototxt goes with a \.caffemodel"):
        vd.load(tmp_path / "w.pth", prototxt="d.prototxt")


def test_damaged_metadata(tmp_path):
    net = vd.create("A", ["a", "b"], width=1 / 16, image_size=64, fc_width=8)
    write(net, tmp_path / "w.pth", "torchvision")
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    for wrong in ("{", "[]", '{"format_version": 1}', '{"format_version": 7}'):
        state._metadata[""]["verydeep"] = wrong
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(UserError, match=r"w\.pth: (verydeep's metadata is damaged|format version)"):
            vd.load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("target", "ending"),
    [
        ("torchvision", ".pth"),
        ("timm", ".safetensors"),
        ("keras", ".weights.h5"),
        ("keras", ".h5"),
        ("caffe", ".caffemodel"),
    ],
)
def test_there_and_back_through_every_format(target, ending, tmp_path, same_network):
    net = vd.create("D", 1000, width=1 / 64, image_size=96, fc_width=12, dropout=0.1)
    for layer in net.state_dict().values():
        layer.normal_()
    net.provenance = RunInfo(train_scales=(96, 192), seed=3)
    write(net, tmp_path / f"w{ending}", target)
    back = vd.load(tmp_path / f"w{ending}")
    same_network(net, back)
    with pytest.raises(UserError, match="says its classes and preprocessing itself"):
        vd.load(tmp_path / f"w{ending}", preprocessing="caffe")
    assert back.provenance.format == target
    assert replace(back.provenance, format=None, file=None, sha256=None) == net.provenance
