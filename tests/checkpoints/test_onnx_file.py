"""ONNX files in the forms in which exporters write VGGs, built with ONNX's own helpers and read by its own runtime."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import verydeep as vd
from verydeep.basics.errors import UserError

onnx = pytest.importorskip("onnx", reason="onnx is not installed (make test installs it)")
from onnx import helper, numpy_helper  # noqa: E402

EXACT = 1e-4


class Graph:
    """Nodes as an exporter writes them: `style` is torch, keras (channels last, no Gemm) or caffe2 (padded pools)."""

    def __init__(self, plain, style):
        self.nodes, self.constants, self.style, self.x = [], [], style, "input"
        block = "1"
        norms = iter([m for m in plain.net.modules() if isinstance(m, torch.nn.BatchNorm2d)])
        for name, weight, bias in plain.layers():
            if name.startswith("fc"):
                if block != "done":
                    self.pool()
                    self.flatten()
                    block = "done"
                self.connected(name, weight, bias)
            else:
                if name[4] > block:
                    self.pool()
                    block = name[4]
                pads = [weight.shape[2] // 2] * 4
                self.add("Conv", [self.constant(name, weight), self.constant(f"{name}b", bias)], pads=pads)
                norm = next(norms, None)
                if norm is not None:
                    parts = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
                    values = [self.constant(f"{name}n{i}", p.detach().numpy()) for i, p in enumerate(parts)]
                    self.add("BatchNormalization", values, epsilon=norm.eps)
            if name != "fc8":
                self.add("Relu")

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind, inputs=(), **attributes):
        out = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.x, *inputs], [out], **attributes))
        self.x = out

    def pool(self):
        if self.style == "caffe2":
            self.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])
        else:
            self.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])

    def flatten(self):
        if self.style == "keras":
            self.add("Transpose", perm=[0, 2, 3, 1])
            self.add("Reshape", [self.constant("flat", np.array([-1, 128]))])
        else:
            self.add("Flatten", axis=1)

    def connected(self, name, weight, bias):
        if self.style == "keras":
            if name == "fc6":
                weight = weight.reshape(-1, 32, 2, 2).transpose(0, 2, 3, 1).reshape(len(weight), -1)
            self.add("MatMul", [self.constant(name, weight.T)])
            self.add("Add", [self.constant(f"{name}b", bias)])
        else:
            transposed = self.style != "caffe2"
            values = [self.constant(name, weight if transposed else weight.T), self.constant(f"{name}b", bias)]
            self.add("Gemm", values, **({"transB": 1} if transposed else {}))

    def model(self):
        graph = helper.make_graph(
            self.nodes,
            "vgg",
            [helper.make_tensor_value_info("input", 1, ["n", 3, "h", "w"])],
            [helper.make_tensor_value_info(self.x, 1, ["n", 10])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        return model


@pytest.mark.parametrize("style", ["torch", "keras", "caffe2"])
@pytest.mark.parametrize("letter", "ACDE")
def test_same_logits_as_the_network_that_was_written(letter, style, tools, photographs, tmp_path):
    plain = tools.make_plain(letter, ceil=style == "caffe2")
    onnx.save(Graph(plain, style).model(), tmp_path / "w.onnx")
    net = vd.load(tmp_path / "w.onnx")
    assert (net.configuration.name, net.image_size) == (letter, 64)
    assert net.preprocessing.pool_round_up == (style == "caffe2")
    expected = plain(tools.prepare(photographs(64), "torchvision"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


def test_the_content_tells_the_format(tools, photographs, tmp_path):
    plain = tools.make_plain("D")
    onnx.save(Graph(plain, "torch").model(), tmp_path / "weights")
    net = vd.load(tmp_path / "weights", preprocessing="caffe")
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


@pytest.mark.parametrize("variant", ["batch norm", "other epsilon", "no bias", "float16", "constants", "beside"])
def test_other_ways_to_write_it(variant, tools, photographs, tmp_path):
    plain = tools.make_plain("B", batch_norm=variant in ("batch norm", "other epsilon", "no bias"))
    for module in plain.net.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and variant == "other epsilon":
            module.eps = 0.01
        if isinstance(module, torch.nn.Conv2d) and variant == "no bias":
            module.bias.data.zero_()
        if variant == "float16" and isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.half().float()
    model = Graph(plain, "torch").model()
    if variant == "no bias":
        for node in model.graph.node:
            if node.op_type == "Conv":
                del node.input[2]
    elif variant == "float16":
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    elif variant == "constants":
        tensor = model.graph.initializer.pop()
        model.graph.node.insert(0, helper.make_node("Constant", [], [f"{tensor.name}c"], value=tensor))
        model.graph.node.insert(1, helper.make_node("Identity", [f"{tensor.name}c"], [tensor.name]))
    beside = {"save_as_external_data": True, "location": "w.onnx.data", "size_threshold": 0}
    onnx.save(model, tmp_path / "w.onnx", **(beside if variant == "beside" else {}))
    expected = plain(tools.prepare(photographs(64), "torchvision"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.onnx"), photographs(64)), expected) < EXACT
    if variant == "beside":
        (tmp_path / "w.onnx.data").write_bytes((tmp_path / "w.onnx.data").read_bytes()[:-10])
        with pytest.raises(UserError, match=r"w.onnx.data is too short"):
            vd.load(tmp_path / "w.onnx")
        (tmp_path / "else").mkdir()
        (tmp_path / "w.onnx.data").rename(tmp_path / "else" / "secret")
        (tmp_path / "w.onnx.data").symlink_to(tmp_path / "else" / "secret")
        with pytest.raises(UserError, match=r"'w.onnx.data' are a link out of its folder, which is not followed"):
            vd.load(tmp_path / "w.onnx")
        for tensor in model.graph.initializer:
            if tensor.external_data:
                tensor.external_data[0].value = "../secret"
        (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(UserError, match=r"'../secret'; only a file in the same folder is read"):
            vd.load(tmp_path / "w.onnx")


def test_local_response_normalization(tools, tmp_path):
    for bias, place in ((2.0, 2), (1.0, 2), (2.0, 5)):
        graph = Graph(tools.make_plain("A"), "torch")
        before = graph.nodes[place - 1].output[0]
        node = helper.make_node("LRN", [before], ["lrn"], size=5, alpha=5e-4, beta=0.75, bias=bias)
        graph.nodes[place].input[0] = "lrn"
        graph.nodes.insert(place, node)
        onnx.save(graph.model(), tmp_path / "w.onnx")
        if (bias, place) == (2.0, 2):
            net = vd.load(tmp_path / "w.onnx")
            assert (net.configuration.name, net.config.lrn_alpha) == ("A-LRN", 1e-4)
        else:
            with pytest.raises(UserError, match=r"lrn: expected .* k 2 in the first block, .* found"):
                vd.load(tmp_path / "w.onnx")


def test_the_runtime_agrees(tools, photographs, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx.save(Graph(tools.make_plain("D"), "keras").model(), tmp_path / "w.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "w.onnx"), providers=["CPUExecutionProvider"])
    x = tools.prepare(photographs(64), "torchvision").astype(np.float32)
    expected = session.run(None, {"input": x})[0]
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.onnx"), photographs(64)), expected) < EXACT


def spoil(model, change):
    """Spoil a model; return what must be said of it."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = model.graph.node
    if change == "missing layer":
        for node in list(nodes):
            if "conv3_2" in node.input:
                following = next(other for other in nodes if node.output[0] in other.input)
                following.input[0] = node.input[0]
                nodes.remove(node)
        return r"conv3_[123].weight.*: expected 16 x \d+ x 3 x 3, found no such layer"
    if change == "another shape":
        tensors["conv4_1"].dims[:] = [16, 32, 3, 3]
        return r"conv4_1.weight.*: expected 32 x 16 x 3 x 3, found (no such layer|16 x 32)"
    if change == "shape that lies":
        tensors["fc7"].dims[0] = 2**40
        return r"expected \(1099511627776, 24\) = .* values, found 576"
    if change == "not a number":
        values = numpy_helper.to_array(tensors["fc7"]).copy()
        values[3, 3] = np.nan
        tensors["fc7"].CopyFrom(numpy_helper.from_array(values, "fc7"))
        return r"fc7.weight .*: expected numbers, found 1 of 576"
    if change == "whole numbers":
        tensors["fc7"].data_type = 7
        return "expected numbers with a fraction"
    if change == "other pool":
        next(node for node in nodes if node.op_type == "MaxPool").attribute[0].ints[:] = [3, 3]
        return "expected a 2 x 2 max-pool of stride 2, found 3 x 3 of stride 2"
    if change == "fewer pools":
        next(node for node in nodes if node.op_type == "MaxPool").op_type = "AveragePool"
        return "MaxPool_4: is AveragePool; expected a 2 x 2 max-pool of stride 2 behind Relu_3: is it another network"
    if change == "dilated":
        next(node for node in nodes if "conv5_1" in node.input).attribute.add(name="dilations", type=7, ints=[2, 2])
        return "expected dilation 1, found 2"
    del nodes[9:]
    return r"conv3_1\.weight: expected 16 x 8 x 3 x 3, found no such layer"


