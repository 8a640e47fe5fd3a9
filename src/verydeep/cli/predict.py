"""`verydeep predict`: name what is in pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verydeep.cli.console import echo
from verydeep.cli.each_picture import drawings, each_picture, find_files, finish
from verydeep.cli.options import Device, Engine, Json, Memory, Pictures, Precision

if TYPE_CHECKING:
    from verydeep.evaluation.predict import Prediction, Predictor

EXAMPLE = "verydeep predict photo.jpg --weights runs/A --heatmap heatmap.png"


def predict(
    images: Pictures,
    weights: Annotated[Path, typer.Option(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    protocol: Annotated[
        str | None,
        typer.Option(help="As for evaluate; default: dense at the scale of training, or descriptor."),
    ] = None,
    top: Annotated[int, typer.Option(help="Classes to name.")] = 5,
    heatmap: Annotated[
        Path | None, typer.Option(help="Draw the best class's score map over the picture; of several, a folder.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="CSV file to write, a line for each class.")] = None,
    memory: Memory = "2GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Precision = "float32",
    json_: Json = False,
) -> None:
    """Name the classes of pictures, most probable first, with their posteriors.

    A picture that cannot be read is named on stderr; the others are predicted all the same, and the exit status
    is 2. Of a folder every picture is taken, in its subfolders too; other files are counted on stderr, and last in
    --json.

    Example: verydeep predict photo.jpg --weights runs/A --heatmap heatmap.png
    """
    from verydeep.basics.errors import UserError
    from verydeep.evaluation.heatmap import check_suffix
    from verydeep.evaluation.predict import Predictor
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.runtime import Runtime
    from verydeep.training.run_folder import find_weights

    files, skipped = find_files(images)
    drawn = {str(files[0]): heatmap} if heatmap and heatmap.suffix and len(files) == 1 else drawings(files, heatmap)
    if heatmap and heatmap.suffix and len(files) > 1:
        raise UserError(f"--heatmap {heatmap}: {len(files)} pictures are given; name a folder for their drawings")
    for path in drawn.values():
        check_suffix(path)
    runtime = Runtime(device, engine, parse_memory(memory), precision)
    predictor = Predictor(find_weights(weights), protocol, top, runtime=runtime, pictures=len(files))
    rows: list[dict[str, Any]] = []
    for prediction in each_picture(files, predictor, rows):
        rows.append(_values(prediction))
        if not json_:
            echo(_words(prediction))
        if heatmap:
            _draw(drawn[prediction.name], predictor, prediction, quiet=json_)
    finish(rows, json_, table, skipped)


def _values(prediction: "Prediction") -> dict[str, Any]:
    top = [{"class": name, "posterior": value} for name, value in prediction.top]
    return {"image": prediction.name, "protocol": str(prediction.protocol), "top": top}


def _words(prediction: "Prediction") -> str:
    width = max(len(name) for name, _ in prediction.top)
    lines = [f"  {name.ljust(width)}  {value:6.1%}" for name, value in prediction.top]
    return "\n".join([f"{prediction.name} ({prediction.protocol})", *lines])


def _draw(path: Path, predictor: "Predictor", prediction: "Prediction", quiet: bool) -> None:
    from verydeep.evaluation.heatmap import class_map, draw_heatmap
    from verydeep.images.files import read_picture

    net, name = predictor.forward.net, prediction.top[0][0]
    original = read_picture(Path(prediction.name))
    scale = predictor.protocol.scales[-1]
    picture, scores = class_map(predictor.forward, original, scale, net.classes.index(name))
    draw_heatmap(path, picture, scores, net, f"{name} ({prediction.top[0][1]:.0%}) at scale {scale}")
    if not quiet:
        echo(str(path))
