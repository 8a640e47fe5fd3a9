"""`--format torch`: a program of torch.export, which runs without verydeep."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from verydeep.basics.errors import UserError
from verydeep.interchange.comparison import Array, Runner, as_input
from verydeep.interchange.pictures import Calibration, fit, photographs, sizes
from verydeep.interchange.served import Contract, Served
from verydeep.nets.network import VGG
from verydeep.nets.weights import describe

SUFFIX = ".pt2"
PRECISIONS = ("fp32", "fp16")


def write(net: VGG, contract: Contract, precision: str, calibration: Calibration | None, path: Path) -> None:
    """Write the program, batch, height and width free from the least size on."""
    served = Served(net, contract, half=precision == "fp16").eval()
    example = torch.tensor(as_input(net, contract, fit(photographs(), *sizes(net)[1], "bilinear")))
    batch, height, width = Dim("batch", min=1), *(Dim(name, min=net.least_size) for name in ("height", "width"))
    sides = (1, 2) if contract.raw_input else (2, 3)
    free = {0: batch, sides[0]: height, sides[1]: width}
    # Without this setting a program traced on a score map of several cells refuses a score map of one.
    from torch.fx.experimental import _config

    if not hasattr(_config, "backed_size_oblivious"):
        raise UserError(f"--format torch needs torch 2.8 or newer, here it is {torch.__version__}")
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            served, (example,), dynamic_shapes=(free,), prefer_deferred_runtime_asserts_over_guards=True
        )
    torch.export.save(program, path, extra_files={"verydeep.json": json.dumps(describe(net))})


def runner(path: Path) -> Runner:
    """Return what runs the program on the CPU."""
    program = torch.export.load(path).module()

    def run(x: Array) -> Any:
        with torch.inference_mode():
            return tuple(output.numpy() for output in program(torch.tensor(x)).values())

    return run


def engine() -> str:
    """Return name and version of what runs the program here."""
    return f"torch {torch.__version__} on the CPU"