@pytest.mark.parametrize(
    "change",
    [
        "missing layer", "another shape", "shape that lies", "not a number", "whole numbers", "other pool",
        "fewer pools", "dilated", "another network",
    ],
)  # fmt: skip
def test_damage_is_named(change, tools, tmp_path):
    model = Graph(tools.make_plain("D"), "torch").model()
    said = spoil(model, change)
    (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / "w.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.9999])
def test_a_file_cut_off(share, tools, tmp_path):
    data = Graph(tools.make_plain("D"), "torch").model().SerializeToString()
    (tmp_path / "w.onnx").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"w\.onnx"):
        vd.load(tmp_path / "w.onnx")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9), st.booleans()), min_size=1))
def test_random_damage_of_the_graph_is_one_line_or_harmless(changes, small, tmp_path):
    data = bytearray(small)
    for share, payload, insert in changes:
        at = int(share * len(data))
        data[at : at if insert else at + len(payload)] = payload
    (tmp_path / "w.onnx").write_bytes(data)
    try:
        vd.load(tmp_path / "w.onnx")
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def small(tools):
    """A small network's file, its weights in one place, so that most damage falls on the graph."""
    graph = Graph(tools.make_plain("A", width=1 / 64, fc=2, window=1, classes=2), "torch")
    graph.x = "out"
    model = helper.make_model(helper.make_graph(graph.nodes, "g", [helper.make_tensor_value_info("input", 1, None)],
                                                [], graph.constants))  # fmt: skip
    return model.SerializeToString()
