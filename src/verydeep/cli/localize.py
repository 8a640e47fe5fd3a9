"""`verydeep localize`: what is where in pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.each_picture import drawings, each_picture, find_files, finish
from verydeep.cli.options import Device, Engine, Json, Memory, Pictures, Precision

if TYPE_CHECKING:
    from verydeep.localization.localize import Localized

EXAMPLE = "verydeep localize photo.jpg --classifier runs/A --localizer runs/A-boxes --out boxes"


def localize(
    images: Pictures,
    classifier: Annotated[Path, typer.Option(help="Weights or run of the network that names and rates.")],
    localizer: Annotated[Path, typer.Option(help="Weights or run of the network that gives boxes.")],
    protocol: Annotated[
        str | None,
        typer.Option(help="dense@Q,..., crops@Q,... or center@Q; default: at the localizer's training scale."),
    ] = None,
    top: Annotated[int, typer.Option(help="Classes to name and localize.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures with their boxes drawn.")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="CSV file to write, a line for each class.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Boxes as alike as this are merged.")] = None,
    match: Annotated[Literal["recommended", "literal"] | None, typer.Option(help="How alike two boxes are.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="File of `verydeep tune`: threshold and match.")] = None,
    memory: Memory = "2GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "float32",
    json_: Json = False,
) -> None:
    """Name what is in pictures, most probable first, and say where: boxes in pixels of the original picture.

    Boxes are xmin, ymin, xmax, ymax by their edges, the first column's left edge being 0. Pictures that cannot be read
    are named on stderr; the others are localized all the same, and the exit status is 2.

    Example: verydeep localize photo.jpg --classifier runs/A --localizer runs/A-boxes --out boxes
    """
    from verydeep.cli.boxes import chosen_rule
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.runtime import Runtime
    from verydeep.localization.localize import Localizer
    from verydeep.training.run_folder import find_weights

    rule = chosen_rule(threshold, match, tuned).rule
    files, skipped = find_files(images)
    nets = find_weights(classifier), find_weights(localizer)
    runtime = Runtime(device, engine, parse_memory(memory), precision)
    found = Localizer(*nets, protocol, top=top, rule=rule, runtime=runtime, pictures=len(files))
    rows: list[dict[str, Any]] = []
    names = drawings(files, out)
    for result in each_picture(files, found, rows):
        drawn = _draw(result, names[result.name]) if out else None
        rows.append({**_values(result), "drawn": drawn})
        if not json_:
            echo("\n".join([_words(result), *([f"  {drawn}"] if drawn else [])]))
    finish(rows, json_, table, skipped)


def _draw(result: "Localized", path: Path) -> str:
    from verydeep.basics.files import write_aside
    from verydeep.images.files import read_picture
    from verydeep.localization.drawing import draw_boxes

    boxes, captions = [found.box for found in result.top], [f"{f.name} {f.posterior:.0%}" for f in result.top]
    with write_aside(path) as aside:
        draw_boxes(read_picture(Path(result.name)), boxes, captions).save(aside, "PNG")
    return str(path)


def _values(result: "Localized") -> dict[str, Any]:
    top = [{"class": f.name, "posterior": f.posterior, "box": list(f.box), "rating": f.rating} for f in result.top]
    about = {"image": result.name, "height": result.height, "width": result.width, "protocol": str(result.protocol)}
    return {**about, "top": top}


def _words(result: "Localized") -> str:
    width = max(len(found.name) for found in result.top)
    lines = [f"{result.name} ({result.protocol}; {result.width} x {result.height} pixels)"]
    for found in result.top:
        edges = " ".join(f"{edge:7.1f}" for edge in found.box)
        lines.append(f"  {found.name.ljust(width)}  {found.posterior:6.1%}  box {edges}")
    return "\n".join(lines)
