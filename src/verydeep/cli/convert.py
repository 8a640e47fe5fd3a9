"""`verydeep convert`: weights of other projects in, and ours out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.options import Json

if TYPE_CHECKING:
    from verydeep.nets.vgg import VGG

EXAMPLE = "verydeep convert vgg16.pth d.safetensors"


def convert(
    source: Annotated[
        str, typer.Argument(help="A weights file, or a name such as torchvision:vgg16, timm:vgg19_bn, keras:vgg16.")
    ],
    out: Annotated[Path, typer.Argument(help="The file to write; its ending must be the target's.")],
    to: Annotated[
        Literal["verydeep", "torchvision", "timm", "keras", "caffe"], typer.Option(help="Whose file to write.")
    ] = "verydeep",
    fold_batch_norm: Annotated[
        bool, typer.Option("--fold-batch-norm", help="Move batch norm into the convolutions; same outputs.")
    ] = False,
    preprocessing: Annotated[
        Literal["torchvision", "timm", "caffe", "keras"] | None,
        typer.Option(help="Whose pictures the network wants; default: those of the file's format."),
    ] = None,
    prototxt: Annotated[Path | None, typer.Option(help="Definition of a .caffemodel, checked against it.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file with one class name a line, in order.")] = None,
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
    from verydeep.checkpoints.reading import load
    from verydeep.checkpoints.writing import fold_batch_norm as fold
    from verydeep.checkpoints.writing import write
    from verydeep.nets.weights import save

    if to == "verydeep" and out.suffix != ".safetensors":
        raise UserError(f"{out}: must end in .safetensors (or name another project's format with --to)")
    net = load(
        source,
        preprocessing=preprocessing,
        classes=_lines(classes) if classes else None,
        prototxt=prototxt,
        offline=offline,
    )
    net = fold(net) if fold_batch_norm else net
    if to == "verydeep":
        save(net, out)
    else:
        write(net, out, to)
    values = _values(source, out, to, net)
    typer.echo(json.dumps(values, indent=2) if json_ else _text(values))


def _lines(path: Path) -> list[str]:
    from verydeep.basics.files import read_text

    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _values(source: str, out: Path, to: str, net: "VGG") -> dict[str, Any]:
    return {
        "source": source,
        "out": str(out),
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
    if about.get("multi_label"):
        lines.append("classes are independent: each has a posterior of its own, by a sigmoid")
    if values["format"] != "verydeep":
        lines.append(f"{values['format']} does not know this input by itself: give it pictures prepared so")
    return "\n".join([*lines, values["out"]])
