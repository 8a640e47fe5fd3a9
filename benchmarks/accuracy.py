"""The native engine's scores of real photographs against float64's: how far off, and whether rankings change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.machine import describe_machine
from verydeep.basics.progress import track
from verydeep.engines.compiled import NativeLayers
from verydeep.engines.library import PROCESSORS, best_processor
from verydeep.images.files import find_pictures, read_picture
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.views import prepare, views
from verydeep.nets.families import create, load
from verydeep.nets.vgg import VGG

TOP = 5

ALLOWED = {"native fast": 1e-3}
"""Error that a way may have, relative to the norm of a picture's scores; 1e-4 where none is named."""


def run(images: list[Path], weights: Path | None = None, name: str = "D", limit: int | None = None) -> dict[str, Any]:
    """Score the central crops of photographs in float64, by torch, and by the native engine in all its ways.

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
        float64; of how many pictures the best five classes rank as by torch in float32; of how many otherwise by
        ties, classes that float64 tells apart by less than the error allowed; of how many otherwise without that
        excuse; ``machine``.

    Raises
    ------
    UserError
        No pictures, unreadable weights, or the native library was not built.
    """
    net = (load(weights) if weights else create(name, initialization="he", seed=0)).eval()
    ways: dict[str, Callable[[Tensor], Tensor]] = {"torch": net.score_map}
    for processor in reversed(PROCESSORS[: PROCESSORS.index(best_processor()) + 1]):
        ways[f"native {processor}"] = NativeLayers(net, processor=processor)
    ways["native fast"] = NativeLayers(net, accuracy="fast")
    files = find_pictures(images)[:limit]
    exact = (load(weights) if weights else create(name, initialization="he", seed=0)).eval().double()
    scores: dict[str, list[Tensor]] = {way: [] for way in ["float64", *ways]}
    with torch.inference_mode():
        for file in track(files, len(files), "scoring", "pictures"):
            x = _central_crop(net, file)
            scores["float64"].append(exact.score_map(x.double()).mean(dim=(2, 3))[0])
            for way, score in ways.items():
                scores[way].append(score(x).mean(dim=(2, 3))[0].double())
    return {
        "net": str(net.configuration.name),
        "weights": "trained" if weights else "random",
        "pictures": len(files),
        "rows": [{"way": way, **_judge(way, scores)} for way in ways],
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return errors and rankings that `run` measured, for people."""
    lines = [
        f"{result['net']} with {result['weights']} weights, {result['pictures']} pictures; relative errors against "
        "float64, rankings of the best five classes against torch's",
        f"{'':17}{'greatest':>10}{'median':>10}{'same':>6}{'ties':>6}{'otherwise':>11}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['way']:17}{row['greatest']:10.1e}{row['median']:10.1e}{row['same_ranking']:6}{row['ties']:6}"
            f"{row['otherwise']:11}"
        )
    return "\n".join(lines)


def _central_crop(net: VGG, file: Path) -> Tensor:
    part = Protocol("center", default_protocol(net).scales)
    (view,) = views(part, net.image_size, prepare(part, net, read_picture(file)))
    return net.preprocessing(torch.from_numpy(np.ascontiguousarray(view))[None])


def _judge(way: str, scores: dict[str, list[Tensor]]) -> dict[str, Any]:
    errors, same, ties, wrong = [], 0, 0, 0
    for found, torchs, truth in zip(scores[way], scores["torch"], scores["float64"], strict=True):
        errors.append(float((found - truth).norm() / truth.norm()))
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
        "same_ranking": same,
        "ties": ties,
        "otherwise": wrong,
    }
