"""`--format torch`: a program of torch.export, which runs without verydeep."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.exports.comparison import Array, Runner, as_input
from verydeep.exports.export_module import Contract, ExportModule
from verydeep.exports.pictures import Calibration, fit, photographs, sizes
from verydeep.nets.network import Network
from verydeep.nets.weights import describe

SUFFIX = ".pt2"
EXTRA = "torch-int8"


def write(net: Network, contract: Contract, precision: str, calibration: Calibration | None, path: Path) -> None:
    """Write the program; with precision int8 through torchao, torch's own quantizer."""
    module: nn.Module = ExportModule(net, contract, half=precision == "fp16").eval()
    if calibration:
        module = _quantize(_trace(module, net, contract).module(), net, contract, calibration)
    program = _trace(module, net, contract)
    torch.export.save(program, path, extra_files={"verydeep.json": json.dumps(describe(net))})


def _trace(module: nn.Module, net: Network, contract: Contract) -> ExportedProgram:
    """Return the module as a program: batch free, height and width free from the least size on."""
    from torch.fx.experimental import _config

    if not hasattr(_config, "backed_size_oblivious"):
        raise UserError(f"--format torch needs torch 2.8 or newer, here it is {torch.__version__}")
    example = torch.tensor(as_input(net, contract, fit(photographs(), *sizes(net)[1], "bilinear")))
    batch, height, width = Dim("batch", min=1), *(Dim(name, min=net.least_size) for name in ("height", "width"))
    sides = (1, 2) if contract.raw_input else (2, 3)
    free = ({0: batch, sides[0]: height, sides[1]: width},)
    # Without this setting a program traced on a score map of several cells refuses a score map of one.
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            module, (example,), dynamic_shapes=free, prefer_deferred_runtime_asserts_over_guards=True
        )


def _quantize(module: Any, net: Network, contract: Contract, calibration: Calibration) -> nn.Module:
    """Quantize all but the last convolution, whose outputs are the scores, as torch's compiler for x86 expects it."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # of its libraries for graphics cards that cannot be loaded
    steps = need("torchao.quantization.pt2e.quantize_pt2e", EXTRA)
    x86 = need("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", EXTRA)
    quantizer = x86.X86InductorQuantizer()
    # 7 of the activations' 8 bits: without VNNI, sums of products of 8-bit numbers overflow, silently.
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(reduce_range=True))
    quantizer.set_module_name_qconfig(f"layers.{net.config.classifier}", None)
    observed = steps.prepare_pt2e(module, quantizer)
    for picture in calibration:
        observed(torch.tensor(as_input(net, contract, picture)))
    quantized: nn.Module = steps.convert_pt2e(observed)
    used = {str(node.target) for node in quantized.graph.nodes if node.op == "get_attr"}  # type: ignore[union-attr]
    for name in [name for name, _ in quantized.named_parameters() if name not in used]:
        layer, _, kind = name.rpartition(".")
        delattr(quantized.get_submodule(layer), kind)  # a float32 weight that has an 8-bit one in its place
    return quantized


def runner(path: Path) -> Runner:
    """Return what runs the program on the CPU."""
    import torch.ao.quantization.fx._decomposed  # brings the operators of 8-bit programs

    program = torch.export.load(path).module()
    if any(tensor.dtype == torch.float16 for tensor in program.parameters()):
        program.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # 10 times faster on a CPU

    def run(x: Array) -> Any:
        with torch.inference_mode():
            return tuple(output.numpy() for output in program(torch.tensor(x)).values())

    return run


def engine() -> str:
    """Return name and version of what runs the program here."""
    return f"torch {torch.__version__} on the CPU"
