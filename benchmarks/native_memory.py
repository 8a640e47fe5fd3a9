"""What the native engine takes beside the network: seconds to be made, and memory."""

import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.own_process import OwnProcess
from verydeep.basics.memory import resident
from verydeep.engines.compiled import compile_cpu, plan
from verydeep.engines.stack import Kind, Step
from verydeep.nets.families import create

TARGET_SECONDS = 3.0
"""Seconds that making the engine may take."""
TARGET_MEMORY = 300 * 10**6
"""Bytes that it may take for one image beside its packed weights."""
_GROWTH = 4  # numbers that a 3x3 kernel becomes, 36, in place of 9


def measure(name: str = "D", side: int = 224, width: float = 1.0) -> dict[str, Any]:
    """Make the engine in a new process and run one image.

    Parameters
    ----------
    name : str
        Configuration.
    side : int
        Of the square image in pixels.
    width : float
        Factor on the network's channels.

    Returns
    -------
    dict
        ``making_seconds``; ``packed_weights`` in bytes, from their shapes; ``other_memory``, the most bytes that the
        process ever held, from its beginning to its end, less those it held when the network was made, and less the
        packed weights.
    """
    found: dict[str, Any] = OwnProcess("native", _serve, name, side, width).receive()
    return found


def _serve(line: Connection, name: str, side: int, width: float) -> None:
    net = create(name, width=width, fc_width=max(1, round(4096 * width)), seed=0).eval()
    before = resident()
    start = time.perf_counter()
    fast = compile_cpu(net)
    seconds = time.perf_counter() - start
    with torch.inference_mode():
        for _ in range(3):
            fast.score_map(torch.randn(1, 3, side, side))
    packed = sum(_packed_bytes(step) for step in plan(net.plain_layers()) if isinstance(step, Step))
    other = resident(peak=True) - before - packed
    line.send({"making_seconds": seconds, "packed_weights": packed, "other_memory": other})


def _packed_bytes(step: Step) -> int:
    numbers = 0 if step.weight is None else step.weight.numel()
    return weight_bytes(step) * numbers * (_GROWTH if step.kind == Kind.WINOGRAD else 1)


def weight_bytes(step: Step) -> int:
    """Return the bytes of a packed weight: of windows 24 bits, or half precision; else floats, or 16-bit integers."""
    return (2 if step.low else 3) if step.kind == Kind.WINDOW else (2 if step.low else 4)
