"""An ONNX graph of a network, written node by node from its layers: no tracing, every name the paper's."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.version import VERSION
from verydeep.exports.export_module import Contract
from verydeep.nets.layers import LEAST_NORM, LocalResponseNorm
from verydeep.nets.network import Network
from verydeep.nets.plain import Concatenation, Conv, MaxPool, MeanPool, Plain, Relu, convolutions
from verydeep.nets.weights import describe

OPSET, IR_VERSION = 17, 8
"""Of 2022: old enough for every runtime in use, and all that the network needs."""

MOST_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB; a margin is for all that is not weights."""


def make_model(net: Network, contract: Contract, half: bool = False) -> Any:
    """Return the network as an `onnx.ModelProto`, batch, height and width free; `half` as in `ExportModule`.

    UserError where the package `onnx` is missing, or the weights are more than an ONNX file holds.
    """
    onnx = need("onnx", "onnx")
    layers = net.one_view().plain_layers()
    size = sum(layer.module.weight.numel() for layer in convolutions(layers)) * (2 if half else 4)
    if size > MOST_BYTES:
        raise UserError(f"{size / 2**30:.1f} GiB of weights: an ONNX file ends at 2; use --format openvino or torch")
    graph = _Graph(onnx, half)
    x = _preprocess(graph, net, contract.input) if contract.raw_input else contract.input
    x = graph.half(x)
    x = _add_layers(graph, layers, x)
    answer, score_map = contract.outputs
    if half:
        x = graph.node("Cast", [x], score_map, to=onnx.TensorProto.FLOAT)
    graph.nodes[-1].output[0] = score_map
    scores = graph.node("ReduceMean", [score_map], "scores", axes=[2, 3], keepdims=0)
    if contract.raw_input:
        if net.multi_label:
            graph.node("Sigmoid", [scores], answer)
        else:
            graph.node("Softmax", [scores], answer, axis=1)
    model = onnx.helper.make_model(
        graph.proto(net, contract),
        producer_name="verydeep",
        producer_version=VERSION,
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.helper.set_model_props(model, {"verydeep": json.dumps(describe(net))})
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self, onnx: Any, half: bool) -> None:
        self.onnx, self.is_half = onnx, half
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, name: str, values: NDArray[Any]) -> str:
        with np.errstate(over="ignore"):  # infinities show when the file is run
            return self.constant(name, values.astype(np.float16) if self.is_half else values)

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node whose only output has the node's name; return that."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def half(self, x: str) -> str:
        to = self.onnx.TensorProto.FLOAT16
        return self.node("Cast", [x], f"{x}.half", to=to) if self.is_half else x

    def proto(self, net: Network, contract: Contract) -> Any:
        helper, types = self.onnx.helper, self.onnx.TensorProto
        classes = len(net.classes)
        if contract.raw_input:
            given = (types.UINT8, ["batch", "height", "width", 3])
        else:
            given = (types.FLOAT, ["batch", 3, "height", "width"])
        shapes = (["batch", classes], ["batch", classes, "rows", "columns"])
        return helper.make_graph(
            self.nodes,
            f"{type(net).__name__} {net.configuration.name}",
            [helper.make_tensor_value_info(contract.input, *given)],
            [
                helper.make_tensor_value_info(name, types.FLOAT, shape)
                for name, shape in zip(contract.outputs, shapes, strict=True)
            ],
            self.constants,
        )


def _preprocess(graph: _Graph, net: Network, x: str) -> str:
    """Add what `Preprocessing` does: uint8 N x H x W x 3, RGB, to float32 N x 3 x H x W."""
    preprocessing = net.preprocessing
    std = np.array(preprocessing.std)
    scale = graph.constant("preprocessing.scale", np.float32(preprocessing.value_range / 255 / std))
    offset = graph.constant("preprocessing.offset", np.float32(-np.array(preprocessing.mean) / std))
    x = graph.node("Cast", [x], "preprocessing.float", to=graph.onnx.TensorProto.FLOAT)
    x = graph.node("Mul", [x, scale], "preprocessing.scaled")
    x = graph.node("Add", [x, offset], "preprocessing.shifted")
    if preprocessing.channel_order == "BGR":
        x = graph.node(
            "Gather", [x, graph.constant("preprocessing.bgr", np.array([2, 1, 0]))], "preprocessing.ordered", axis=3
        )
    return graph.node("Transpose", [x], "preprocessing.pixels", perm=[0, 3, 1, 2])


def _add_layers(graph: _Graph, layers: Iterable[Plain], x: str) -> str:
    for layer in layers:
        x = _add_layer(graph, layer, x)
    return x


def _add_layer(graph: _Graph, layer: Plain, x: str) -> str:
    name = layer.name
    if isinstance(layer, Conv):
        parts = zip(("weight", "bias"), layer.folded(), strict=True)
        inputs = [x, *(graph.weight(f"{name}.{part}", values.cpu().numpy()) for part, values in parts)]
        about: dict[str, Any] = {"strides": [layer.stride] * 2} if layer.stride > 1 else {}
        about |= {"group": layer.groups} if layer.groups > 1 else {}
        return graph.node("Conv", inputs, name, kernel_shape=[layer.kernel] * 2, pads=[layer.padding] * 4, **about)
    if isinstance(layer, Relu):
        return graph.node("Relu", [x], name)
    if isinstance(layer, MaxPool):
        pads = {"pads": [layer.padding] * 4} if layer.padding else {}
        return graph.node("MaxPool", [x], name, **_window(layer), **pads, ceil_mode=int(layer.round_up))
    if isinstance(layer, MeanPool):
        return graph.node("AveragePool", [x], name, **_window(layer))
    if isinstance(layer, Concatenation):
        return graph.node("Concat", [_add_layers(graph, branch.layers, x) for branch in layer.branches], name, axis=1)
    # Squares of activations do not fit float16.
    x = graph.node("Cast", [x], f"{name}.float", to=graph.onnx.TensorProto.FLOAT) if graph.is_half else x
    if isinstance(layer.module, LocalResponseNorm):
        x = _add_norm(graph, name, layer.module, x)
    else:
        x = _add_division(graph, name, x)
    return graph.half(x)


def _window(layer: MaxPool | MeanPool) -> dict[str, list[int]]:
    return {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}


def _add_norm(graph: _Graph, name: str, lrn: LocalResponseNorm, x: str) -> str:
    """Add LRN; ONNX divides alpha by the window's size, Krizhevsky's formula does not."""
    return graph.node("LRN", [x], name, size=lrn.size, alpha=lrn.alpha * lrn.size, beta=lrn.beta, bias=lrn.k)


def _add_division(graph: _Graph, name: str, x: str) -> str:
    """Add what `ViewDescriptor` does: the map divided by the norm of its spatial mean."""
    mean = graph.node("ReduceMean", [x], f"{name}.mean", axes=[2, 3])
    norm = graph.node("ReduceL2", [mean], f"{name}.norm", axes=[1])
    least = graph.constant(f"{name}.least", np.float32(LEAST_NORM).reshape(1))
    return graph.node("Div", [x, graph.node("Max", [norm, least], f"{name}.divisor")], name)
