"""Every layer of the native engine by itself, against its own limit: arithmetic or memory."""

import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks import native_memory
from benchmarks.limits import matrix_peak, read_bandwidth
from verydeep.basics.machine import describe_machine
from verydeep.engines.compiled import plan
from verydeep.engines.library import best_processor
from verydeep.engines.stack import LANES, Kind, Stack, Step
from verydeep.nets.families import create

_TILE, _PRODUCTS = 4, 36  # side of a Winograd tile's outputs, and its products a pair of channels


def run(name: str = "D", side: int = 224, batch: int = 1, repeats: int = 15, width: float = 1.0) -> dict[str, Any]:
    """Time the layers of a network, each alone on random activations.

    Parameters
    ----------
    name : str
        Configuration.
    side : int
        Of the square image in pixels.
    batch : int
        Images.
    repeats : int
        Runs of each layer; the median counts.
    width : float
        Factor on the network's channels.

    Returns
    -------
    dict
        ``rows``: for each layer milliseconds, the ``limit`` in milliseconds and what sets it: the products that its
        algorithm needs at the measured rate of a matrix product, or its weights, input and output at the measured
        rate of memory; ``matrix_peak`` in GFLOP/s, ``read_bandwidth`` in GB/s; of the whole network what
        `native_memory.measure` found for one image; ``machine``.

    Raises
    ------
    UserError
        The native library was not built, or the image is too small for the network.
    """
    net = create(name, width=width, fc_width=max(1, round(4096 * width)), initialization="he", seed=0).eval()
    net.check_size(side, side)
    peak, bandwidth = matrix_peak(), read_bandwidth()
    shape, rows = (3, side, side), []
    for label, stack in _single_layers(net):
        after = stack.shape(*shape[1:], round_up=False)
        seconds = _seconds(stack, (batch, *shape), repeats)
        operations, moved = _work(stack.steps[0], shape, after, batch)
        limits = {"arithmetic": operations / peak / 1e9, "memory": moved / bandwidth / 1e9}
        bound = max(limits, key=lambda kind: limits[kind])
        rows.append(
            {
                "layer": label,
                "input": " x ".join(map(str, shape)),
                "milliseconds": 1e3 * seconds,
                "limit": 1e3 * limits[bound],
                "bound": bound,
                "share": limits[bound] / seconds,
            }
        )
        shape = after
    return {
        "net": name,
        "batch": batch,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "processor_code": best_processor(),
        "matrix_peak": peak,
        "read_bandwidth": bandwidth,
        **native_memory.measure(name, side, width),
        "rows": rows,
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return the times that `run` measured, for people."""
    lines = [
        f"{result['net']}, batch {result['batch']}, {result['threads']} threads, code for {result['processor_code']}; "
        f"median of {result['repeats']}",
        f"{'layer':9}{'input':17}{'ms':>8}{'limit':>8}{'share':>7}  bound by",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['layer']:9}{row['input']:17}{row['milliseconds']:8.2f}{row['limit']:8.2f}{row['share']:7.0%}  "
            f"{row['bound']}"
        )
    total, least = (sum(row[key] for row in result["rows"]) for key in ("milliseconds", "limit"))
    lines += [
        f"{'sum':26}{total:8.2f}{least:8.2f}{least / total:7.0%}",
        f"limits: {result['matrix_peak']:.0f} GFLOP/s in a matrix product, {result['read_bandwidth']:.1f} GB/s read",
        f"the whole network: packed in {result['making_seconds']:.2f} s (target {native_memory.TARGET_SECONDS:g} s), "
        f"its weights take {result['packed_weights'] / 1e6:.0f} MB as packed, one image "
        f"{result['other_memory'] / 1e6:.0f} MB beside them (target {native_memory.TARGET_MEMORY / 1e6:.0f} MB)",
    ]
    return "\n".join(lines)


def _single_layers(net: Any) -> list[tuple[str, Stack]]:
    """Return the native layers of a network by name, each packed by itself."""
    names = [name for name, layer in net.named_children() if isinstance(layer, torch.nn.Conv2d)]
    layers: list[tuple[str, Stack]] = []
    channels = 3
    for step in plan(net.plain_layers()):
        if not isinstance(step, Step):  # a layer for torch
            channels = getattr(step, "out_channels", channels)
            names = names[1:] if isinstance(step, torch.nn.Conv2d) else names
            continue
        weight = step.weight
        layers.append((names.pop(0) if weight is not None else "pool", Stack([replace(step, alone=False)], channels)))
        channels = len(weight) if weight is not None else channels
    return layers


def _seconds(stack: Stack, shape: tuple[int, ...], repeats: int) -> float:
    batch, channels, height, width = shape
    blocks = -(-channels // LANES)
    plain = stack.steps[0].kind == Kind.FIRST
    pixels = torch.randn((batch, height, width, channels) if plain else (batch, blocks, height, width, LANES))
    after = stack.shape(height, width, round_up=False)
    out = torch.empty(batch, -(-after[0] // LANES), *after[1:], LANES)
    times = []
    for _ in range(repeats + 1):  # the first warms up
        start = time.perf_counter()
        stack.run_laid_out(pixels, shape, False, out)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def _work(step: Step, before: tuple[int, ...], after: tuple[int, ...], batch: int) -> tuple[float, float]:
    """Return the floating point operations of a layer's products, and the bytes that it reads and writes at least."""
    weights = 0
    operations = 0.0
    if step.weight is not None:
        out, channels, kernel, _ = step.weight.shape
        if step.kind == Kind.WINOGRAD:
            tiles = -(-before[1] // _TILE) * -(-before[2] // _TILE)
            operations = 2.0 * batch * tiles * _PRODUCTS * channels * out
            weights = _PRODUCTS * channels * out
        else:
            operations = 2.0 * batch * after[1] * after[2] * kernel**2 * channels * out
            weights = kernel**2 * channels * out
    activations = sum(channels * height * width for channels, height, width in (before, after))
    return operations, native_memory.weight_bytes(step) * weights + 4.0 * batch * activations
