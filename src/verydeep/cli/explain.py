"""`verydeep explain`: which places of a picture speak for a class."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Device, Memory

EXAMPLE = "verydeep explain photo.jpg --weights runs/A --method integrated --out why.png"


def explain(
    photo: Annotated[Path, typer.Argument(help="A picture.")],
    weights: Annotated[Path, typer.Option(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    out: Annotated[Path, typer.Option(help="The drawing: PNG, JPEG, PDF or SVG.")],
    method: Annotated[
        Literal["grad-cam", "guided", "integrated", "occlusion"], typer.Option(help="Whose idea of it.")
    ] = "grad-cam",
    class_: Annotated[str | None, typer.Option("--class", help="For which class; default: the best one.")] = None,
    memory: Memory = "2GiB",
    device: Device = "auto",
) -> None:
    """Draw which places of a picture speak for a class, by Captum (pip install 'verydeep[explain]').

    At the scale of predict. Red is for the class; of integrated and occlusion blue is against it (docs/perceptual.md).

    Example: verydeep explain photo.jpg --weights runs/A --method integrated --out why.png
    """
    from verydeep.basics.device import pick_device
    from verydeep.evaluation.heatmap import check_suffix
    from verydeep.images.decode import BYTES_A_PIXEL
    from verydeep.images.files import read_picture
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.protocol import default_protocol
    from verydeep.nets.families import load
    from verydeep.perceptual import explain as work
    from verydeep.perceptual.drawing import draw_places
    from verydeep.training.run_folder import find_weights

    check_suffix(out)
    most, where = parse_memory(memory), pick_device(device)
    original = read_picture(photo, most // BYTES_A_PIXEL)
    net = load(find_weights(weights), "classify").to(where)
    scale = default_protocol(net).scales[-1]
    work.check_memory(net, original, scale, most)
    picture, name, places = work.explain(net, original, scale, method, class_)
    draw_places(out, picture, places, f"{name}: {method} at scale {scale}")
    echo(f"{out}: {name}, {method} at scale {scale}")
