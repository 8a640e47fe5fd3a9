"""The native engine's scores of photographs, or a trunk's pool5, against float64's: how far off, are rankings other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import peers
from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.basics.progress import track
from verydeep.engines.compiled import NativeLayers
from verydeep.engines.library import PROCESSORS, best_processor
from verydeep.images.files import find_pictures, read_picture
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.views import prepare, views
from verydeep.nets.families import create, load
from verydeep.nets.network import Network

Run = Callable[[Tensor], Tensor]

TOP = 5

ALLOWED = {"native fast": 1e-3, "native fixed16": 3e-3, "openvino bf16": 3e-2, "openvino int8": 2e-1}
"""Error that a way may have, relative to the norm of a picture's scores; 1e-4 where none is named."""


def run(images: list[Path], weights: Path | None = None, name: str = "D", limit: int | None = None) -> dict[str, Any]:
    """Score the central crops of photographs in float64, by torch, the native engine in all its ways, and OpenVINO.

    OpenVINO's int8 takes its ranges from the first of them, at most 32. Of a trunk its pool5 is judged.

    Parameters
    ----------
    images : list of Path
        Pictures, or folders of pictures.
    weights : Path, optional
        A weights file; without it configuration `name` gets random weights, scaled as He et al. do.
    name : str
        Configuration of the random weights.
    limit : int, optional
        Only so many pictures.

    Returns
    -------
    dict
        ``rows``: for each way the greatest and the median relative error of a picture's scores, as a norm, against
        float64; of how many pictures the best class is float64's; of how many the best five rank as by torch in
        float32; of how many otherwise by ties, classes that float64 tells apart by less than the error allowed; of
        how many otherwise without that excuse; ``missing`` ways with the reason; ``machine``.

    Raises
    ------
    UserError
        No pictures, unreadable weights, or the native library was not built.
    """
    net, exact = ((load(weights) if weights else create(name, initialization="he", seed=0)) for _ in range(2))
    net, exact = net.one_view().eval(), exact.one_view().eval().double()
    layer, files = net.layer_names[-1], find_pictures(images)[:limit]
    crops = [_central_crop(net, file) for file in files]
    ways, missing = _ways(net, layer, crops)
    scores: dict[str, list[Tensor]] = {way: [] for way in ["float64", *ways]}
    with torch.inference_mode():
        for x in track(crops, len(crops), "scoring", "pictures"):
            scores["float64"].append(_judged(net, exact.activations(x.double(), layer)))
            for way, run_ in ways.items():
                scores[way].append(_judged(net, run_(x)))
    return {
        "net": str(net.configuration.name),
        "weights": "trained" if weights else "random",
        "layer": layer,
        "pictures": len(files),
        "rows": [{"way": way, **_judge(way, scores)} for way in ways],
        "missing": missing,
        "machine": describe_machine(),
    }


def _ways(net: Network, layer: str, crops: list[Tensor]) -> tuple[dict[str, Run], dict[str, str]]:
    ways: dict[str, Run] = {"torch": lambda x: net.activations(x, layer)}
    for processor in reversed(PROCESSORS[: PROCESSORS.index(best_processor()) + 1]):
        ways[f"native {processor}"] = NativeLayers(net, layer, processor=processor)
    ways["native fast"] = NativeLayers(net, layer, "fast")
    ways["native fixed16"] = NativeLayers(net, layer, "fixed16")
    missing = {}
    for precision in ("bf16", "int8"):
        try:
            ways[f"openvino {precision}"] = peers.openvino(net, precision, crops)
        except UserError as error:
            missing[f"openvino {precision}"] = str(error)
    return ways, missing


def _judged(net: Network, values: Tensor) -> Tensor:
    """Return what of one picture's map is judged: scores of classes, means over places; of a trunk all of it."""
    return (values if net.task == "describe" else values.mean(dim=(2, 3))).double().flatten()


def text(result: dict[str, Any]) -> str:
    """Return errors and rankings that `run` measured, for people."""
    lines = [
        f"{result['net']} with {result['weights']} weights, {result['layer']}, {result['pictures']} pictures; relative "
        "errors against float64; of scores, whether the best class is its, and the best five rank as by torch",
        f"{'':17}{'greatest':>10}{'median':>10}{'best':>6}{'same':>6}{'ties':>6}{'otherwise':>11}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['way']:17}{row['greatest']:10.1e}{row['median']:10.1e}{row['same_best']:6}{row['same_ranking']:6}{row['ties']:6}"
            f"{row['otherwise']:11}"
        )
    lines += [f"not measured: {way}: {reason}" for way, reason in result["missing"].items()]
    return "\n".join(lines)


def _central_crop(net: Network, file: Path) -> Tensor:
    part = Protocol("center", default_protocol(net).scales)
    (view,) = views(part, net.image_size, prepare(part, net, read_picture(file)))
    return net.preprocessing(torch.from_numpy(np.ascontiguousarray(view))[None])


def _judge(way: str, scores: dict[str, list[Tensor]]) -> dict[str, Any]:
    errors, best, same, ties, wrong = [], 0, 0, 0, 0
    for found, torchs, truth in zip(scores[way], scores["torch"], scores["float64"], strict=True):
        errors.append(float((found - truth).norm() / truth.norm()))
        best += int(found.argmax()) == int(truth.argmax())
        mine, theirs = (values.topk(TOP).indices for values in (found, torchs))
        if bool((mine == theirs).all()):
            same += 1
            continue
        apart = (truth[mine] - truth[theirs]).abs().max()
        tie = bool(apart <= ALLOWED.get(way, 1e-4) * truth.norm())
        ties, wrong = ties + tie, wrong + (not tie)
    return {
        "greatest": max(errors),
        "median": float(np.median(errors)),
        "same_best": best,
        "same_ranking": same,
        "ties": ties,
        "otherwise": wrong,
    }
