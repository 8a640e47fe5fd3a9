"""Photographs joined into one large image, whose score map is to find what is where."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.files import write_aside
from verydeep.basics.machine import describe_machine
from verydeep.checkpoints.reading import load
from verydeep.datasets.storage import open_storage
from verydeep.images.decode import decode
from verydeep.images.formats import SUFFIXES
from verydeep.images.rescale import rescale
from verydeep.nets.network import Network
from verydeep.scoremaps.score_map import Level, ScoreMap, score_map

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Photograph:
    """One photograph of the mosaic.

    Attributes
    ----------
    name : str
        Of its file.
    label : int or None
        Its class among the network's; None where that is none of them.
    top, left : int
        Of its square in the mosaic, in pixels.
    """

    name: str
    label: int | None
    top: int
    left: int


def run(
    data: Path,
    weights: Path,
    scales: Sequence[float] = (0.1, 0.125, 0.2),
    side: int = 720,
    stride: int = 8,
    memory: int = 2 * 2**30,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Join photographs, compute the mosaic's maps, and look for each photograph's class in its place.

    Parameters
    ----------
    data : Path
        Folder or tar file of photographs whose names begin with a WordNet id.
    weights : Path
        Of a network whose classes begin with one, too.
    scales : sequence of float
        Of the maps.
    side : int
        Of each photograph's square in pixels: its smallest side becomes that, the middle of the other is kept.
    stride : int
        Pixels between cells.
    memory : int
        Bytes that the process may hold while the map is computed.
    picture : Path, optional
        Where to draw what was found; the photographs themselves are not drawn.

    Returns
    -------
    dict
        For each scale (`rows`): `found_1` and `found_5`, in how many photographs of known classes the class is first,
        or among the first five, of the posteriors' mean over the windows inside its square; `alone_1` and `alone_5`,
        the same of each photograph by itself; `peaks`, for how many the class's highest cell of the whole mosaic lies
        in its square; `error`, the map's greatest difference from the whole image's, relative; `seconds`.

    Raises
    ------
    UserError
        No photographs, or none of a known class.
    """
    net = load(weights).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.tif"
        photographs, height, width = _join(data, net, side, path)
        known = [photo for photo in photographs if photo.label is not None]
        if not known:
            raise UserError(f"{data}: no photograph is of one of the network's {len(net.classes)} classes")
        start = time.perf_counter()
        found = score_map(path, net, scales=scales, stride=stride, memory=memory)
        seconds = time.perf_counter() - start
        rows = [_row(level, found, known, side, path, net) for level in found.levels]
    if picture:
        _draw(picture, found, photographs, side)
    return {
        "photographs": len(photographs),
        "known": len(known),
        "classes": len(net.classes),
        "mosaic_width": width,
        "mosaic_height": height,
        "stride": stride,
        "seconds": seconds,
        "rows": rows,
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return what `run` found, for people."""
    known = result["known"]
    lines = [
        f"{result['photographs']} photographs, {result['mosaic_width']} x {result['mosaic_height']} pixels; {known} "
        f"are of one of the network's {result['classes']} classes; a cell every {result['stride']} pixels, "
        f"{result['seconds']:.1f} s for all scales"
    ]
    for row in result["rows"]:
        lines.append(
            f"scale {row['scale']:<6g}{row['cells']:9} cells; of {known}: class first {row['found_1']}, among five "
            f"{row['found_5']} (by itself {row['alone_1']} and {row['alone_5']}), highest cell of the class inside "
            f"{row['peaks']}; off the whole image's map by {row['error']:.1e}"
        )
    return "\n".join(lines)


def _join(data: Path, net: Network, side: int, path: Path) -> tuple[list[Photograph], int, int]:
    """Write the mosaic as a TIFF file, row by row, and return what is where, its height and its width."""
    numbers = {name.split(" ")[0]: k for k, name in enumerate(net.classes)}
    names, pictures = _squares(data, side)
    if not names:
        raise UserError(f"{data}: no photographs")
    columns = int(np.ceil(np.sqrt(len(names))))
    rows = -(-len(names) // columns)
    photographs, strips = [], []
    for row in range(rows):
        strip = np.zeros((side, columns * side, 3), np.uint8)
        for column, name in enumerate(names[row * columns : (row + 1) * columns]):
            strip[:, column * side : (column + 1) * side] = next(pictures)
            label = numbers.get(Path(name).name.split("_")[0])
            photographs.append(Photograph(name, label, row * side, column * side))
        strips.append(strip)
    vips = need("pyvips", "maps")
    whole = np.concatenate(strips)
    image = vips.Image.new_from_memory(whole.tobytes(), whole.shape[1], whole.shape[0], 3, "uchar")
    image.tiffsave(str(path), tile=True, compression="deflate")
    return photographs, whole.shape[0], whole.shape[1]


def _squares(data: Path, side: int) -> tuple[list[str], Iterator[Pixels]]:
    """Return the photographs' names, sorted, and their middle squares."""
    storage = open_storage(data)
    names = sorted(name for name in storage.files if name.rpartition(".")[2].lower() in SUFFIXES)

    def squares() -> Iterator[Pixels]:
        for name in names:
            picture = rescale(decode(storage.read(name), name), side)
            top, left = ((n - side) // 2 for n in picture.shape[:2])
            yield picture[top : top + side, left : left + side]

    return names, squares()


def _row(
    level: Level, found: ScoreMap, known: Sequence[Photograph], side: int, path: Path, net: Network
) -> dict[str, Any]:
    values = np.asarray(level.values)
    ranks, alone, peaks = [], [], 0
    for photo in known:
        ranks.append(_rank(_mean(values, level, photo, side), photo.label))
        best = np.unravel_index(int(values[photo.label].argmax()), values.shape[1:])
        y, x = level.center(int(best[0]), int(best[1]))
        peaks += photo.top <= y < photo.top + side and photo.left <= x < photo.left + side
    whole, parts = _alone(level, known, side, path, net)
    alone = [_rank(posterior, photo.label) for posterior, photo in zip(parts, known, strict=True)]
    coarse = values[:, :: 32 // level.stride, :: 32 // level.stride]
    return {
        "scale": level.scale,
        "cells": values.shape[1] * values.shape[2],
        "found_1": sum(rank < 1 for rank in ranks),
        "found_5": sum(rank < 5 for rank in ranks),
        "alone_1": sum(rank < 1 for rank in alone),
        "alone_5": sum(rank < 5 for rank in alone),
        "peaks": int(peaks),
        "error": float(np.abs(coarse - whole).max() / np.abs(whole).max()),
    }


def _mean(values: NDArray[np.float32], level: Level, photo: Photograph, side: int) -> NDArray[np.float32]:
    """Return the mean posterior over the windows that lie in a photograph's square."""
    found = []
    for start, step in ((photo.top, level.step[0]), (photo.left, level.step[1])):
        first = int(np.ceil(start / step / level.stride))
        last = int(np.floor(((start + side) / step - level.window) / level.stride))
        found.append(slice(first, max(last, first) + 1))
    rows, columns = found
    return np.asarray(values[:, rows, columns].mean(axis=(1, 2)))


def _rank(posterior: NDArray[np.float32], label: int | None) -> int:
    assert label is not None
    return int((posterior > posterior[label]).sum())


@torch.inference_mode()
def _alone(
    level: Level, known: Sequence[Photograph], side: int, path: Path, net: Network
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return the whole mosaic's map by the network itself, and each photograph's mean posterior by itself."""
    from verydeep.scoremaps.sources import open_image

    source = open_image(path)
    mosaic = source.read(0, 0, source.height, source.width)
    small = rescale(mosaic, int(min(mosaic.shape[:2]) * level.scale + 0.5), net.preprocessing.interpolation)
    whole = net.score_map(net.preprocessing(torch.from_numpy(small)[None])).softmax(dim=1)[0].numpy()
    parts = []
    for photo in known:
        square = mosaic[photo.top : photo.top + side, photo.left : photo.left + side]
        found = score_map(np.ascontiguousarray(square), net, scales=(level.scale,), stride=level.stride)
        parts.append(np.asarray(found.levels[0].values).mean(axis=(1, 2)))
    return whole, parts


def _draw(path: Path, found: ScoreMap, photographs: Sequence[Photograph], side: int) -> None:
    """Draw the best posterior of every cell of the middle scale, and what was found of each photograph."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle as Box

    level = found.levels[len(found.levels) // 2]
    values = np.asarray(level.values)
    (y, x), (down, across) = level.center(0, 0), (level.stride * step for step in level.step)
    figure = Figure(figsize=(9, 8), dpi=100)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    box = (x - across / 2, x + across * (values.shape[2] - 0.5), y + down * (values.shape[1] - 0.5), y - down / 2)
    heat = axes.imshow(values.max(axis=0), extent=box, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(heat, ax=axes, label="posterior of each cell's best class", fraction=0.04)
    kinds = {"first": "tab:green", "among the first five": "tab:orange", "not among them": "tab:red"}
    for photo in photographs:
        if photo.label is None:
            continue
        rank = _rank(_mean(values, level, photo, side), photo.label)
        color = list(kinds.values())[0 if rank < 1 else 1 if rank < 5 else 2]
        corner = (photo.left + 30, photo.top + 30)
        axes.add_patch(Box(corner, side - 60, side - 60, fill=False, edgecolor=color, linewidth=2))
    for label, color in kinds.items():
        axes.plot([], [], color=color, label=f"its class is {label}")
    axes.set(xlim=(0, found.width), ylim=(found.height, 0), xlabel="pixels of the mosaic")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=3, frameon=False, fontsize="small")
    with write_aside(path) as aside:
        figure.savefig(aside, bbox_inches="tight")
