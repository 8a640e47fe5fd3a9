"""Masks as Label Studio's brush keeps them: runs of equal bytes of an RGBA picture, packed as bits."""

from collections.abc import Sequence

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


def brush_mask(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask, H x W, that such bytes keep: where the last of the four channels is not 0.

    ValueError where they are not of a picture of that size.
    """
    bits = np.unpackbits(np.asarray(runs, np.uint8))
    place = 0

    def take(count: int) -> int:
        nonlocal place
        if place + count > bits.size:
            raise ValueError("it ends too early")
        value = int("".join(map(str, bits[place : place + count].tolist())), 2)
        place += count
        return value

    size, word, lengths = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    if size != 4 * height * width or word > _WORD:
        raise ValueError(f"it is of {size} values of {word} bits, expected {4 * height * width} of at most {_WORD}")
    values, done = np.zeros(size, np.uint8), 0
    while done < size:
        equal = take(1)
        end = done + 1 + take(lengths[take(2)])
        if end > size:
            raise ValueError("a run goes beyond its end")
        values[done:end] = take(word) if equal else [take(word) for _ in range(end - done)]
        done = end
    return np.asarray(values.reshape(height, width, 4)[:, :, 3] > 0)
