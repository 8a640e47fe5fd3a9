"""Files that say what they compute: every one is computed so, or refused by the name of the layer that is another."""

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.nets.run_info import RunInfo

onnx = pytest.importorskip("onnx", reason="onnx is not installed (make test installs it)")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (make test installs it)")
from onnx import helper, numpy_helper  # noqa: E402

from .test_onnx_file import Graph  # noqa: E402

EXACT = 1e-4


class Written(Graph):
    """An exporter's graph that a test changes: nodes put in, others taken out, constants added."""

    def __init__(self, plain, style="torch", before=(), behind=()):
        self.before, self.behind, self.started = before, behind, False
        super().__init__(plain, style)
        for kind, inputs, attributes in behind:
            self.add(kind, self._constants(inputs), **attributes)

    def add(self, kind, inputs=(), **attributes):
        if not self.started:
            self.started = True
            for other, values, about in self.before:
                super().add(other, self._constants(values), **about)
        super().add(kind, inputs, **attributes)

    def _constants(self, inputs):
        return [self.constant(f"c{len(self.constants)}", np.asarray(values)) for values in inputs]

    def node(self, kind, place=0):
        return [node for node in self.nodes if node.op_type == kind][place]

    def replace(self, kind, by, place=0, **attributes):
        """Make another kind of a node; `place` counts those of its kind."""
        node = self.node(kind, place)
        self.nodes[self.nodes.index(node)] = helper.make_node(by, node.input, node.output, **attributes)

    def save(self, path):
        onnx.save(self.model(), path)
        return runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


def says(session, x):
    return session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x, np.float32)})[0]


def pixels(pictures):
    return pictures.transpose(0, 3, 1, 2)


def floats(*values):
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


