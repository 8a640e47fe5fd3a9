"""`verydeep describe`: what a network is made of, and where its outputs look."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verydeep.basics.errors import UserError
from verydeep.cli.console import echo
from verydeep.cli.options import Json

if TYPE_CHECKING:
    from verydeep.nets.network import Network

EXAMPLE = "verydeep describe D --image-size 384"


def describe(
    net: Annotated[
        str | None,
        typer.Argument(
            help="A, A-LRN, B, C, D, E, B-5x5, another paper's such as alexnet, or a weights file.", show_default=False
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(help="Side of the image in pixels, or HEIGHTxWIDTH; default: the network's window."),
    ] = None,
    cell: Annotated[str | None, typer.Option(help="ROW,COLUMN of the score map: print its pixel window.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The paper's Tables 1 and 2, and why 3x3.")] = False,
    json_: Json = False,
) -> None:
    """Print a network's layers, parameters, multiply-adds, receptive fields and score map.

    Example: verydeep describe D --image-size 384
    """
    import json

    if all_:
        echo(json.dumps(_all()) if json_ else _tables())
        return
    if net is None:
        raise UserError("describe: which network? for example `verydeep describe D`, or `verydeep describe --all`")
    network = _network(net)
    height, width = _pair(image_size, "x", "--image-size") if image_size else (network.image_size,) * 2
    values = _values(network, height, width)
    if cell:
        values["cell"] = _cell(network, values["score_map"], cell)
    echo(json.dumps(values) if json_ else _text(values))


def _network(name: str) -> "Network":
    from verydeep.nets.families import default_config, load, make_on_meta

    if Path(name).suffix or Path(name).is_file():
        return load(name)
    return make_on_meta(default_config(name, [str(number) for number in range(1000)]))


def _pair(text: str, separator: str, option: str) -> tuple[int, int]:
    parts = text.lower().split(separator)
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 0:
        raise UserError(f"{option} {text}: expected a whole number or two with {separator!r} between, such as 256x341")
    return numbers[0], numbers[-1]


def _values(net: "Network", height: int, width: int) -> dict[str, Any]:
    from verydeep.nets.geometry import score_map_size, summarize

    layers = summarize(net, height, width)
    at = {layer.name: layer for layer in layers}
    return {
        "name": net.configuration.name,
        "weight_layers": sum(layer.macs > 0 for layer in layers),
        "classes": len(net.classes),
        "image_size": [height, width],
        "parameters": sum(layer.parameters for layer in layers),
        "conv_parameters": sum(layer.parameters for layer in layers if not layer.name.startswith("fc")),
        "macs": sum(layer.macs for layer in layers),
        "conv_macs": sum(layer.macs for layer in layers if not layer.name.startswith("fc")),
        "receptive_field": {name: at[name].receptive_field for name in ("pool5", "fc6") if name in at}
        or {layers[-1].name: layers[-1].receptive_field},
        "stride": net.stride,
        "window": net.window,
        "score_map": list(score_map_size(net, height, width)),
        "layers": [vars(layer) for layer in layers],
        **_pixels(net),
    }


def _pixels(net: "Network") -> dict[str, Any]:
    """Return what a network for each pixel has beside the chain of layers."""
    from verydeep.nets.fcn import FCN

    if not isinstance(net, FCN):
        return {}
    about, chain = net.config.segmentation, {name for name, _ in net.chain}
    assert about is not None
    beside = {n: sum(p.numel() for p in m.parameters()) for n, m in net.named_children() if n not in chain}
    return {"segmentation": {"head": about.head, "padding": about.padding, "crop": -net.last.lag, "beside": beside}}


def _cell(net: "Network", score_map: list[int], text: str) -> dict[str, Any]:
    from verydeep.nets.geometry import receptive_field, window

    row, column = _pair(text, ",", "--cell")
    if row >= score_map[0] or column >= score_map[1]:
        raise UserError(f"--cell {text}: the score map has {score_map[0]} x {score_map[1]} cells, counted from 0")
    return {
        "row": row,
        "column": column,
        "window": vars(window(net, row, column)),
        "receptive_field": vars(receptive_field(net, row, column)),
    }


def _text(values: dict[str, Any]) -> str:
    height, width = values["image_size"]
    wide = max(8, *(len(layer["name"]) for layer in values["layers"])) + 1
    lines = [
        f"configuration {values['name']}: {values['weight_layers']} weight layers, {values['parameters']:,} parameters "
        f"({values['conv_parameters']:,} in convolutions), {values['classes']} classes",
        f"on an image of {height} x {width} pixels: {values['macs'] / 1e9:,.3f} G multiply-adds "
        f"({values['conv_macs'] / 1e9:,.3f} G in convolutions)",
        "",
        f"{'layer':{wide}}{'kind':7}{'output':>18}{'parameters':>14}{'M mult-adds':>13}{'field':>7}{'stride':>8}",
    ]
    for layer in values["layers"]:
        output = " x ".join(str(n) for n in layer["output"])
        lines.append(
            f"{layer['name']:{wide}}{layer['kind']:7}{output:>18}{layer['parameters']:>14,}"
            f"{layer['macs'] / 1e6:>13,.1f}{layer['receptive_field']:>7}{layer['stride']:>8}"
        )
    rows, columns = values["score_map"]
    size, stride = values["window"], values["stride"]
    fields = ", ".join(f"{pixels} pixels at {name}" for name, pixels in values["receptive_field"].items())
    what = "score map" if values["classes"] else "map"
    lines += [
        "",
        f"receptive field: {fields}, stride {stride}",
        f"{what}: {rows} x {columns} cells; cell (i, j) is the answer to the window of {size} x {size} pixels whose "
        f"top left pixel is ({stride} i, {stride} j)",
    ]
    if "segmentation" in values:
        pixels = values["segmentation"]
        beside = ", ".join(f"{name} ({count:,} parameters)" for name, count in pixels["beside"].items())
        lines.append(
            f"for each pixel: head {pixels['head']}, padding {pixels['padding']}, scores cropped by {pixels['crop']} "
            f"pixels; beside the chain: {beside}; verydeep segment runs it"
        )
    if "cell" in values:
        cell = values["cell"]
        for name, what in (("window", "window"), ("receptive_field", "receptive field")):
            r = cell[name]
            lines.append(
                f"cell ({cell['row']}, {cell['column']}): {what} rows {r['top']} to {r['bottom'] - 1}, "
                f"columns {r['left']} to {r['right'] - 1}"
            )
    return "\n".join(lines)


def _all() -> list[dict[str, Any]]:
    from verydeep.nets.configurations import CONFIGURATIONS

    return [_values(_network(name), 224, 224) for name in CONFIGURATIONS]


def _tables() -> str:
    from verydeep.nets.configurations import CONFIGURATIONS, Configuration

    every = list(CONFIGURATIONS.values())
    wide = 13

    def line(*cells: str) -> str:
        return "".join(f"{cell:<{wide}}" for cell in cells).rstrip()

    def block(configuration: Configuration, b: int) -> list[str]:
        rows = [f"conv{conv.kernel}-{conv.channels}" for conv in configuration.blocks[b]]
        return rows + ["LRN"] * (configuration.lrn and b == 0)

    lines = ["Table 1: the configurations (convK-N: N filters of K x K; ReLU behind each)", ""]
    lines += [line(*(c.name for c in every)), line(*(f"{c.weight_layers} layers" for c in every))]
    for b in range(5):
        columns = [block(c, b) for c in every]
        depth = max(map(len, columns))
        lines.append("-" * wide * len(every))
        lines += [line(*(column[i] if i < len(column) else "" for column in columns)) for i in range(depth)]
        lines.append("maxpool 2x2".center(wide * len(every)).rstrip())
    lines += [text.center(wide * len(every)).rstrip() for text in ("FC-4096", "FC-4096", "FC-1000", "soft-max")]
    values = _all()
    lines += ["", "Table 2: parameters (millions)", "", line(*(v["name"] for v in values))]
    lines += [line(*(f"{round(v['parameters'] / 1e6)}" for v in values)), "", _ARGUMENT]
    return "\n".join(lines)


_ARGUMENT = """Why 3x3 (section 2.3): a stack of 3x3 convolutions, stride 1, sees as much as one larger filter, with
more rectifications between and fewer weights. For C channels in and out:

layers        receptive field   weights            rectifications
two 3x3       5 x 5             2 * 9C^2 = 18C^2   2
one 5x5       5 x 5             25C^2              1
three 3x3     7 x 7             3 * 9C^2 = 27C^2   3
one 7x7       7 x 7             49C^2, 81 % more   1"""
