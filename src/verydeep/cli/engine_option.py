"""The option --engine, the same for every command that tests networks."""

from typing import Annotated

import typer

EngineOption = Annotated[
    str,
    typer.Option(
        help="What runs the layers on a CPU: native, torch, openvino or onnxruntime; auto is native where that is "
        "built and pays, else torch."
    ),
]
