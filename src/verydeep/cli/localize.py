"""`verydeep localize`: what is where in pictures; `verydeep localize tune`: how boxes are merged best."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from verydeep.cli.each_picture import each_picture, finish
from verydeep.cli.options import Device, Engine, Json, Memory, Pictures

if TYPE_CHECKING:
    from verydeep.localization.localize import Localized

EXAMPLE = "verydeep localize photo.jpg --classifier runs/A --localizer runs/A-boxes --out boxes"
TUNE_EXAMPLE = "verydeep localize tune boxes/dense@96.parquet --out threshold.json"
_PICTURES = "pictures"


class _PicturesFirst(TyperGroup):
    """Takes whatever does not begin with a command's name for pictures: `localize photo.jpg`, `localize tune FILE`.

    A picture called tune is given as ./tune.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the hidden command in front where no command is named."""
        if args and args[0] not in self.commands:
            args = [_PICTURES, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_PicturesFirst, no_args_is_help=True)


@app.callback()
def _localize() -> None:
    """Say what is where in pictures: verydeep localize IMAGE... --classifier W --localizer L."""


@app.command(_PICTURES, hidden=True)
def pictures(
    images: Pictures,
    classifier: Annotated[Path, typer.Option(help="Weights or run of the network that names and rates.")],
    localizer: Annotated[Path, typer.Option(help="Weights or run of the network that gives boxes.")],
    protocol: Annotated[
        str | None,
        typer.Option(help="dense@Q,..., crops@Q,... or center@Q; default: at the localizer's training scale."),
    ] = None,
    top: Annotated[int, typer.Option(help="Classes to name and localize.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures with their boxes drawn.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Boxes as alike as this are merged.")] = None,
    match: Annotated[Literal["recommended", "literal"] | None, typer.Option(help="How alike two boxes are.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="File of `verydeep localize tune`: threshold and match.")] = None,
    memory: Memory = "2GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    json_: Json = False,
) -> None:
    """Name what is in pictures, most probable first, and say where: boxes in pixels of the original picture.

    Boxes are xmin, ymin, xmax, ymax by their edges, the first column's left edge being 0. Pictures that cannot be read
    are named on stderr; the others are localized all the same, and the exit status is 2.

    Example: verydeep localize photo.jpg --classifier runs/A --localizer runs/A-boxes --out boxes

    `verydeep localize tune --help`: how the merging of boxes is tuned.
    """
    from verydeep.cli.boxes import chosen_rule
    from verydeep.images.files import find_pictures
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.runtime import Runtime
    from verydeep.localization.localize import Localizer
    from verydeep.training.run_folder import find_weights

    files, rule = find_pictures(images), chosen_rule(threshold, match, tuned).rule
    nets = find_weights(classifier), find_weights(localizer)
    runtime = Runtime(device, engine, parse_memory(memory))
    found = Localizer(*nets, protocol, top=top, rule=rule, runtime=runtime, pictures=len(files))
    rows: list[dict[str, Any]] = []
    names = dict(zip(map(str, files), _names(files), strict=True))
    for result in each_picture(files, found, rows):
        drawn = _draw(result, out / names[result.name]) if out else None
        rows.append({**_values(result), "drawn": drawn})
        if not json_:
            typer.echo("\n".join([_words(result), *([f"  {drawn}"] if drawn else [])]))
    finish(rows, json_)


def _names(files: list[Path]) -> list[str]:
    """Return a file name for each drawing, numbered where two pictures have the same."""
    names: list[str] = []
    for file in files:
        count = sum(name == f"{file.stem}.png" or name.startswith(f"{file.stem}~") for name in names)
        names.append(f"{file.stem}~{count + 1}.png" if count else f"{file.stem}.png")
    return names


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


@app.command()
def tune(
    files: Annotated[
        list[Path], typer.Argument(help="Files of boxes that verydeep evaluate wrote; several are merged together.")
    ],
    match: Annotated[Literal["recommended", "literal"], typer.Option(help="How alike two boxes are.")] = "recommended",
    share: Annotated[float, typer.Option(help="Share of the images to hold out and choose on.")] = 0.2,
    out: Annotated[Path | None, typer.Option(help="Write threshold and hold-out here, for --tuned.")] = None,
    json_: Json = False,
) -> None:
    """Choose the threshold of merging on a held-out part of the images; no network is run.

    Example: verydeep localize tune boxes/dense@96.parquet --out threshold.json
    """
    import json

    from verydeep.cli.errors_table import table
    from verydeep.localization.detections import Detections
    from verydeep.localization.metrics import localization_metrics
    from verydeep.localization.scoring import merge_detections
    from verydeep.localization.tuning import tune as choose

    parts, names = [Detections.read(file) for file in files], [str(file) for file in files]
    tuned = choose(parts, match, share, names=names)
    rest = localization_metrics(merge_detections(parts, tuned.rule_for(tuned.data, tuned.split), names))
    if out:
        tuned.write(out)
    if json_:
        values = {**vars(tuned.rule), "curve": tuned.curve, "images": tuned.images, "file": str(out) if out else None}
        others = {"images": rest.images, "error_given_class": rest.given_class.rate, "top5_error": rest.top5.rate}
        typer.echo(json.dumps({**values, "others": others}, indent=2))
        return
    lines = [(f"{threshold:g}", f"{100 * error:.1f}") for threshold, error in tuned.curve]
    typer.echo(table([("threshold", "error % given class"), *lines]))
    typer.echo(f"least on {tuned.images} held-out images: {tuned.rule.threshold:g} ({tuned.rule.match} match score)")
    typer.echo(f"on the other {rest.images} images: error given class {rest.given_class}, top-5 error {rest.top5}")
    if out:
        typer.echo(str(out))
