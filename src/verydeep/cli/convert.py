"""`verydeep convert`: weights of other projects in, and ours out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Json

if TYPE_CHECKING:
    from verydeep.nets.network import Network

EXAMPLE = "verydeep convert vgg16.pth d.safetensors"


def convert(
    source: Annotated[
        str, typer.Argument(help="A weights file, or a name such as torchvision:vgg16, timm:vgg19_bn, keras:vgg16.")
    ],
    out: Annotated[
        Path | None, typer.Argument(help="The file to write; its ending must be the target's.", show_default=False)
    ] = None,
    to: Annotated[
        Literal["verydeep", "torchvision", "timm", "keras", "caffe"], typer.Option(help="Whose file to write.")
    ] = "verydeep",
    fold_batch_norm: Annotated[
        bool, typer.Option("--fold-batch-norm", help="Move batch norm into the convolutions; same outputs.")
    ] = False,
    trunk: Annotated[bool, typer.Option("--trunk", help="Take the convolutions alone.")] = False,
    like: Annotated[
        Literal["torchvision", "timm", "caffe", "keras"] | None,
        typer.Option("--like", "--preprocessing", help="Whose input the network takes; default: the file's format's."),
    ] = None,
    channel_order: Annotated[Literal["rgb", "bgr"] | None, typer.Option(help="Of the input.")] = None,
    range_: Annotated[float | None, typer.Option("--range", min=0.0, help="Greatest input value: 255 or 1.")] = None,
    mean: Annotated[str | None, typer.Option(help="R,G,B to subtract from the input.")] = None,
    std: Annotated[str | None, typer.Option(help="R,G,B to divide the input by.")] = None,
    interpolation: Annotated[
        Literal["bilinear", "bicubic", "box", "lanczos"] | None, typer.Option(help="How pictures are rescaled.")
    ] = None,
    try_: Annotated[
        Path | None,
        typer.Option("--try", help="A picture, to be named under each common input."),
    ] = None,
    prototxt: Annotated[Path | None, typer.Option(help="Definition of a .caffemodel, checked against it.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Class names in order: one a line, or JSON.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing; take what is in the cache.")] = False,
    json_: Json = False,
) -> None:
    """Turn a weights file of another project into ours, or ours into another project's.

    Reads Caffe, MatConvNet, Keras, torchvision, timm and ONNX files of VGGs, told by their content. Preprocessing
    and class names are written into the result.

    Example: verydeep convert vgg16.pth d.safetensors
    """
    import json

    from verydeep.basics.errors import UserError
    from verydeep.checkpoints.class_names import read_class_names
    from verydeep.checkpoints.reading import load
    from verydeep.checkpoints.writing import fold_batch_norm as fold
    from verydeep.checkpoints.writing import write
    from verydeep.nets.weights import save

    if out is None and try_ is None:
        raise UserError("convert: say which file to write, or --try PICTURE")
    if out is not None and to == "verydeep" and out.suffix != ".safetensors":
        raise UserError(f"{out}: must end in .safetensors (or name another project's format with --to)")
    stated = _stated(like, channel_order, range_, mean, std, interpolation)
    net = load(
        _file(source),
        preprocessing=stated or None,
        classes=read_class_names(classes) if classes else None,
        prototxt=prototxt,
        offline=offline,
        trunk=trunk,
    )
    net = fold(net) if fold_batch_norm else net
    tried = _tried(net, try_) if try_ is not None else {}
    if out is not None and to == "verydeep":
        save(net, out)
    elif out is not None:
        write(net, out, to)
    values = {**_values(source, out, to, net), "stated": stated, "tried": tried}
    echo(json.dumps(values, indent=2) if json_ else _text(values))


def _file(source: str) -> str:
    """Return the weights file, of a run's folder the one in it."""
    from verydeep.training.run_folder import find_weights

    return str(find_weights(source)) if Path(source).is_dir() else source


def _stated(
    like: str | None,
    order: str | None,
    most: float | None,
    mean: str | None,
    std: str | None,
    interpolation: str | None,
) -> dict[str, Any]:
    """Return what the user says of the input, as `load` takes it."""
    values = {
        "like": like,
        "channel_order": order and order.upper(),
        "value_range": most,
        "mean": mean and _three("--mean", mean),
        "std": std and _three("--std", std),
        "interpolation": interpolation,
    }
    return {key: value for key, value in values.items() if value is not None}


def _three(option: str, text: str) -> tuple[float, ...]:
    from verydeep.basics.errors import UserError

    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise UserError(f"{option} {text!r}: expected a number, or three: red, green, blue")
    return numbers


def _tried(net: "Network", picture: Path) -> dict[str, list[tuple[str, float]]]:
    """Return the most probable classes of a picture under each common input, the network's own first."""
    from dataclasses import replace

    from verydeep.checkpoints.inputs import CONVENTIONS
    from verydeep.evaluation.predict import predict

    own, found = net.preprocessing, {}
    for name, given in {"as converted": own, **CONVENTIONS}.items():
        net.preprocessing = replace(given, pool_round_up=own.pool_round_up, interpolation=own.interpolation)
        found[name] = list(predict(net, picture).top)
    net.preprocessing = own
    return found


def _values(source: str, out: Path | None, to: str, net: "Network") -> dict[str, Any]:
    return {
        "source": source,
        "out": out and str(out),
        "format": to,
        "configuration": net.configuration.name,
        "batch_norm": net.batch_norm,
        "image_size": net.image_size,
        "trunk": net.config.trunk,
        "classes": list(net.classes),
        "preprocessing": net.preprocessing.to_dict(),
        "provenance": net.provenance.to_dict(),
    }


def _text(values: dict[str, Any]) -> str:
    from verydeep.checkpoints.inputs import ASSUMED

    classes, about, given = values["classes"], values["provenance"], values["preprocessing"]
    norm = " with batch norm" if values["batch_norm"] else ""
    mean, std = (", ".join(f"{number:g}" for number in given[name]) for name in ("mean", "std"))
    named = (
        f"{len(classes)} classes ({classes[0]}, ..., {classes[-1]})"
        if classes
        else (
            f"a trunk: the layers up to {values['trunk']}, no scores; verydeep transfer and train --init-from take it"
        )
    )
    lines = [
        f"{values['source']}: {about.get('format', 'verydeep')}, configuration {values['configuration']}{norm}, "
        f"{named}",
        f"input: {given['channel_order']}, 0 to {given['value_range']:g}, mean {mean}, std {std} (R, G, B); "
        f"pools round {'up' if given['pool_round_up'] else 'down'}",
    ]
    if about.get("format") in ASSUMED and not values["stated"] and given == ASSUMED[about["format"]].to_dict():
        lines.append(
            f"  assumed, as usual in files of {about['format']}: this one does not say. State another one by --like, "
            "--channel-order, --range, --mean, --std; --try PICTURE shows which is right"
        )
    if about.get("multi_label"):
        lines.append("classes are independent: each has a posterior of its own, by a sigmoid")
    if values["format"] != "verydeep":
        lines.append(f"{values['format']} does not know this input by itself: give it pictures prepared so")
    if left := about.get("left_out"):
        lines.append(f"left out: {', '.join(left)}")
    for name, top in values["tried"].items():
        lines.append(f"{name}: " + ", ".join(f"{label} {value:.1%}" for label, value in top))
    return "\n".join([*lines, *([values["out"]] if values["out"] else [])])
