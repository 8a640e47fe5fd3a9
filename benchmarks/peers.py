"""A network in the runtimes that people would take in place of this project's engine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.extras import need
from verydeep.exports.export_module import Contract
from verydeep.exports.onnx_graph import make_model
from verydeep.exports.openvino_format import import_openvino
from verydeep.nets.vgg import VGG

Run = Callable[[Tensor], Tensor]


def openvino(net: VGG, precision: str = "f32") -> Run:
    """Return the score map by OpenVINO, whose arithmetic is `f32` or `bf16`."""
    core = import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(_model(net)), "CPU", settings)
    return lambda x: torch.from_numpy(np.array(compiled(x.contiguous().numpy())["score_map"]))


def onnxruntime(net: VGG) -> Run:
    """Return the score map by ONNX Runtime."""
    runtime = need("onnxruntime", "onnx")
    options: Any = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(_model(net), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(["score_map"], {given.name: x.contiguous().numpy()})[0])


def _model(net: VGG) -> bytes:
    serialized: bytes = make_model(net, Contract()).SerializeToString()
    return serialized
