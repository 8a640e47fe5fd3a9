"""Dense localization of a whole picture against each of its windows by itself; and merging many boxes."""

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.dense import in_turn, photograph
from verydeep.basics.device import pick_device
from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.basics.rng import generator
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime
from verydeep.localization.dense import LocalizationModel
from verydeep.localization.merging import MergeRule, merge
from verydeep.nets.config import STRIDE
from verydeep.nets.families import create
from verydeep.nets.geometry import score_map_size, summarize
from verydeep.nets.network import Network
from verydeep.nets.vgg import is_head

TARGET = 0.1
"""Most that the ratio of times may differ from that of multiply-adds, as a share of the latter."""
MERGE_TARGET = 1.0
"""Seconds that merging may take."""
_BATCHES = (1, 4, 12)
_MEMORY = 4 << 30


def run(
    repeats: int = 3, side: int = 384, width: float = 1.0, boxes: int = 10_000, device: str = "auto"
) -> dict[str, Any]:
    """Time a classifier and a localizer of configuration D on one picture, in four ways, in turn.

    Parameters
    ----------
    repeats : int
        Timed runs of each way; medians are reported.
    side : int
        Side of the picture in pixels, a multiple of 32, at least 224.
    width : float
        Factor on the networks' channels; 1 is the paper's.
    boxes : int
        Boxes to merge, at random places of a picture.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    dict
        ``rows``: for each way (dense or windows; with the convolutions shared by both networks, or not) its seconds and
        multiply-adds. ``ratio`` of windows to dense, each with shared convolutions, beside ``multiply_add_ratio``;
        ``shared_ratio`` and ``shared_multiply_add_ratio`` of dense with separate convolutions to shared ones.
        ``merge_seconds`` of all boxes, for each number of clusters in ``merge_clusters``; ``machine``.

    Raises
    ------
    UserError
        For a side that makes no map, less than one repeat, or less than two boxes.
    """
    if side < 224 or side % STRIDE or repeats < 1 or boxes < 2:
        wanted = "a multiple of 32 from 224 on, at least one, and at least two, are needed"
        raise UserError(f"side {side}, repeats {repeats}, boxes {boxes}: {wanted}")
    where = pick_device(device)
    shared, separate = (_pair(width, where, same) for same in (True, False))
    picture = photograph(side).numpy()
    batch = _best_batch(shared, picture)
    ways = {
        ("dense", "shared"): partial(_dense, shared, picture),
        ("windows", "shared"): partial(_windows, shared, picture, batch),
        ("dense", "separate"): partial(_dense, separate, picture),
        ("windows", "separate"): partial(_windows, separate, picture, batch),
    }
    times = dict(zip(ways, in_turn(list(ways.values()), repeats), strict=True))
    counts = {way: multiply_adds(shared, side, *way) for way in ways}
    rows = [
        {"way": way, "convolutions": c, "seconds": times[way, c], "multiply_adds": counts[way, c]} for way, c in ways
    ]
    clusters = (1, 20, boxes)
    return {
        "side": side,
        "windows": int(np.prod(score_map_size(shared.classifier.net, side, side))),
        "width": width,
        "device": where.type,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "batch": batch,
        "rows": rows,
        "ratio": times["windows", "shared"] / times["dense", "shared"],
        "multiply_add_ratio": counts["windows", "shared"] / counts["dense", "shared"],
        "ratio_target": TARGET,
        "shared_ratio": times["dense", "separate"] / times["dense", "shared"],
        "shared_multiply_add_ratio": counts["dense", "separate"] / counts["dense", "shared"],
        "boxes": boxes,
        "merge_clusters": list(clusters),
        "merge_seconds": [_merge_seconds(boxes, count, repeats) for count in clusters],
        "merge_target": MERGE_TARGET,
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return the times that `run` measured, for people."""
    side, threads = result["side"], result["threads"]
    lines = [
        f"classifier and localizer D, width {result['width']}, {side} x {side} pixels, {result['windows']} windows "
        f"(batches of {result['batch']}), {result['device']}, {threads} threads; median of {result['repeats']}",
        *(
            f"{row['way']:8} convolutions {row['convolutions']:8}{row['seconds']:9.3f} s"
            f"{row['multiply_adds'] / 1e9:9.1f} G multiply-adds"
            for row in result["rows"]
        ),
        f"dense is {result['ratio']:.2f} times faster than windows; by multiply-adds "
        f"{result['multiply_add_ratio']:.2f} (target: within {result['ratio_target']:.0%})",
        f"shared convolutions are {result['shared_ratio']:.2f} times faster than separate ones; by multiply-adds "
        f"{result['shared_multiply_add_ratio']:.2f}",
    ]
    lines += [
        f"merging {result['boxes']:,} boxes around {clusters:,} place{'s' * (clusters > 1)}: {seconds:.2f} s "
        f"(target: {result['merge_target']:g} s)"
        for clusters, seconds in zip(result["merge_clusters"], result["merge_seconds"], strict=True)
    ]
    return "\n".join(lines)


def _pair(width: float, device: torch.device, same_convolutions: bool) -> LocalizationModel:
    """Return D for a thousand classes, and D for the box of each, with the same convolutions or others."""
    classifier = create("D", width=width, seed=0)
    localizer = create("D", width=width, seed=1, regression="pcr")
    if same_convolutions:
        state = {name: t for name, t in classifier.state_dict().items() if not is_head(name.partition(".")[0])}
        localizer.load_state_dict(state, strict=False)
    pair = LocalizationModel(classifier.eval(), localizer.eval(), Options(), Runtime(str(device), "torch", _MEMORY))
    assert pair.shares_trunk == same_convolutions
    return pair


def _dense(pair: LocalizationModel, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the boxes' numbers of the whole picture, h x w x K x 4."""
    return np.asarray(pair.maps([picture])[1][0])


def _windows(pair: LocalizationModel, picture: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    """Return the same of every window run by itself, `batch` at a time."""
    rows, columns = score_map_size(pair.classifier.net, *picture.shape[:2])
    places = [(STRIDE * i, STRIDE * j) for i in range(rows) for j in range(columns)]
    windows = [picture[y : y + pair.size, x : x + pair.size] for y, x in places]
    parts = [pair.maps(windows[first : first + batch])[1] for first in range(0, len(windows), batch)]
    return np.concatenate(parts).reshape(rows, columns, -1, 4)


def _best_batch(pair: LocalizationModel, picture: NDArray[np.uint8]) -> int:
    _windows(pair, picture, _BATCHES[0])  # which warms up
    trials = in_turn([partial(_windows, pair, picture, batch) for batch in _BATCHES], repeats=1)
    return _BATCHES[trials.index(min(trials))]


def multiply_adds(pair: LocalizationModel, side: int, way: str, convolutions: str) -> int:
    """Return the multiply-adds of one way, from the layers' shapes.

    Parameters
    ----------
    pair : LocalizationModel
        The networks.
    side : int
        Of the square picture in pixels.
    way : {"dense", "windows"}
        All windows at once, or each by itself.
    convolutions : {"shared", "separate"}
        Whether both networks' convolutions are computed once.
    """
    nets: tuple[Network, Network] = pair.classifier.net, pair.localizer.net
    windows = 1 if way == "dense" else int(np.prod(score_map_size(nets[0], side, side)))
    layers = [summarize(net, *(side if way == "dense" else pair.size,) * 2) for net in nets]
    heads = sum(layer.macs for net in layers for layer in net if is_head(layer.name))
    trunk = sum(layer.macs for layer in layers[0] if not is_head(layer.name))
    return windows * (heads + trunk * (1 if convolutions == "shared" else 2))


def _merge_seconds(count: int, clusters: int, repeats: int) -> float:
    """Return the seconds in which boxes around some places become few, as a threshold of 0.5 does."""
    chance = generator(0, clusters)
    middles = chance.uniform(50, 450, (clusters, 2))[chance.integers(clusters, size=count)]
    middles, sides = middles + chance.normal(0, 8, middles.shape), chance.uniform(40, 120, middles.shape)
    boxes = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        merge(boxes, MergeRule(0.5))
        best = min(best, time.perf_counter() - start)
    return float(best)
