"""`verydeep export`: a network as a file for another engine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Json

if TYPE_CHECKING:
    from verydeep.exports.export import Export

EXAMPLE = "verydeep export runs/A --format onnx --raw-input --out a.onnx"


def export(
    weights: Annotated[Path, typer.Argument(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    format_: Annotated[
        Literal["onnx", "openvino", "torch"], typer.Option("--format", help="onnx, openvino, or torch (torch.export).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write: .onnx, .xml or .pt2; default: beside the weights file.")
    ] = None,
    raw_input: Annotated[
        bool, typer.Option("--raw-input", help="Take decoded pictures, uint8 N x H x W x 3; give posteriors.")
    ] = False,
    precision: Annotated[
        Literal["fp32", "fp16", "int8"], typer.Option(help="Of weights and arithmetic; int8 needs --calibration.")
    ] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures like those to come: they set the ranges of int8.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Folder of pictures to compare on; default: two photographs at hand.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest difference that is accepted; default: 1e-4, fp16 0.02, int8 0.2.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a network for ONNX Runtime, OpenVINO or torch; run it there at once and compare.

    The file takes pictures of any size, one or many, as the network does. Without --raw-input it takes what the
    network's preprocessing makes of them, float32 N x 3 x H x W, and gives scores. A file that does not give what
    the network gives is not kept, and the exit status is 1.

    Example: verydeep export runs/A --format onnx --raw-input --out a.onnx
    """
    import json

    from verydeep.exports.export import export as write
    from verydeep.training.run_folder import find_weights

    done = write(
        find_weights(weights),
        format_,
        out,
        raw_input=raw_input,
        precision=precision,
        calibration=calibration,
        check=check,
        tolerance=tolerance,
    )
    echo(json.dumps(_values(done), indent=2) if json_ else _words(done))


def _values(done: "Export") -> dict[str, Any]:
    """Return an export as JSON-able values."""
    return {
        "files": [str(file) for file in done.files],
        "format": done.format,
        "precision": done.precision,
        "input": done.contract.input,
        "outputs": list(done.contract.outputs),
        "engine": done.engine,
        "pictures": done.pictures,
        "left_out": done.left_out,
        "largest_difference": {
            "posteriors": max(found.posteriors for found in done.comparisons),
            "scores": max(found.scores for found in done.comparisons),
        },
        "comparisons": [vars(found) for found in done.comparisons],
    }


def _words(done: "Export") -> str:
    from verydeep.cli.errors_table import table

    rows: list[tuple[str, ...]] = [("pixels", "pictures", "same class", "posteriors", "scores")]
    for found in done.comparisons:
        same = f"{found.same_class} of {found.pictures}"
        size = f"{found.height} x {found.width}"
        rows.append((size, str(found.pictures), same, f"{found.posteriors:.1e}", f"{found.scores:.1e}"))
    answer, score_map = done.contract.outputs
    shape = (
        "uint8, batch x height x width x 3, RGB" if done.contract.raw_input else "float32, batch x 3 x height x width"
    )
    lines = [f"{file} ({file.stat().st_size / 1e6:,.1f} MB)" for file in done.files]
    lines += [done.left_out] if done.left_out else []
    lines += [
        f"takes {done.contract.input} ({shape}), gives {answer} (batch x classes) and {score_map}",
        f"run by {done.engine} on {done.pictures}; largest differences from the network, of a posterior and of a "
        "score (as a share of the largest):",
        table(rows),
        f"largest difference of a posterior: {max(found.posteriors for found in done.comparisons):.1e}",
    ]
    return "\n".join(lines)
