"""`--format openvino`: a pair of files, .xml and .bin, for OpenVINO."""

import json
import logging
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from verydeep.basics.extras import need
from verydeep.exports.comparison import Array, Runner, as_input
from verydeep.exports.export_module import Contract
from verydeep.exports.onnx_graph import make_model
from verydeep.exports.pictures import Calibration
from verydeep.nets.network import Network
from verydeep.nets.weights import describe

SUFFIX = ".xml"
EXTRA = "openvino"


def import_openvino() -> Any:
    """Import OpenVINO; without its `openvino_telemetry`, it and NNCF cannot tell their maker of every use."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return need("openvino", EXTRA)


def write(net: Network, contract: Contract, precision: str, calibration: Calibration | None, path: Path) -> None:
    """Write `path` and the weights beside it; with precision int8 through NNCF, OpenVINO's own quantizer."""
    openvino = import_openvino()
    graph = make_model(net, contract).SerializeToString()
    model = openvino.Core().read_model(graph)
    if calibration:
        given = need("nncf", EXTRA).Dataset(calibration, lambda picture: as_input(net, contract, picture))
        model = quantize(model, given, len(calibration))
    model.set_rt_info(json.dumps(describe(net)), ["verydeep"])
    openvino.save_model(model, str(path), compress_to_fp16=precision == "fp16")


def quantize(model: Any, given: Any, count: int) -> Any:
    """Quantize all but the last convolution, whose outputs are the scores, on `count` inputs of an NNCF data set."""
    nncf = need("nncf", EXTRA)
    nncf.set_log_level(logging.ERROR)
    parameters = nncf.AdvancedQuantizationParameters(
        # The default range is the mean of the pictures' greatest values, which cuts off those of half the pictures.
        activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
        # Weights of 7 bits: on processors without VNNI sums of products of 8-bit numbers overflow, silently.
        overflow_fix=nncf.OverflowFix.ENABLE,
    )
    last = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"][-1]
    with redirect_stdout(StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            given,
            subset_size=count,
            ignored_scope=nncf.IgnoredScope(names=[last]),
            advanced_parameters=parameters,
        )


def runner(path: Path) -> Runner:
    """Return what runs the files on OpenVINO's CPU plugin, in float32 where the files are not in 8 bits."""
    openvino = import_openvino()
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(x: Array) -> Any:
        return tuple(compiled(x)[output] for output in compiled.outputs)

    return run


def engine() -> str:
    """Return name and version of what runs the files here."""
    version = import_openvino().__version__.partition("-")[0]
    return f"OpenVINO {version} on the CPU, asked for float32 (by default it may compute in bfloat16)"
