"""What this machine can do at most: the limits that speeds are held against."""

import time
from collections.abc import Callable

import torch

_SIDE = 2048
_FLOATS = 128 * 2**20


def matrix_peak(repeats: int = 5) -> float:
    """Return the GFLOP/s of torch's float32 matrix product, 2048 x 2048 x 2048: the fastest of some runs."""
    a, b = torch.randn(_SIDE, _SIDE), torch.randn(_SIDE, _SIDE)
    return 2 * _SIDE**3 / _fastest(lambda: a @ b, repeats) / 1e9


def read_bandwidth(repeats: int = 5) -> float:
    """Return the GB/s at which memory is read: a sum over 512 MiB, the fastest of some runs."""
    values = torch.ones(_FLOATS)
    return 4 * _FLOATS / _fastest(lambda: values.sum(), repeats) / 1e9


def _fastest(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # the first warms up
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
