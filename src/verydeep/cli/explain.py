"""`verydeep explain`: which places of a picture speak for a class."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Device, Memory, OnBadImage, Reader

if TYPE_CHECKING:
    from verydeep.datasets.opening import Reading
    from verydeep.perceptual.explain import Method

EXAMPLE = "verydeep explain photo.jpg --weights runs/A --method integrated --out why.png"


def explain(
    photo: Annotated[str, typer.Argument(metavar="PHOTO", help="A picture; with --boxes a data set.")],
    weights: Annotated[Path, typer.Option(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    out: Annotated[Path, typer.Option(help="The drawing: PNG, JPEG, PDF or SVG; with --boxes the figures: JSON.")],
    method: Annotated[
        Literal["grad-cam", "guided", "integrated", "occlusion"], typer.Option(help="Whose idea of it.")
    ] = "grad-cam",
    class_: Annotated[str | None, typer.Option("--class", help="For which class; default: the best one.")] = None,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Measure the method by a data set's boxes: MaxBoxAcc (Choe et al. 2020).")
    ] = False,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Boxes: which images.")] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Boxes: only so many images, evenly over the classes.")
    ] = None,
    memory: Memory = "2GiB",
    device: Device = "auto",
    reader: Reader = None,
    on_bad_image: OnBadImage = "error",
) -> None:
    """Draw which places of a picture speak for a class, by Captum (pip install 'verydeep[explain]').

    At the scale of predict. Red is for the class; of integrated and occlusion blue is against it (docs/perceptual.md).
    With --boxes each image's own class is explained, and the box around what is above a threshold compared with the
    true ones.

    Example: verydeep explain photo.jpg --weights runs/A --method integrated --out why.png
    """
    from verydeep.basics.device import pick_device
    from verydeep.datasets.opening import Reading
    from verydeep.evaluation.heatmap import check_suffix
    from verydeep.images.decode import BYTES_A_PIXEL
    from verydeep.images.files import read_picture
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.protocol import default_protocol
    from verydeep.nets.families import load
    from verydeep.perceptual import explain as work
    from verydeep.perceptual.drawing import draw_places
    from verydeep.training.run_folder import find_weights

    most, where = parse_memory(memory), pick_device(device)
    if boxes:
        _measure(photo, Reading(reader, on_bad_image), split, limit, weights, out, method, most, where)
        return
    check_suffix(out)
    original = read_picture(Path(photo), most // BYTES_A_PIXEL)
    net = load(find_weights(weights), "classify").to(where)
    scale = default_protocol(net).scales[-1]
    work.check_memory(net, original, scale, most)
    picture, name, places = work.explain(net, original, scale, method, class_)
    draw_places(out, picture, places, f"{name}: {method} at scale {scale}")
    echo(f"{out}: {name}, {method} at scale {scale}")


def _measure(
    data: str,
    reading: "Reading",
    split: str,
    limit: int | None,
    weights: Path,
    out: Path,
    method: "Method",
    memory: int,
    device: Any,
) -> None:
    """Print and write how well a method's maps find a data set's boxes."""
    import json
    from dataclasses import asdict

    from verydeep.basics.errors import UserError
    from verydeep.basics.files import write_aside
    from verydeep.basics.formatting import align
    from verydeep.datasets.boxes import with_boxes
    from verydeep.evaluation.evaluate import evenly
    from verydeep.inference.protocol import default_protocol
    from verydeep.nets.families import load
    from verydeep.perceptual.explained_boxes import explained_boxes
    from verydeep.training.run_folder import find_weights

    if out.suffix != ".json":
        raise UserError(f"--out {out}: with --boxes figures are written; expected a name that ends in .json")
    dataset, _ = with_boxes(reading.open(data, split, boxes=True), reading.on_bad_image == "skip")
    dataset = dataset if limit is None else dataset.subset(evenly(dataset, limit))
    net = load(find_weights(weights), "classify").to(device)
    scale = default_protocol(net).scales[-1]
    found = explained_boxes(net, dataset, scale, method, memory)
    about = {"data": dataset.name, "split": split, "weights": str(weights), "scale": scale}
    rows = {name: {**asdict(one), "v2": one.v2} for name, one in found.items()}
    with write_aside(out) as aside:
        aside.write_text(json.dumps({**about, "methods": rows}, indent=2))
    table = [
        (name, str(one.max_box_acc), f"{one.threshold:.2f}", f"{100 * one.v2:.1f}", str(one.images))
        for name, one in found.items()
    ]
    echo(align([(f"at scale {scale}", "MaxBoxAcc %", "threshold", "MaxBoxAccV2 %", "images"), *table]))
