"""A network in the runtimes that people would take in place of this project's engine, each with its best settings."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.errors import WorkError
from verydeep.basics.extras import need
from verydeep.exports.export_module import Contract
from verydeep.exports.onnx_graph import make_model
from verydeep.exports.openvino_format import import_openvino, quantize
from verydeep.nets.network import Network

Run = Callable[[Tensor], Tensor]

CALIBRATION = 32
"""Images that int8's ranges are taken from, at most."""


def openvino(net: Network, precision: str = "f32", pictures: Sequence[Tensor] = ()) -> Run:
    """Return the score map, a trunk's pool5, by OpenVINO, whose arithmetic is `f32`, `bf16` or, through NNCF, `int8`.

    Ranges of int8 are those of preprocessed `pictures`, or of random ones.
    """
    core = import_openvino().Core()
    model = core.read_model(_model(net))
    if precision == "int8":
        chance = torch.Generator().manual_seed(0)
        side = net.image_size
        some = pictures[:CALIBRATION] or [60 * torch.randn(1, 3, side, side, generator=chance) for _ in range(4)]
        model = quantize(model, need("nncf", "openvino").Dataset([x.numpy() for x in some]), len(some))
    hint = "f32" if precision == "int8" else precision
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda x: torch.from_numpy(np.array(compiled(x.contiguous().numpy())["score_map"]))


def onnxruntime(net: Network) -> Run:
    """Return the score map by ONNX Runtime."""
    runtime = need("onnxruntime", "onnx")
    options: Any = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(_model(net), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(["score_map"], {given.name: x.contiguous().numpy()})[0])


def opencv(net: Network) -> Run:
    """Return the score map by OpenCV's dnn module."""
    reader: Any = cv2.dnn.readNetFromONNX
    model = reader(np.frombuffer(_model(net), np.uint8))

    def run(x: Tensor) -> Tensor:
        before = cv2.getNumThreads()
        cv2.setNumThreads(torch.get_num_threads())  # ours is 1: pictures are read by threads of our own
        model.setInput(x.contiguous().numpy())
        y = torch.from_numpy(np.array(model.forward("score_map")))
        cv2.setNumThreads(before)
        return y

    return run


def ncnn(net: Network) -> Run:
    """Return the score map by ncnn, in float32 with its Winograd filtering and packing, one image at a time."""
    runtime, converter = need("ncnn", "runtimes"), need("pnnx", "runtimes")
    model = runtime.Net()
    model.opt.num_threads = torch.get_num_threads()
    model.opt.use_winograd_convolution = model.opt.use_sgemm_convolution = model.opt.use_packing_layout = True
    model.opt.use_fp16_packed = model.opt.use_fp16_storage = model.opt.use_fp16_arithmetic = False
    model.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "m.onnx").write_bytes(_model(net))
        sides = [f"[1,3,{side},{side}]" for side in (net.image_size, net.image_size + 64)]  # two: any size will do
        command = [converter.EXEC_PATH, "m.onnx", f"inputshape={sides[0]}", f"inputshape2={sides[1]}", "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkError(f"pnnx could not convert the network: {done.stderr[-200:]}")
        model.load_param(f"{folder}/m.ncnn.param")
        model.load_model(f"{folder}/m.ncnn.bin")
    (given,) = model.input_names()

    def one(image: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = model.create_extractor()
        extractor.input(given, runtime.Mat(image))
        maps = [np.array(extractor.extract(name)[1]) for name in model.output_names()]
        return max(maps, key=lambda found: found.ndim)  # the score map; the other output is its mean

    return lambda x: torch.from_numpy(np.stack([one(image) for image in x.contiguous().numpy()]))


def mnn(net: Network) -> Run:
    """Return the score map by MNN, in float32 (its "high" precision)."""
    with tempfile.TemporaryDirectory() as folder, _silence():
        runtime = need("MNN", "runtimes")
        (Path(folder) / "m.onnx").write_bytes(_model(net))
        files = ["--modelFile", f"{folder}/m.onnx", "--MNNModel", f"{folder}/m.mnn"]
        # Not `MNN.tools`, which installs packages and tells its maker of every use.
        need("_tools", "runtimes").mnnconvert(["mnnconvert", "-f", "ONNX", "--bizCode", "verydeep", *files])
        interpreter = runtime.Interpreter(f"{folder}/m.mnn")
    settings = {"numThread": torch.get_num_threads(), "backend": "CPU", "precision": "high"}
    with _silence():
        session = interpreter.createSession(settings)
    given = interpreter.getSessionInput(session)
    last: list[torch.Size] = []

    def tensor(values: NDArray[np.float32]) -> Any:
        return runtime.Tensor(values.shape, runtime.Halide_Type_Float, values, runtime.Tensor_DimensionType_Caffe)

    def run(x: Tensor) -> Tensor:
        if last != [x.shape]:
            interpreter.resizeTensor(given, tuple(x.shape))
            interpreter.resizeSession(session)
            last[:] = [x.shape]
        given.copyFrom(tensor(x.contiguous().numpy()))
        interpreter.runSession(session)
        found = interpreter.getSessionOutput(session, "score_map")
        y = np.zeros(found.getShape(), np.float32)
        host = tensor(y)
        found.copyToHostTensor(host)
        return torch.from_numpy(np.array(host.getNumpyData()))

    return run


@contextmanager
def _silence() -> Iterator[None]:
    """Send what a library's own code prints nowhere: a table or JSON is to stand there alone."""
    kept = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@lru_cache(maxsize=1)  # 550 MB for D, which every runtime reads
def _model(net: Network) -> bytes:
    serialized: bytes = make_model(net, Contract()).SerializeToString()
    return serialized
