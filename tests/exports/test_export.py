"""Exported files, opened by their engines alone, against a float64 computation from the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import BadImageError, UserError
from verydeep.exports import onnx_format
from verydeep.exports.export import MismatchError
from verydeep.exports.export_module import Contract
from verydeep.exports.onnx_graph import make_model
from verydeep.exports.openvino_format import import_openvino
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import describe

from .reference import KINDS, make_net, make_pictures, pixels64, score_map64, softmax64

openvino = import_openvino()

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}

# Batch, height and width: one picture and several, the least size and sides that no pool divides.
SHAPES = ((1, 64, 64), (3, 97, 131), (2, 110, 73))


def run(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Run an exported file by its engine's own interface; return its outputs by name."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))
    if path.suffix == ".xml":
        compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outputs = compiled(x)
        return {output.get_any_name(): outputs[output] for output in compiled.outputs}
    with torch.inference_mode():
        outputs = torch.export.load(path).module()(torch.tensor(x))
    return {name: output.numpy() for name, output in outputs.items()}


def shapes(net: VGG) -> list[tuple[int, int, int]]:
    return [*SHAPES, (1, net.least_size, net.least_size)]


@pytest.mark.parametrize("format_", SUFFIXES)
@pytest.mark.parametrize(("kind", "raw_input"), list(zip(KINDS, (False, True), strict=True)))
def test_the_file_computes_what_the_weights_say(format_, kind, raw_input, tmp_path, rng):
    net = make_net(kind)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    out = tmp_path / f"net{SUFFIXES[format_]}"
    done = vd.export(net.train(), format_, out, raw_input=raw_input)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert set(done.files) == set(tmp_path.iterdir())
    assert done.files[0] == out
    for n, height, width in shapes(net):
        images = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        outputs = run(out, images if raw_input else pixels64(net, images).astype(np.float32))
        score_map = score_map64(net, images)
        scores = score_map.mean(axis=(2, 3))
        assert outputs["score_map"].shape == score_map.shape
        assert np.abs(outputs["score_map"] - score_map).max() < 1e-5 * np.abs(score_map).max()
        if raw_input:
            assert np.abs(outputs["posteriors"] - softmax64(scores)).max() < 1e-4
        else:
            assert np.abs(outputs["scores"] - scores).max() < 1e-5 * np.abs(scores).max()


@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_half_precision_is_half_the_size_and_close(format_, tmp_path, rng):
    net, sizes = make_net("A-LRN"), []
    images = rng.integers(0, 256, (2, 70, 90, 3), dtype=np.uint8)
    expected = score_map64(net, images)
    for precision in ("fp32", "fp16"):
        done = vd.export(net, format_, tmp_path / f"{precision}{SUFFIXES[format_]}", precision=precision)
        outputs = run(done.files[0], pixels64(net, images).astype(np.float32))
        sizes.append(done.files[-1].stat().st_size)
        difference = np.abs(outputs["score_map"] - expected).max() / np.abs(expected).max()
        assert outputs["score_map"].dtype == np.float32
        assert difference < (1e-5 if precision == "fp32" else 1e-2)
    weights = sum(parameter.numel() for parameter in net.parameters())
    assert sizes[0] - sizes[1] == pytest.approx(2 * weights, rel=0.1)


def test_eight_bits_in_onnx(tmp_path, rng):
    net, folder = make_net("C with batch norm"), make_pictures(tmp_path / "pictures", rng)
    out = tmp_path / "net.onnx"
    done = vd.export(net, "onnx", out, raw_input=True, precision="int8", calibration=folder)
    kinds = [
        tensor.data_type for tensor in onnx.load(out).graph.initializer if tensor.name.endswith("weight_quantized")
    ]
    assert kinds == [onnx.TensorProto.INT8] * 15  # all 16 layers but fc8
    _check_eight_bits(net, done, folder)


def test_eight_bits_in_openvino(tmp_path, rng):
    net, folder = make_net("C with batch norm"), make_pictures(tmp_path / "pictures", rng)
    done = vd.export(net, "openvino", tmp_path / "net.xml", raw_input=True, precision="int8", calibration=folder)
    operations = openvino.Core().read_model(str(done.files[0])).get_ops()
    kinds = [
        str(op.get_element_type()) for op in operations if op.get_type_name() == "Constant" and op.get_output_size()
    ]
    assert kinds.count("<Type: 'int8_t'>") == 15
    _check_eight_bits(net, done, folder)


def test_eight_bits_in_torch(tmp_path, rng):
    net, folder = make_net("C with batch norm"), make_pictures(tmp_path / "pictures", rng)
    done = vd.export(net, "torch", tmp_path / "net.pt2", raw_input=True, precision="int8", calibration=folder)
    tensors = torch.export.load(done.files[0]).state_dict.values()
    assert [tensor.dtype for tensor in tensors].count(torch.int8) == 15
    (last,) = [tensor for tensor in tensors if tensor.dtype == torch.float32 and tensor.ndim == 4]
    assert torch.equal(last, net.get_submodule("fc8").weight)
    _check_eight_bits(net, done, folder)


def _check_eight_bits(net, done, folder):
    """The reported change of posteriors is the one that these pictures show, and the network is still the same one."""
    assert done.pictures == f"7 pictures of {folder}"
    assert (done.comparisons[0].height, done.comparisons[0].pictures) == (64, 1)
    found = done.comparisons[1]
    assert (found.height, found.width, found.pictures) == (64, 64, 7)
    pictures = [np.array(Image.open(folder / f"{i}.png")) for i in range(7)]
    from verydeep.exports.pictures import fit

    images = fit(pictures, 64, 64, "bilinear")
    outputs = run(done.files[0], images)
    own = score_map64(net, images)
    posteriors = softmax64(own.mean(axis=(2, 3)))
    assert np.abs(outputs["posteriors"] - posteriors).max() == pytest.approx(found.posteriors, abs=1e-4)
    assert np.abs(outputs["score_map"] - own).max() / np.abs(own).max() == pytest.approx(found.scores, abs=1e-4)
    assert found.scores > 1e-4
    assert 0 < found.posteriors < 0.2


def test_the_graph_is_clean_and_bears_the_papers_names(tmp_path):
    net = make_net("C with batch norm")
    graph = make_model(net, Contract(raw_input=True)).graph
    kinds = {node.op_type for node in graph.node}
    assert kinds == {"Cast", "Mul", "Add", "Gather", "Transpose", "Conv", "Relu", "MaxPool", "ReduceMean", "Softmax"}
    layers = [node.name for node in graph.node if node.op_type == "Conv"]
    assert layers == [name for name, layer in net.named_children() if isinstance(layer, torch.nn.Conv2d)]
    kinds = {node.op_type for node in make_model(net, Contract()).graph.node}
    assert kinds == {"Conv", "Relu", "MaxPool", "ReduceMean"}


def test_files_say_what_they_hold(tmp_path):
    net = make_net("C with batch norm")
    file = vd.export(net, "onnx", tmp_path / "net.onnx").files[0]
    assert json.loads(onnx.load(file).metadata_props[0].value) == json.loads(json.dumps(describe(net)))
    file = vd.export(net, "openvino", tmp_path / "net.xml").files[0]
    text = openvino.Core().read_model(str(file)).get_rt_info(["verydeep"]).astype(str)
    assert json.loads(text) == json.loads(json.dumps(describe(net)))


def test_a_torch_program_in_half_precision_runs_and_says_what_it_holds_without_verydeep(tmp_path, rng):
    net, images = make_net(), rng.integers(0, 256, (2, 80, 99, 3), dtype=np.uint8)
    vd.export(net, "torch", tmp_path / "net.pt2", raw_input=True, precision="fp16")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys; sys.modules['verydeep'] = None\n"
        "import numpy, torch\n"
        "about = {'verydeep.json': ''}\n"
        "program = torch.export.load('net.pt2', extra_files=about)\n"
        "assert {tensor.dtype for tensor in program.state_dict.values()} == {torch.float16}\n"
        "out = program.module()(torch.tensor(numpy.load('images.npy')))\n"
        "numpy.save('score_map.npy', out['score_map'].numpy())\n"
        "print(about['verydeep.json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(describe(net)))
    found, expected = np.load(tmp_path / "score_map.npy"), score_map64(net, images)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()


def test_a_file_that_computes_something_else_is_not_kept(tmp_path, monkeypatch):
    out = tmp_path / "net.onnx"
    out.write_text("what was there before")
    runner = onnx_format.runner

    def wrong(path):
        right = runner(path)
        return lambda x: (right(x)[0], right(x)[1] * np.float32(1.001))

    monkeypatch.setattr(onnx_format, "runner", wrong)
    with pytest.raises(MismatchError, match=r"at 64 x 64 pixels a score.* nothing was written") as caught:
        vd.export(make_net(), "onnx", out)
    assert "\n" not in str(caught.value)
    assert out.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [out]


def test_weights_that_half_precision_cannot_hold_fail_the_export(tmp_path):
    net = make_net("C with batch norm")
    weight = net.get_submodule("conv1_1").weight.data
    weight *= 1e6 / weight.abs().max()  # its greatest number is 65504
    with pytest.raises(MismatchError, match=r"by (nan|inf)"):
        vd.export(net, "onnx", tmp_path / "net.onnx", precision="fp16")
    vd.export(net, "onnx", tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_dead_units_are_no_mismatch(tmp_path):
    net = vd.create("A", 3, width=1 / 32, image_size=64, fc_width=8)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    done = vd.export(net, "onnx", tmp_path / "w.onnx")
    assert {(found.scores, found.posteriors) for found in done.comparisons} == {(0, 0)}


def test_a_map_of_another_shape_fails_the_export(tmp_path, monkeypatch):
    def write(net, contract, precision, calibration, path):
        other = make_net("A-LRN")
        other.preprocessing = vd.Preprocessing(pool_round_up=False)
        onnx.save(make_model(other, contract), str(path))

    monkeypatch.setattr(onnx_format, "write", write)
    with pytest.raises(
        RuntimeError, match=r"73 x 97: .* \(2, 7\) and \(2, 7, 1, 2\), expected \(2, 7\) and \(2, 7, 2, 3\)"
    ):
        vd.export(make_net(), "onnx", tmp_path / "net.onnx", tolerance=10.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onx"}, "expected one of onnx, openvino, torch"),
        ({"format": "onnx", "precision": "fp8"}, "expected one of fp32, fp16, int8"),
        ({"format": "onnx", "precision": "int8"}, "needs --calibration FOLDER"),
        ({"format": "onnx", "calibration": "pictures"}, "--calibration is for --precision int8"),
        ({"format": "onnx", "check": "nowhere"}, "nowhere: no such folder"),
        ({"format": "onnx", "check": "empty"}, "empty: a folder without pictures"),
        ({"format": "openvino"}, "must end in .xml"),
        ({"format": "onnx", "out": None}, "needs out"),
    ],
)
def test_wrong_requests_are_one_line_and_write_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        vd.export(make_net(), **{"out": "net.onnx", **arguments})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_damaged_picture_is_named_and_nothing_is_left(tmp_path, rng):
    folder = make_pictures(tmp_path / "pictures", rng)
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:300])
    with pytest.raises(BadImageError, match=r"5\.png"):
        vd.export(make_net(), "onnx", tmp_path / "net.onnx", precision="int8", calibration=folder)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("format_", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("onnx", "onnx", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_engine_is_named_with_its_extra(format_, package, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}, .* pip install 'verydeep\[{extra}\]'"):
        vd.export(make_net(), format_, tmp_path / f"net{SUFFIXES[format_]}")
    assert list(tmp_path.iterdir()) == []


def test_the_file_goes_beside_the_weights(tmp_path):
    vd.save(make_net(), tmp_path / "best.safetensors")
    assert vd.export(tmp_path / "best.safetensors", "onnx").files == (tmp_path / "best.onnx",)
    done = vd.export(tmp_path / "best.safetensors", "onnx", precision="fp16")
    assert done.files == (tmp_path / "best-fp16.onnx",)


def test_quantizing_tells_nobody(tmp_path, rng):
    """NNCF and OpenVINO report their use over the network, but not from here (pytest alone keeps NNCF silent)."""
    folder = make_pictures(tmp_path / "pictures", rng)
    vd.save(make_net(), tmp_path / "net.safetensors")
    code = (
        "import socket, sys\n"
        "def refuse(*_): print('somebody was told', file=sys.stderr)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import verydeep as vd\n"
        f"vd.export({str(tmp_path / 'net.safetensors')!r}, 'openvino', precision='int8', "
        f"calibration={str(folder)!r}, tolerance=1.0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "told" not in done.stderr
    assert done.stdout == ""
