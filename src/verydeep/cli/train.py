"""`verydeep train`: make a network's weights."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from verydeep.basics.errors import UserError
from verydeep.cli.console import echo
from verydeep.cli.options import BoxesAsStored, Data, Device, Json, Labels, OnBadImage, Reader

if TYPE_CHECKING:
    from verydeep.training.task import Task

EXAMPLE = "verydeep train --net A --data scenes --recipe scenes --out runs/A"


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the run; a run that was stopped there is continued.")],
    net: Annotated[
        str | None,
        typer.Option(
            help="A, A-LRN, B, C, D, E, B-5x5, or another paper's such as alexnet; default: that of --init-from."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe by name, or .toml file; default: paper-s256, finetune (--reset, trunks), or fcn."),
    ] = None,
    task: Annotated[
        Literal["classify", "localize", "segment"],
        typer.Option(help="Learn the class, the box of the class's object, or the class of each pixel."),
    ] = "classify",
    head: Annotated[
        Literal["32s", "16s", "8s"] | None,
        typer.Option(help="Segment: scores from the last map, also from that of stride 16, also of 8; default 8s."),
    ] = None,
    regression: Annotated[
        Literal["scr", "pcr"] | None, typer.Option(help="Localize: one box for all classes, or one for each.")
    ] = None,
    tune: Annotated[
        Literal["all", "fc"] | None, typer.Option(help="Train all layers, or fc6 to fc8 alone; default: the recipe's.")
    ] = None,
    init_from: Annotated[Path | None, typer.Option(help="Run, weights file, or caffe:vgg16, to start from.")] = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(help="Layer of --init-from to begin anew, fc8 for other classes; may be given several times."),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(help="Layers not to train, by the beginning of their names: conv, conv1, fc6, ..."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a recipe's value: optimizer.learning_rate=0.005.")
    ] = None,
    device: Device = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that decode images; default: one a core.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    checkpoint_minutes: Annotated[float, typer.Option(min=0, help="Time between checkpoints inside an epoch.")] = 10.0,
    reader: Reader = None,
    labels: Labels = None,
    on_bad_image: OnBadImage = "error",
    boxes_as_stored: BoxesAsStored = None,
    json_: Json = False,
) -> None:
    """Train a network, or continue a run that was stopped.

    Where images have several labels (docs/data.md), each class is learned by a sigmoid of its own.

    A localizer learns boxes (paper: appendix A); it starts from a classifier at the same S, its last layer from
    random weights: --task localize --regression pcr --tune all --init-from runs/A.

    A network for each pixel learns from pictures with masks (docs/segmentation.md), at once or in stages:
    --task segment --head 32s, then --head 16s --init-from the first run, then --head 8s --init-from the second.

    The folder gets recipe.toml, log.jsonl, tensorboard/, last.ckpt, best.safetensors, curves.png and card.md.

    Example: verydeep train --net A --data scenes --recipe scenes --out runs/A
    """
    import json
    from dataclasses import asdict

    from verydeep.datasets.opening import Reading
    from verydeep.training.train import train as run

    learned = _task(task, regression, head, skip=on_bad_image == "skip")
    if learned.regression and (reset or freeze):
        raise UserError(
            "--reset and --freeze are for classes: of a localizer the last layer is new; --tune says what is trained"
        )
    if boxes_as_stored is not None and not learned.regression:
        raise UserError("--boxes-as-stored and --boxes-as-shown need --task localize: classes look at no boxes")
    if init_from is None and (reset or freeze):
        raise UserError("--reset and --freeze need --init-from W, a network to start from")
    changes = [f"optimizer.trained_layers={tune}"] if tune else []
    changes += [f"optimizer.layer_learning_rates.{prefix}=0" for prefix in freeze or []]
    changes += [f"initialization.reset={reset}"] if reset else []
    result = run(
        net,
        data,
        recipe or ("fcn" if task == "segment" else "finetune" if reset else None),
        out,
        task=learned,
        init_from=init_from,
        overrides=[*changes, *(set_ or [])],
        device=device,
        workers=workers,
        compiled=compile_,
        checkpoint_minutes=checkpoint_minutes,
        reading=Reading(reader, on_bad_image, boxes_as_stored, labels),
        announce=None if json_ else lambda effective: echo(effective.to_toml()),
    )
    if int(os.environ.get("RANK", "0")):  # of several processes the first one speaks
        return
    if json_:
        values = {key: value for key, value in asdict(result).items() if key not in ("metrics", "names")}
        echo(json.dumps({**values, **result.metrics, "weights": str(result.weights)}))
    else:
        metrics = ", ".join(f"{name} {result.metrics[key]:.1%}" for key, name in result.names.items())
        where = "whole pictures" if task == "segment" else "the central crop"
        echo(
            f"{result.epochs} epochs in {result.seconds / 60:.1f} minutes; validation on {where}: {metrics}\n"
            f"{result.weights}"
        )


def _task(
    name: str, regression: Literal["scr", "pcr"] | None, head: Literal["32s", "16s", "8s"] | None, skip: bool
) -> "Task":
    """Return what is to be learned; UserError where the options do not say one thing."""
    from verydeep.localization.task import Localization
    from verydeep.segmentation.task import Segmentation
    from verydeep.training.task import Classification

    if head and name != "segment":
        raise UserError(f"--head {head} is for pixels: add --task segment, or leave it out")
    if name == "segment":
        if regression:
            raise UserError(f"--regression {regression} is for boxes; leave it out")
        return Segmentation(head or "8s")
    if name == "localize":
        return Localization(regression or "pcr", skip)
    if regression:
        raise UserError(f"--regression {regression} is for boxes: add --task localize, or leave it out")
    return Classification()
