"""Dense evaluation of a whole picture against running each of its windows as a crop (paper section 3.2)."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image
from torch import Tensor

from verydeep.basics.device import pick_device
from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.images.rescale import rescale
from verydeep.nets.config import STRIDE
from verydeep.nets.families import create
from verydeep.nets.geometry import macs, receptive_field, score_map_size
from verydeep.nets.network import Network

TARGET = 10.0
"""Times that dense evaluation should be faster, at least; by multiply-adds it would be 11.2."""
_BATCHES = (4, 12, 36)


def run(repeats: int = 5, side: int = 384, width: float = 1.0, device: str = "auto") -> dict[str, Any]:
    """Time configuration D on one square picture both ways, in turn.

    Both ways begin with the picture's bytes and end with the scores. The crops are batched as is fastest here.

    Parameters
    ----------
    repeats : int
        Timed runs of each way; medians are reported.
    side : int
        Side of the picture in pixels, a multiple of 32, at least 224.
    width : float
        Factor on the network's channels; 1 is the paper's.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    dict
        ``rows``, for each way its batch, seconds and speed relative to the crops; ``ratio`` of the two times and
        ``multiply_add_ratio``; ``machine``. And how far the scores agree: ``interior_difference``, the greatest
        difference, relative to the scores' spread, between cells of a map that see no border and the same cells
        computed from just the pixels they see; ``crop_correlation`` of the map with the crops' scores, which
        differ by the border effect: a crop is padded with zeros where the map sees the picture.

    Raises
    ------
    UserError
        For a side that makes no map, or less than one repeat.
    """
    if side < 224 or side % STRIDE or repeats < 1:
        raise UserError(f"side {side}, repeats {repeats}: a multiple of 32 from 224 on, and at least one, are needed")
    where = pick_device(device)
    net = create("D", width=width, seed=0).eval().to(where)
    picture = photograph(side)
    with torch.inference_mode():
        ways = [partial(_crops, net, picture, size) for size in _BATCHES]
        maps = _dense(net, picture).ravel(), ways[-1]().ravel()  # which warms up, too
        trials = in_turn(ways, repeats=1)
        batch = _BATCHES[trials.index(min(trials))]
        dense, crops = in_turn([partial(_dense, net, picture), partial(_crops, net, picture, batch)], repeats)
        interior = _interior_difference(net)
    windows = int(np.prod(score_map_size(net, side, side)))
    return {
        "side": side,
        "windows": windows,
        "width": width,
        "device": where.type,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "rows": [
            {"way": "dense", "batch": 1, "seconds": dense, "speed": crops / dense},
            {"way": "crops", "batch": batch, "seconds": crops, "speed": 1.0},
        ],
        "ratio": crops / dense,
        "ratio_target": TARGET,
        "multiply_add_ratio": windows * macs(net, 224, 224) / macs(net, side, side),
        "interior_difference": interior,
        "crop_correlation": float(np.corrcoef(*maps)[0, 1]),
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return the times that `run` measured, for people."""
    side, threads = result["side"], result["threads"]
    lines = [
        f"configuration D, width {result['width']}, {side} x {side} pixels, {result['windows']} windows, "
        f"{result['device']}, {threads} threads; median of {result['repeats']}",
        *(f"{row['way']:8}batch {row['batch']:3}{row['seconds']:10.3f} s" for row in result["rows"]),
        f"dense is {result['ratio']:.1f} times faster (target {result['ratio_target']:.0f}, by multiply-adds "
        f"{result['multiply_add_ratio']:.1f})",
        f"scores that see no border differ by {result['interior_difference']:.1e} of their spread; with those of the "
        f"crops, padded with zeros, the map correlates {result['crop_correlation']:.3f}",
    ]
    return "\n".join(lines)


def photograph(side: int) -> Tensor:
    """Return a bundled photograph as uint8 side x side x 3."""
    photograph: NDArray[np.uint8] = load_sample_image("china.jpg")
    return torch.from_numpy(np.ascontiguousarray(rescale(photograph, side)[:side, :side]))


def _dense(net: Network, picture: Tensor) -> NDArray[np.float32]:
    """Return the score map of the whole picture, h x w x K."""
    pixels = picture.to(next(net.parameters()).device)
    return np.asarray(net.score_map(net.preprocessing(pixels[None]))[0].permute(1, 2, 0).cpu())


def _crops(net: Network, picture: Tensor, batch: int) -> NDArray[np.float32]:
    """Return the scores of every window of the picture run by itself, h x w x K."""
    pixels, size = picture.to(next(net.parameters()).device), net.image_size
    windows = pixels.unfold(0, size, STRIDE).unfold(1, size, STRIDE)  # h x w x 3 x size x size
    rows, columns = windows.shape[:2]
    flat = windows.permute(0, 1, 3, 4, 2).flatten(0, 1)
    scores = torch.cat([net(net.preprocessing(part)) for part in torch.split(flat, batch)])
    return np.asarray(scores.reshape(rows, columns, -1).cpu())


def in_turn(ways: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median seconds of each way; one after the other, so that a disturbance meets all."""
    times = []
    for _ in range(repeats):
        row = []
        for way in ways:
            start = time.perf_counter()
            way()  # ends with a copy to the host, so nothing is left running on a device
            row.append(time.perf_counter() - start)
        times.append(row)
    return [median(column) for column in zip(*times, strict=True)]


def _interior_difference(net: Network) -> float:
    """Compare cells that see no border with the same cells computed from just what they see."""
    field = receptive_field(net, 0, 0)
    margin = -(field.top // STRIDE)  # in cells: 90 pixels beyond the window, rounded up to 96
    small = net.image_size + 2 * margin * STRIDE
    picture = photograph(small + STRIDE)
    whole = _dense(net, picture)
    differences = []
    for row in (0, 1):
        for column in (0, 1):
            part = picture[STRIDE * row : STRIDE * row + small, STRIDE * column : STRIDE * column + small]
            alone = _dense(net, part.contiguous())[margin, margin]
            differences.append(np.abs(alone - whole[margin + row, margin + column]).max())
    return float(max(differences) / whole.std())
