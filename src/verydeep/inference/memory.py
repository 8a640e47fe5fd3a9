"""How much memory a forward pass takes, from the layers' shapes."""

import ctypes
import re
import sys
from math import prod

from verydeep.basics.errors import UserError
from verydeep.images.decode import BYTES_A_PIXEL
from verydeep.images.rescale import rescaled_size
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import view_size
from verydeep.nets.geometry import summarize
from verydeep.nets.network import Network

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_FLOAT = 4  # bytes of a float32
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of glibc's malloc.h


def parse_memory(text: str) -> int:
    """Return the bytes that a text such as ``2GiB``, ``512MiB`` or ``800M`` names (units of 1024).

    UserError where `text` is no such size.

    Examples
    --------
    >>> parse_memory("2GiB"), parse_memory("1.5k")
    (2147483648, 1536)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise UserError(f"memory {text!r} is no size; for example 2GiB or 512MiB")
    return max(1, int(float(match[1]) * _UNITS[match[2].upper()]))


def bytes_per_view(net: Network, height: int, width: int) -> int:
    """Return the bytes that one picture of this size takes while the network scores it.

    Without gradients only a layer's input and output are alive at a time, so the greatest such pair counts (nearly
    always conv1_2's), with the pixels beside it. Weights are not counted: they do not grow with the batch.
    """
    pixels = before = 3 * height * width
    most = 0
    for layer in summarize(net, height, width):
        after = prod(layer.output)
        alive = before + after
        if layer.name.startswith("fc"):
            alive += layer.macs // layer.output[0]  # its windows, laid out for one matrix product
        elif layer.kind == "concat":
            alive = 3 * after  # at most: what comes in, the branches, and these together
        elif layer.kind == "lrn":
            alive += 3 * before  # squares, their sums and powers
        elif net.batch_norm:
            alive = max(alive, 2 * after)
        most, before = max(most, alive), after
    return _FLOAT * most + (_FLOAT + 2) * pixels  # as float, as bytes, and as bytes of the batch to come


def bytes_to_prepare(size: tuple[int, int], scale: int) -> int:
    """Return the bytes that decoding a picture of this height and width, and rescaling it, takes at most."""
    height, width = size
    rows, columns = rescaled_size(height, width, scale)
    rescaling = 3 * height * width + 4 * columns * (height + rows) + 7 * rows * columns  # across, then down
    return max(BYTES_A_PIXEL * height * width, rescaling)


def tape_bytes(net: Network, height: int, width: int) -> int:
    """Return the most bytes that one picture of this size takes with gradients to it.

    Of every layer in float32: its map, its copy behind the ReLU or the pool, and the gradients of both.
    """
    return 4 * _FLOAT * sum(prod(layer.output) for layer in summarize(net, height, width))


def too_large(size: tuple[int, int], part: Protocol, net: Network, memory: int) -> str:
    """Say why a picture cannot be worked on within `memory` bytes: decoded, rescaled, or in the network; else nothing.

    `size` is its height and width in pixels, `part` a protocol of one kind at one scale.
    """
    (height, width), scale = size, part.scales[0]
    needs = bytes_to_prepare(size, scale)
    if needs <= memory:
        needs = bytes_per_view(net, *view_size(part, net.image_size, height, width))
    what = f"{width} x {height} pixels at scale {scale}"
    return beyond(memory, needs, what, "give more, take a smaller scale, or verydeep scoremap")


def beyond(memory: int, needs: int, what: str, remedy: str) -> str:
    """Say that something takes more than --memory allows, and what to do; nothing where it does not."""
    if needs <= memory:
        return ""
    return f"{what} take {needs / 2**30:.2g} GiB, and --memory allows {memory / 2**30:.2g} GiB; {remedy}"


def release_memory() -> None:
    """Give what has been freed back to the system, where the C library keeps it (glibc).

    Batches of ever other sizes leave holes in its heap: 3 MiB for each size of picture, without end.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def give_back_early() -> None:
    """Let the C library (glibc) keep little of what many threads free: two heaps, and none of what is large."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_ARENA_MAX, 2)
        mallopt(_MMAP_THRESHOLD, 1 << 20)
