"""`--format onnx`: a file for ONNX Runtime and whatever else reads ONNX."""

import logging
from pathlib import Path
from typing import Any

from verydeep.basics.extras import need
from verydeep.exports.comparison import Array, Runner, as_input
from verydeep.exports.export_module import Contract
from verydeep.exports.onnx_graph import make_model
from verydeep.exports.pictures import Calibration
from verydeep.nets.network import Network

SUFFIX = ".onnx"
EXTRA = "onnx"


def write(net: Network, contract: Contract, precision: str, calibration: Calibration | None, path: Path) -> None:
    """Write the file; with precision int8 through ONNX Runtime's own quantizer."""
    model = make_model(net, contract, half=precision == "fp16")
    if calibration:
        _quantize(model, net, contract, calibration, path)
    else:
        need("onnx", EXTRA).save(model, str(path))


def _quantize(model: Any, net: Network, contract: Contract, calibration: Calibration, path: Path) -> None:
    """Quantize all but the last convolution, whose outputs are the scores: static ranges, weights by channel."""
    quantization = need("onnxruntime.quantization", EXTRA)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            self.inputs = ({contract.input: as_input(net, contract, picture)} for picture in calibration)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.inputs, None)

    logging.disable(logging.WARNING)  # it advises to fold batch norm first, whether there is any or not
    try:
        quantization.quantize_static(
            model,
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu", "MaxPool"],
            nodes_to_exclude=[net.config.classifier],
            per_channel=True,
            # Weights of 7 bits: on processors without VNNI sums of products of 8-bit numbers overflow, silently.
            reduce_range=True,
        )
    finally:
        logging.disable(logging.NOTSET)


def runner(path: Path) -> Runner:
    """Return what runs the file on the CPU, in ONNX Runtime."""
    runtime = need("onnxruntime", EXTRA)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = [given.name for given in session.get_inputs()]

    def run(x: Array) -> Any:
        return tuple(session.run(None, {name: x}))

    return run


def engine() -> str:
    """Return name and version of what runs the file here."""
    return f"ONNX Runtime {need('onnxruntime', EXTRA).__version__} on the CPU"
