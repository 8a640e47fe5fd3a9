"""Masks as Label Studio's brush keeps them: runs of equal bytes of an RGBA picture, packed as bits."""

import numpy as np
from numpy.typing import NDArray

_LENGTH, _WORD = 16, 8
"""Bits of a run's length and of its value."""


def brush_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the bytes of a mask, H x W; its pixels are 255 in each of four channels, all others 0.

    A head of the number of values (32 bits), the bits of a value less one (5) and of each of four lengths of runs less
    one (4 each); then for each run a 1, which of the four lengths (2 bits), its length less one, its value.
    """
    values = np.repeat(mask.ravel(), 4).astype(np.uint8) * 255
    starts = np.flatnonzero(np.diff(values, prepend=values[0] ^ 1))
    ends = np.append(starts[1:], values.size)
    pieces = [
        (min(end, first + (1 << _LENGTH)) - first, values[start])
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        for first in range(start, end, 1 << _LENGTH)
    ]
    head = f"{values.size:032b}{_WORD - 1:05b}" + f"{_LENGTH - 1:04b}" * 4
    runs = (f"111{length - 1:0{_LENGTH}b}{value:0{_WORD}b}" for length, value in pieces)
    bits = head + "".join(runs)
    packed = np.packbits(np.frombuffer(bits.encode(), np.uint8) - ord("0"))
    return [int(byte) for byte in packed]
