"""A network's forward pass by the native engine and by the runtimes that people would take instead."""

import gc
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.limits import matrix_peak
from verydeep.basics.errors import UserError, WorkError
from verydeep.basics.machine import describe_machine
from verydeep.basics.progress import track
from verydeep.engines import library
from verydeep.engines.compiled import NativeLayers
from verydeep.nets.families import create
from verydeep.nets.geometry import macs
from verydeep.nets.network import Network

Run = Callable[[Tensor], Tensor]

_PAUSE = 0.05
"""Seconds before each run: other runtimes' threads wait busily for a while after theirs."""

_LOW = {"openvino bf16": 0.1, "openvino int8": 0.5, "native fixed16": 1e-2}
"""Runtimes of less precision, and the relative difference from torch above which one does not compute this network."""
_MOST_ERROR = 1e-3
"""That difference in float32."""


def run(
    name: str = "D",
    sizes: Sequence[tuple[int, int]] = ((224, 224),),
    batches: Sequence[int] = (1, 8),
    repeats: int = 9,
    width: float = 1.0,
) -> dict[str, Any]:
    """Time every runtime that is installed on the same random images, one after the other in turn.

    Parameters
    ----------
    name : str
        Configuration; its weights are random, scaled as He et al. do, so that all layers matter.
    sizes : sequence of (int, int)
        Heights and widths of the images in pixels.
    batches : sequence of int
        Images in a batch.
    repeats : int
        Timed runs of each; medians are reported.
    width : float
        Factor on the network's channels; 1 is the paper's.

    Returns
    -------
    dict
        ``rows``: for each size, batch and runtime milliseconds an image, ``ratio`` (of the fastest float32 peer's
        time to this one's), effective GFLOP/s (those of direct convolution over the time) and relative difference of
        the scores from torch's; ``missing`` runtimes with the reason; ``matrix_peak`` in GFLOP/s; ``machine``.

    Raises
    ------
    UserError
        For sizes or counts that make no sense.
    WorkError
        Where a runtime's scores differ from torch's by more than its precision explains.
    """
    if repeats < 1 or not sizes or not batches or min(batches) < 1:
        raise UserError(f"repeats {repeats}, batches {list(batches)}: at least one of each is needed")
    net = create(name, width=width, fc_width=max(1, round(4096 * width)), initialization="he", seed=0).eval()
    for height, wide in sizes:
        net.check_size(height, wide)
    ways, missing = _ways(net)
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for size in sizes:
            for batch in batches:
                rows += _rows(net, ways, size, batch, repeats)
        peak = matrix_peak()
    return {
        "net": name,
        "width": width,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "processor_code": library.best_processor() if library.find() else "not built",
        "matrix_peak": peak,
        "rows": rows,
        "missing": missing,
        "machine": describe_machine() | _versions(),
    }


def text(result: dict[str, Any]) -> str:
    """Return the times that `run` measured, for people."""
    lines = [
        f"{result['net']}, width {result['width']}, {result['threads']} threads, code for {result['processor_code']}; "
        f"median of {result['repeats']}; a matrix product runs at {result['matrix_peak']:.0f} GFLOP/s",
        f"{'size':>9}{'batch':>7}  {'runtime':15}{'ms/image':>10}{'ratio':>8}{'GFLOP/s':>9}{'difference':>12}",
    ]
    for row in result["rows"]:
        size = f"{row['height']}x{row['width_pixels']}"
        lines.append(
            f"{size:>9}{row['batch']:7}  {row['runtime']:15}{row['milliseconds']:10.1f}{row['ratio']:8.2f}"
            f"{row['gflops']:9.0f}{row['difference']:12.1e}"
        )
    lines += [
        "ratio: time of the fastest other float32 runtime here over this one's; difference: of the scores from torch's",
        *(f"not measured: {name}: {reason}" for name, reason in result["missing"].items()),
    ]
    return "\n".join(lines)


def _ways(net: Network, without: Sequence[str] = ()) -> tuple[dict[str, Run], dict[str, str]]:
    """Return what runs here, by name, and what does not with the reason."""
    makers: dict[str, Callable[[], Run]] = {
        "torch": lambda: _channels_last(net.score_map),
        "torch.compile": lambda: _channels_last(torch.compile(net.score_map, dynamic=False)),
        "onnxruntime": lambda: peers.onnxruntime(net),
        "openvino": lambda: peers.openvino(net),
        "openvino bf16": lambda: peers.openvino(net, "bf16"),
        "openvino int8": lambda: peers.openvino(net, "int8"),
        "opencv": lambda: peers.opencv(net),
        "ncnn": lambda: peers.ncnn(net),
        "mnn": lambda: peers.mnn(net),
        "native": lambda: NativeLayers(net),
        "native fast": lambda: NativeLayers(net, accuracy="fast"),
        "native fixed16": lambda: NativeLayers(net, accuracy="fixed16"),
    }
    ways: dict[str, Run] = {}
    missing: dict[str, str] = {}
    for name in [name for name in makers if name not in without]:
        try:
            ways[name] = makers[name]()
        except UserError as error:
            missing[name] = str(error)
    return ways, missing


def _channels_last(way: Callable[[Tensor], Tensor]) -> Run:
    return lambda x: way(x.contiguous(memory_format=torch.channels_last))


def _rows(net: Network, ways: dict[str, Run], size: tuple[int, int], batch: int, repeats: int) -> list[dict[str, Any]]:
    x = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)) * 60
    errors = _agreement(ways, x)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in track(range(repeats), repeats, f"{size[0]}x{size[1]}, batch {batch}", "rounds"):
        for name, way in ways.items():
            time.sleep(_PAUSE)
            start = time.perf_counter()
            way(x)
            times[name].append(time.perf_counter() - start)
    each = {name: median(values) / batch for name, values in times.items()}
    peer = min(seconds for name, seconds in each.items() if not name.startswith("native") and name not in _LOW)
    operations = 2 * macs(net, *size)
    return [
        {
            "height": size[0],
            "width_pixels": size[1],
            "batch": batch,
            "runtime": name,
            "milliseconds": 1e3 * seconds,
            "ratio": peer / seconds,
            "gflops": operations / seconds / 1e9,
            "difference": errors[name],
        }
        for name, seconds in each.items()
    ]


def _agreement(ways: dict[str, Run], x: Tensor) -> dict[str, float]:
    """Run each once, which warms it up; return the relative difference of its scores from torch's, as a norm."""
    expected = ways["torch"](x)
    errors = {}
    for name, way in ways.items():
        error = float((way(x) - expected).norm() / expected.norm())
        if not error <= _LOW.get(name, _MOST_ERROR):
            raise WorkError(f"{name} differs from torch by {error:.1e} of the scores: it does not run this network")
        errors[name] = error
        gc.collect()
    return errors


def _versions() -> dict[str, str]:
    found = {}
    for package in ("onnxruntime", "openvino", "nncf", "opencv-python-headless", "ncnn", "pnnx", "MNN"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
