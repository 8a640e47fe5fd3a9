"""Score maps of large images: this project's bands against overlapping tiles, each way in a process of its own."""

import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from benchmarks.own_process import OwnProcess
from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.machine import describe_machine
from verydeep.basics.memory import resident

WAYS = {
    "whole": "the network on the whole image at once",
    "bands": "this project, without a limit of memory",
    "bands, limited": "this project, within --memory",
    "tiles": "tiles of 512 pixels that overlap by a quarter, each padded with zeros, overlaps averaged",
    "MONAI": "monai.inferers.sliding_window_inference with the same tiles",
}
_TILE, _OVERLAP, _BATCH = 512, 0.25, 4
_CLASSES = 10

Map = NDArray[np.float32]


def run(
    side: int = 2048, memory: int = 2 * 2**30, width: float = 0.25, alone: bool = False, threads: int | None = None
) -> dict[str, Any]:
    """Compute one image's score map in several ways, one after the other.

    The image is a photograph repeated, in a tiled TIFF file; the network is B with windows of 32 pixels, so that
    every tile gives whole cells and the usual way is at its best.

    Parameters
    ----------
    side : int
        Of the square image in pixels.
    memory : int
        Bytes that the limited way may hold.
    width : float
        Factor on the network's channels.
    alone : bool
        Only the limited way: for images whose activations do not fit into memory.
    threads : int, optional
        Of torch; by default its own choice.

    Returns
    -------
    dict
        `rows`, for each way seconds, those of processor time, peak resident bytes of its process, bytes beside what
        it held before the image was opened, and `error`, its greatest difference from the whole image's map relative
        to that map's greatest value; `machine`.

    Raises
    ------
    UserError
        An image smaller than a tile, or one that tiles cannot cover with whole cells.
    """
    if side < _TILE or (side % 32 and not alone):
        raise UserError(f"side {side}: at least one tile of {_TILE} pixels, and whole cells of 32, are needed")
    from importlib.util import find_spec

    ways = ["bands, limited"] if alone else [way for way in WAYS if way != "MONAI" or find_spec("monai")]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.tif"
        _write_image(image, side)
        reference: Map | None = None
        for way in ways:
            row, values = _in_process(way, image, memory, width, threads)
            reference = values if way == "whole" else reference
            if reference is not None:
                row["error"] = float(np.abs(values - reference).max() / np.abs(reference).max())
            rows.append(row)
    return {
        "side": side,
        "limit": memory,
        "width": width,
        "threads": threads,
        "rows": rows,
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return times, memory and errors that `run` measured, for people."""
    lines = [
        f"configuration B, width {result['width']}, {result['side']} x {result['side']} pixels, limit "
        f"{result['limit'] / 2**30:.2f} GiB; memory is what the whole process held at most"
    ]
    for row in result["rows"]:
        error = f"   off by {row['error']:.1e} of the map's greatest value" if "error" in row else ""
        times = f"{row['seconds']:9.2f} s ({row['cpu_seconds']:.1f} s of processors)"
        lines.append(f"{row['way']:16}{times}{row['peak_memory'] / 2**30:8.2f} GiB{error}")
    return "\n".join(lines)


def _write_image(path: Path, side: int) -> None:
    vips = need("pyvips", "maps")
    photograph: NDArray[np.uint8] = load_sample_image("china.jpg")
    height, width = photograph.shape[:2]
    tile = vips.Image.new_from_memory(photograph.tobytes(), width, height, 3, "uchar")
    many = tile.replicate(-(-side // width), -(-side // height)).crop(0, 0, side, side)
    many.tiffsave(str(path), tile=True, tile_width=256, tile_height=256, compression="jpeg", Q=90, bigtiff=True)


def _in_process(way: str, image: Path, memory: int, width: float, threads: int | None) -> tuple[dict[str, Any], Map]:
    """Run one way in a new process, so that its memory is its own."""
    row, values = OwnProcess(way, _serve, way, image, memory, width, threads).receive()
    return {"way": way, **row}, values


def _serve(connection: Any, way: str, image: Path, memory: int, width: float, threads: int | None) -> None:
    import torch

    from verydeep.scoremaps.densify import densify

    if threads:
        torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    net = _network(width)
    runs: dict[str, Callable[[], Map]] = {
        "whole": lambda: _whole(net, image),
        "bands": lambda: _bands(densify(net), image, None),
        "bands, limited": lambda: _bands(densify(net), image, memory),
        "tiles": lambda: _tiles(net, image),
        "MONAI": lambda: _monai(net, image),
    }
    before = resident()
    start, begun = time.perf_counter(), time.process_time()
    values = runs[way]()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - begun
    peak = resident(peak=True)
    row = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory": peak, "memory_for_the_map": peak - before}
    connection.send((row, values))


def _network(width: float) -> Any:
    from verydeep.nets.families import create

    return create("B", _CLASSES, width=width, image_size=32, fc_width=128, initialization="he", seed=0).eval()


def _bands(dense: Any, image: Path, memory: int | None) -> Map:
    from verydeep.scoremaps.score_map import score_map

    found = score_map(image, dense, softmax=False, memory=memory, device="cpu")
    return np.asarray(found.levels[0].values)


def _pixels(net: Any, image: Path) -> Any:
    """Return the preprocessed image, 1 x 3 x H x W: what the other ways begin with."""
    import torch

    from verydeep.scoremaps.sources import open_image

    source = open_image(image)
    return net.preprocessing(torch.from_numpy(source.read(0, 0, source.height, source.width).copy())[None])


def _whole(net: Any, image: Path) -> Map:
    return np.asarray(net.score_map(_pixels(net, image))[0])


def _tiles(net: Any, image: Path) -> Map:
    """Run overlapping tiles in batches and average what they say of the same cell."""
    import torch

    pixels = _pixels(net, image)
    height, width = pixels.shape[2:]
    corners = [(top, left) for top in _starts(height) for left in _starts(width)]
    total = torch.zeros(_CLASSES, -(-height // 32), -(-width // 32))
    count = torch.zeros(total.shape[1:])
    for start in range(0, len(corners), _BATCH):
        some = corners[start : start + _BATCH]
        scores = net.score_map(torch.cat([pixels[:, :, top : top + _TILE, left : left + _TILE] for top, left in some]))
        for (top, left), one in zip(some, scores, strict=True):
            rows = slice(top // 32, top // 32 + one.shape[1])
            columns = slice(left // 32, left // 32 + one.shape[2])
            total[:, rows, columns] += one
            count[rows, columns] += 1
    return np.asarray(total / count)


def _starts(length: int) -> list[int]:
    """Return where tiles begin: the last is moved back, so that none sticks out."""
    step = int(_TILE * (1 - _OVERLAP))
    last = length - _TILE
    return sorted({min(start, last) for start in range(0, last + step, step)})


def _monai(net: Any, image: Path) -> Map:
    inferers = import_module("monai.inferers")
    scores = inferers.sliding_window_inference(
        _pixels(net, image), (_TILE, _TILE), _BATCH, net.score_map, overlap=_OVERLAP, mode="constant"
    )
    return np.asarray(scores[0])
