"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Engine = Annotated[
    str,
    typer.Option(
        help="What runs the layers on a CPU: native or torch; auto is native where that is built and pays, else torch."
    ),
]
PartOf = Annotated[
    str | None,
    typer.Option(
        "--part",
        help="Do the i-th of n parts, i/n: by other processes the others; the same command without it gathers them.",
    ),
]
Precision = Annotated[
    Literal["float32", "bf16", "fixed16"],
    typer.Option(help="Of the network's arithmetic; fixed16, 16-bit integers, is the native engine's."),
]
Memory = Annotated[str, typer.Option(help="For pictures and activations, beside the weights.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: torch's own choice.")]

Data = Annotated[str, typer.Option(help="Data set: a folder, .tar, .zip or .tar.gz, or 'scenes' (embedded).")]
Pictures = Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")]
Reader = Annotated[str | None, typer.Option(help="Layout of the data set, instead of detecting it.")]
OnBadImage = Annotated[Literal["error", "skip"], typer.Option(help="What a damaged image or box does.")]

Labels = Annotated[
    str | None,
    typer.Option(
        help="Labels in files: one an image, several, or what stands between several, as ';'. Default: as written."
    ),
]

BoxesAsStored = Annotated[
    bool | None,
    typer.Option(
        "--boxes-as-stored/--boxes-as-shown",
        help="Of images that EXIF turns: were the boxes drawn before that, or after? Default: what sizes say.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Repeats = Annotated[int, typer.Option(min=1, help="Timed runs of each way.")]
Width = Annotated[float, typer.Option(help="Factor on the network's channels; 1 is the paper's.")]


def parse_scales(text: str) -> tuple[int, ...]:
    """Read scales such as ``256,384,512``; UserError where the text is none."""
    from verydeep.basics.errors import UserError

    try:
        scales = tuple(int(word) for word in text.split(","))
    except ValueError:
        scales = ()
    if not scales or min(scales) < 1 or len(set(scales)) < len(scales):
        raise UserError(f"--scales {text}: expected whole numbers with commas between, each once, such as 256,384,512")
    return scales
