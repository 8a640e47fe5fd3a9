"""`verydeep perceive`: how far apart pictures look to a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Device, Engine, Json, Memory

if TYPE_CHECKING:
    from verydeep.nets.network import Network
    from verydeep.perceptual.comparison import Comparison
    from verydeep.perceptual.pictures import Pair, Picture

EXAMPLE = "verydeep perceive restored.png original.png --weights trunk.safetensors --metric style --json"


def perceive(
    pictures: Annotated[Path, typer.Argument(help="A picture, or a folder of them.")],
    references: Annotated[Path, typer.Argument(help="What to compare with: a picture, or a folder of the same names.")],
    weights: Annotated[
        Path, typer.Option(help="Trunk, run, weights file of any project, or torchvision:vgg16 and the like.")
    ],
    metric: Annotated[Literal["lpips", "dists", "content", "style"], typer.Option(help="What is measured.")] = "lpips",
    fitted: Annotated[
        Path | None, typer.Option(help="LPIPS's vgg.pth or DISTS's weights.pt; default: of their packages.")
    ] = None,
    heatmap: Annotated[Path | None, typer.Option(help="Draw where two pictures differ, by LPIPS.")] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Show how far the distance is off where pictures are given wrongly.")
    ] = False,
    memory: Memory = "4GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    json_: Json = False,
) -> None:
    """Measure how far apart pictures look to a network: LPIPS, DISTS, content or style (docs/perceptual.md).

    Pictures too large for --memory are compared in bands, to the same distance (pip install 'verydeep[maps]').

    A pair that cannot be compared is named on stderr; the others are compared all the same, and the exit status is 2.

    Example: verydeep perceive restored.png original.png --weights trunk.safetensors --metric style --json
    """
    from verydeep.basics.device import pick_device
    from verydeep.basics.errors import UserError
    from verydeep.evaluation.heatmap import check_suffix
    from verydeep.inference.memory import parse_memory
    from verydeep.perceptual.pictures import find_pairs, make_metric
    from verydeep.perceptual.trunk import trunk
    from verydeep.training.run_folder import find_weights

    pairs = find_pairs(pictures, references)
    if (heatmap or audit) and len(pairs) > 1:
        raise UserError(f"{pictures}: holds {len(pairs)} pictures, and --heatmap and --audit are for two pictures")
    if heatmap and metric != "lpips":
        raise UserError(f"--heatmap {heatmap}: is of the metric lpips, not of {metric}")
    if heatmap:
        check_suffix(heatmap)
    most, where = parse_memory(memory), pick_device(device)
    net = trunk(find_weights(weights))
    measure = make_metric(metric, net, fitted, engine=engine).to(where)
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        try:
            rows.append(_compared(pair, measure, most, heatmap, (metric, net, fitted) if audit else None))
        except UserError as error:
            rows.append(_row(pair, error=str(error)))
            echo(f"verydeep: error: {error}", err=True)
    _print(rows, measure, json_)
    if any("error" in row for row in rows):
        raise typer.Exit(2)


def _compared(
    pair: "Pair", measure: "Comparison", memory: int, heatmap: Path | None, audited: "tuple[Any, Network, Any] | None"
) -> dict[str, Any]:
    """Return a pair's row: compared whole, and drawn and audited, or in bands."""
    from verydeep.basics.errors import UserError
    from verydeep.perceptual.in_bands import distance_in_bands
    from verydeep.perceptual.pictures import as_tensors, fits_whole, on_tensors, read_pair

    net = measure.features.net
    if not fits_whole(pair, net, memory):
        if heatmap or audited:
            raise UserError(
                f"{pair.picture}: does not fit into --memory as a whole, as --heatmap and --audit need it; give more, "
                "or a part of the picture"
            )
        return _row(pair, distance=distance_in_bands(measure, pair.picture, pair.reference, memory, quiet=False))
    both = read_pair(pair, net, memory)
    tensors = as_tensors(both, next(net.parameters()).device)
    row = _row(pair, distance=float(on_tensors(measure, tensors)))
    if heatmap:
        _draw(heatmap, measure, both, tensors, row["distance"])
    if audited:
        metric, trunk, fitted = audited
        row["audit"] = _audit(metric, trunk, tensors, fitted)
    return row


def _row(pair: "Pair", **values: Any) -> dict[str, Any]:
    return {"name": pair.name, "picture": str(pair.picture), "reference": str(pair.reference), **values}


def _draw(path: Path, measure: "Comparison", both: "tuple[Picture, Picture]", pair: Any, distance: float) -> None:
    import torch

    from verydeep.perceptual.drawing import draw_difference
    from verydeep.perceptual.lpips import LPIPS

    assert isinstance(measure, LPIPS)
    with torch.no_grad():
        places = measure.spatial(*pair)[0, 0].cpu().numpy()
    draw_difference(path, *both, places, f"LPIPS {distance:.4f}")


def _audit(metric: Any, net: "Network", both: Any, fitted: Path | None) -> list[dict[str, Any]]:
    from verydeep.perceptual.audit import audit

    return [{"given": words, "distance": value} for words, value in audit(metric, net, both, fitted)]


def _print(rows: list[dict[str, Any]], measure: "Comparison", as_json: bool) -> None:
    import json
    from statistics import mean

    from verydeep.basics.formatting import align

    found = [row["distance"] for row in rows if "distance" in row]
    if as_json:
        values = {**measure.provenance, "mean": mean(found) if found else None, "pairs": rows}
        echo(json.dumps(values, indent=2))
        return
    if not found:
        return
    name = measure.provenance["metric"]
    echo(f"trunk: {measure.trunk}")
    if "weights" in measure.provenance and not measure.trunk.as_published:
        echo(f"  published figures of {name} are of torchvision's weights: do not compare these with them")
    table = [(row["name"], f"{row['distance']:.6f}") for row in rows if "distance" in row]
    more = [("mean", f"{mean(found):.6f}")] if len(found) > 1 else []
    echo(align([("pair", name), *table, *more]))
    for row in rows:
        if "audit" in row:
            right = row["audit"][0]["distance"]
            lines = [(one["given"], f"{one['distance']:.6f}", _off(one["distance"], right)) for one in row["audit"]]
            echo(align([("pictures given", name, "off by"), *lines]))


def _off(value: float, right: float) -> str:
    return f"{value / right - 1:+.1%}" if right else ""
