"""What runs a network's layers in testing: torch, the native library, OpenVINO or ONNX Runtime."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.engines import library
from verydeep.engines.compiled import NativeLayers
from verydeep.interchange.onnx_graph import IR_VERSION, OPSET, make_model
from verydeep.interchange.openvino_format import import_openvino
from verydeep.interchange.served import Contract
from verydeep.nets.network import VGG

Engine = Literal["auto", "native", "torch", "openvino", "onnxruntime"]
Run = Callable[[Tensor], Tensor]

FEW = 16
"""Fewer images than these are not worth packing the weights for: that takes as long as some ten images gain."""


def pick_engine(name: str, device: torch.device, precision: str = "float32", images: int | None = None) -> Engine:
    """Return the engine called `name`; `auto` is the native one where it is sure to be faster, else torch.

    That is: on a CPU with AVX2 or AVX-512, in float32, for at least `FEW` images, where the library was built.
    Nothing is measured.

    Parameters
    ----------
    name : str
        One of `Engine`.
    device : torch.device
        Where the network is to run; engines other than torch run on the CPU.
    precision : str
        Of the arithmetic; engines other than torch compute in float32.
    images : int, optional
        How many will be run, where that is known.

    Raises
    ------
    UserError
        No such engine, or one that does not run on this device, in this precision, or on this machine.
    """
    if name not in get_args(Engine):
        raise UserError(f"engine {name!r}: expected one of {', '.join(get_args(Engine))}")
    fits = device.type == "cpu" and precision == "float32"
    if name == "auto":
        many = images is None or images >= FEW
        fast = fits and many and library.find() is not None and library.best_processor() != "portable"
        return "native" if fast else "torch"
    if name != "torch" and not fits:
        raise UserError(f"engine {name} runs on the CPU in float32, not on {device} in {precision}; take engine torch")
    if name == "native":
        library.load()
    return name  # type: ignore[return-value]


def layers_by(
    engine: Engine, net: VGG, layer: str = "fc8", after: str | None = None, precision: str = "float32"
) -> Run:
    """Return what maps preprocessed images, float32 N x 3 x H x W, to a layer's values, N x C x h x w.

    Engines other than torch keep the weights and the rounding of pools that the network has now.

    Parameters
    ----------
    engine : Engine
        As `pick_engine` returned it.
    net : VGG
        The network, set to testing.
    layer : str
        One of its `layer_names`.
    after : str, optional
        The layer whose values are the input in place of images.
    precision : {"float32", "bf16"}
        Of OpenVINO's arithmetic, which is in bfloat16 by default where the processor has that.
    """
    if engine == "native":
        return NativeLayers(net, layer, after=after)
    if engine == "openvino":
        return _openvino(_model(net, layer, after), precision)
    if engine == "onnxruntime":
        return _onnxruntime(_model(net, layer, after))
    return lambda x: net.activations(x, layer, after)


def _model(net: VGG, layer: str, after: str | None) -> bytes:
    """Return an ONNX model of the layers in between, with one input and one output."""
    onnx = need("onnx", "onnx")
    graph = make_model(net, Contract()).graph
    given = _output(after) if after else graph.input[0].name
    names = [node.output[0] for node in graph.node]
    nodes = list(graph.node)[names.index(given) + 1 if after else 0 : names.index(_output(layer)) + 1]
    used = {name for node in nodes for name in node.input}
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            graph.name,
            [onnx.helper.make_tensor_value_info(given, onnx.TensorProto.FLOAT, ["n", "c", "h", "w"])],
            [onnx.helper.make_tensor_value_info(_output(layer), onnx.TensorProto.FLOAT, ["n", "k", "rows", "columns"])],
            [constant for constant in graph.initializer if constant.name in used],
        ),
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    serialized: bytes = model.SerializeToString()
    return serialized


def _output(layer: str) -> str:
    """Return what the graph calls a layer's values: batch norm is folded into its convolution there."""
    base, relu, _ = layer.partition(".")
    if layer == "fc8":
        return "score_map"
    return "relu" + base.removeprefix("conv").removeprefix("fc") if relu else base


def _openvino(model: bytes, precision: str) -> Run:
    openvino = import_openvino()
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32"}.get(precision, precision),
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(core.read_model(model), "CPU", settings)

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(np.array(compiled(x.contiguous().numpy())[0]))

    return run


def _onnxruntime(model: bytes) -> Run:
    runtime = need("onnxruntime", "onnx")
    options: Any = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {given.name: x.contiguous().numpy()})[0])

    return run