MEAN, STD = floats(0.485, 0.456, 0.406), floats(0.229, 0.224, 0.225)
# What a graph does to its input, what is given to it, and the preprocessing that this is.
INPUTS = {
    "to 1, mean, deviation": (
        [("Div", [floats(255)], {}), ("Sub", [MEAN], {}), ("Div", [STD], {})],
        lambda p: pixels(p),
        ("RGB", 255, (123.675, 116.28, 103.53)),
    ),
    "mean and deviation of pictures up to 1": (
        [("Sub", [MEAN], {}), ("Div", [STD], {})],
        lambda p: pixels(p) / 255,
        ("RGB", 1, (0.485, 0.456, 0.406)),
    ),
    "from -1 to 1": ([("Mul", [floats(1 / 127.5)], {}), ("Add", [floats(-1)], {})], pixels, ("RGB", 255, (127.5,) * 3)),
    "channels turned, then a mean": (
        [("Gather", [np.array([2, 1, 0])], {"axis": 1}), ("Sub", [floats(103.939, 116.779, 123.68)], {})],
        pixels,
        ("BGR", 255, (123.68, 116.779, 103.939)),
    ),
    "a mean, then channels turned": (
        [("Sub", [floats(123.68, 116.779, 103.939)], {}), ("Gather", [np.array([2, 1, 0])], {"axis": 1})],
        pixels,
        ("BGR", 255, (123.68, 116.779, 103.939)),
    ),
    "batch norm": (
        [("BatchNormalization", [np.float32([1, 2, 3]), np.float32([1, 0, 2]), np.float32([120, 110, 100]),
                                 np.float32([3000, 3100, 3200])], {})],
        pixels,
        ("RGB", 255, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", INPUTS)
def test_what_a_graph_does_to_its_input_becomes_preprocessing(kind, tools, photographs, tmp_path):
    before, given, (order, most, mean) = INPUTS[kind]
    session = Written(tools.make_plain("A"), before=before).save(tmp_path / "w.onnx")
    net = vd.load(tmp_path / "w.onnx")
    assert (net.preprocessing.channel_order, net.preprocessing.value_range) == (order, most)
    assert mean is None or np.allclose(net.preprocessing.mean, mean)
    expected = says(session, given(photographs(64)))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


def test_a_user_may_say_what_goes_into_such_a_graph(tools, photographs, tmp_path):
    session = Written(tools.make_plain("A"), before=[("Mul", [floats(0.5)], {})]).save(tmp_path / "w.onnx")
    net = vd.load(tmp_path / "w.onnx", preprocessing="caffe")
    expected = says(session, tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


# Changes that leave a graph computing what a VGG does, told otherwise.
def _weights_through_transpose(graph):
    for node in [node for node in graph.nodes if node.op_type == "Gemm"]:
        name = node.input[1]
        constant = next(c for c in graph.constants if c.name == name)
        turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(constant).T), f"{name}.T")
        graph.constants.append(turned)
        graph.nodes.insert(0, helper.make_node("Transpose", [turned.name], [f"{name}.turned"], perm=[1, 0]))
        node.input[1] = f"{name}.turned"


def _flatten_by_the_shape(graph):
    node, at = graph.node("Flatten"), graph.nodes.index(graph.node("Flatten"))
    graph.constant("first", np.array([0]))
    graph.constant("rest", np.array([-1]))
    graph.nodes[at : at + 1] = [
        helper.make_node("Shape", [node.input[0]], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", [node.input[0], "to"], list(node.output)),
    ]


def _border_of_its_own(graph):
    node = graph.node("Conv", 1)
    graph.constant("border", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    graph.nodes.insert(graph.nodes.index(node), helper.make_node("Pad", [node.input[0], "border"], ["bordered"]))
    node.input[0] = "bordered"
    del node.attribute[:]


def _pads_called_same(graph):
    node = graph.node("Conv", 2)
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def _clip_without_an_end(graph):
    graph.constant("least", np.float32(0))
    node = graph.node("Relu", 2)
    graph.nodes[graph.nodes.index(node)] = helper.make_node("Clip", [node.input[0], "least"], node.output)


def _idle_nodes(graph):
    at = graph.nodes.index(graph.node("Flatten"))
    node = graph.nodes[at]
    graph.nodes[at:at] = [
        helper.make_node("AveragePool", [node.input[0]], ["a"], kernel_shape=[1, 1], strides=[1, 1]),
        helper.make_node("Cast", ["a"], ["b"], to=1),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d"]),
    ]
    node.input[0] = "d"


def _relu_behind_its_pool(graph):
    _swapped("Relu", "MaxPool")(graph)


SAME = [
    _relu_behind_its_pool,
    _weights_through_transpose,
    _flatten_by_the_shape,
    _border_of_its_own,
    _pads_called_same,
    _clip_without_an_end,
    _idle_nodes,
]


@pytest.mark.parametrize("change", SAME)
def test_other_ways_to_say_the_same(change, tools, photographs, tmp_path):
    graph = Written(tools.make_plain("A"))
    change(graph)
    session = graph.save(tmp_path / "w.onnx")
    x = tools.prepare(photographs(64), "torchvision")
    found = tools.logits(vd.load(tmp_path / "w.onnx"), photographs(64))
    assert tools.relative_error(found, says(session, x)) < EXACT


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid"])
def test_the_last_layer_says_what_posteriors_are(end, tools, photographs, tmp_path):
    session = Written(tools.make_plain("A"), behind=[(end, [], {})]).save(tmp_path / "w.onnx")
    net = vd.load(tmp_path / "w.onnx")
    assert net.multi_label == (end == "Sigmoid")
    with torch.no_grad():
        found = net.posteriors(torch.from_numpy(tools.logits(net, photographs(64))))
    assert np.abs(found.numpy() - says(session, tools.prepare(photographs(64), "torchvision"))).max() < EXACT
    vd.save(net, tmp_path / "w.safetensors")
    assert vd.load(tmp_path / "w.safetensors").multi_label == net.multi_label


def test_one_class_is_no_choice(tools, tmp_path):
    torch.save(tools.make_plain("A", classes=1).state, tmp_path / "w.pth")
    assert vd.load(tmp_path / "w.pth").multi_label


def _skip(graph):
    node = graph.node("Conv", 3)  # 16 channels to 16
    at = graph.nodes.index(node)
    graph.nodes.insert(at + 1, helper.make_node("Add", [node.input[0], node.output[0]], ["sum"]))
    graph.nodes[at + 2].input[0] = "sum"


def _aside(graph):
    """The first ReLU is computed, and nobody looks at it."""
    relu, conv = graph.node("Relu"), graph.node("MaxPool")
    conv.input[0] = relu.input[0]


def _without(kind, place):
    def change(graph):
        node = graph.node(kind, place)
        at = graph.nodes.index(node)
        graph.nodes.remove(node)
        graph.nodes[at].input[0] = node.input[0]

    return change


def _swapped(first, second):
    def change(graph):
        a, b = graph.node(first), graph.node(second)
        here, there = graph.nodes.index(a), graph.nodes.index(b)
        assert there == here + 1
        after = graph.nodes[there + 1]
        b.input[0], a.input[0], after.input[0] = a.input[0], b.output[0], a.output[0]
        graph.nodes[here], graph.nodes[there] = b, a

    return change


def _attribute(kind, place, name, value):
    def change(graph):
        node = graph.node(kind, place)
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _made(kind, by, place=0, constants=(), **attributes):
    def change(graph):
        graph.replace(kind, by, place, **attributes)
        node = graph.node(by)
        for values in constants:
            node.input.append(graph.constant(f"c{len(graph.constants)}", np.asarray(values, np.float32)))

    return change


ANOTHER = "is it another network"
REFUSED = [
    (_made("Relu", "LeakyRelu", 1, alpha=0.01), rf"Relu_4: is LeakyRelu \(alpha 0.01\); expected a ReLU .*: {ANOTHER}"),
    (_made("Relu", "Clip", 0, [0, 6]), r"Relu_1: is Clip \(from 0 to 6\); expected a ReLU behind Conv_0"),
    (_made("Relu", "Tanh"), "Relu_1: is Tanh; expected a ReLU behind Conv_0"),
    (_made("Relu", "Sigmoid"), "Relu_1: is a sigmoid; expected a ReLU behind Conv_0"),
    (_made("Relu", "PRelu", 0, [np.full((1, 1, 1), 0.1)]), "Relu_1: is PRelu; expected a ReLU"),
    (_made("MaxPool", "AveragePool", 1, kernel_shape=[2, 2], strides=[2, 2]), "MaxPool_5: is AveragePool; expected a"),
    (_made("Flatten", "GlobalAveragePool"), "Gemm_22: has 128 inputs, and the mean of the map before it 32 channels"),
    (_without("Relu", 3), "MaxPool_10: is a max-pool; expected a ReLU behind Conv_8"),
    (_without("MaxPool", 2), "Conv_11: is a convolution; expected a 2 x 2 max-pool of stride 2 behind Relu_9"),
    (_without("Relu", 8), "Gemm_24: is a fully connected layer; expected a ReLU behind Gemm_22"),
    (_made("Flatten", "Softmax"), "is a soft-max; expected a flattening behind MaxPool_20"),
    (_skip, "sum: is Add .of Relu_7, a branch of the graph.; expected a ReLU behind Conv_8"),
    (_aside, "MaxPool_2: is MaxPool .of Conv_0, a branch of the graph.; expected a 2 x 2 max-pool"),
    (_attribute("Conv", 1, "pads", [0, 0, 2, 2]), "Conv_3: expected pad 1, found 0 above, 0 left, 2 below, 2 right"),
    (_attribute("Conv", 1, "pads", [0, 0, 0, 0]), "Conv_3: expected pad 1, found 0"),
    (_attribute("Conv", 1, "strides", [2, 2]), "Conv_3: expected stride 1, found 2"),
    (_attribute("MaxPool", 0, "pads", [1, 1, 0, 0]), r"MaxPool_2: is MaxPool \(pads \(1, 1, 0, 0\)\); expected"),
    (_attribute("Gemm", 1, "transA", 1), r"Gemm_24: expected a plain product, found transA 1"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=range(len(REFUSED)))
def test_another_network_is_refused_by_the_name_of_its_layer(change, said, tools, tmp_path):
    graph = Written(tools.make_plain("A"))
    change(graph)
    model = graph.model()
    (tmp_path / "w.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / "w.onnx")
    assert "\n" not in str(caught.value)


def test_batch_norm_behind_the_relu_is_refused(tools, tmp_path):
    graph = Written(tools.make_plain("A", batch_norm=True))
    _swapped("BatchNormalization", "Relu")(graph)
    onnx.save(graph.model(), tmp_path / "w.onnx")
    with pytest.raises(UserError, match=r"Relu_2: is a ReLU; expected batch norm behind Conv_0"):
        vd.load(tmp_path / "w.onnx")


BN = [np.float32([v] * 10) for v in (2, 0.5, 0.1, 3)]
MORE = {
    "a fourth": [("Relu", [], {}), ("Gemm", [np.eye(10, dtype="f4") * 3], {})],
    "batch norm behind the last": [("BatchNormalization", BN, {})],
    "batch norm behind a ReLU": [
        ("Relu", [], {}),
        ("BatchNormalization", BN, {}),
        ("Gemm", [np.ones((10, 4), "f4")], {}),
    ],
    "products and sums behind a ReLU": [
        ("Relu", [], {}),
        ("Mul", [np.linspace(1, 2, 10, dtype="f4")], {}),
        ("Add", [np.linspace(-1, 1, 10, dtype="f4")], {}),
        ("MatMul", [np.linspace(-1, 1, 40, dtype="f4").reshape(10, 4)], {}),
    ],
    "a product and a sum of each": [("Mul", [np.linspace(1, 2, 10, dtype="f4")], {}), ("Add", [np.ones(10, "f4")], {})],
    "factors": [("Relu", [], {}), ("Gemm", [np.ones((10, 4), "f4"), np.ones(4, "f4")], {"alpha": 0.5, "beta": 2.0})],
}


@pytest.mark.parametrize("kind", MORE)
def test_heads_of_other_lengths(kind, tools, photographs, tmp_path):
    session = Written(tools.make_plain("A"), behind=MORE[kind]).save(tmp_path / "w.onnx")
    expected = says(session, tools.prepare(photographs(64), "torchvision"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.onnx"), photographs(64)), expected) < EXACT


@pytest.mark.parametrize("raw_input", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_our_own_exports_are_read(raw_input, precision, tmp_path, same_network):
    pre = vd.Preprocessing(channel_order="BGR", value_range=1.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    net = vd.create("A-LRN", 5, width=1 / 32, image_size=64, fc_width=8, preprocessing=pre).eval()
    net.provenance = RunInfo(multi_label=True)
    vd.export(net, "onnx", tmp_path / "w.onnx", raw_input=raw_input, precision=precision)
    read = vd.load(tmp_path / "w.onnx")
    assert read.config == net.config
    assert read.multi_label
    if precision == "fp32":
        same_network(net, read)
