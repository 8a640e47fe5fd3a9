"""How much memory this process holds, whether it gives any back, and a bound that threads share."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition

_TRIM_ABOVE, _MOST_MAPPED = -1, -4
"""Of glibc's malloc.h: bytes free at the heap's end that go back to the system, and how many pieces lie outside it."""


def resident(peak: bool = False) -> int:
    """Return the bytes of memory that this process holds now, or the most that it ever held."""
    try:
        # Not getrusage's figure, which on Linux begins with that of the process it was started from.
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(lines["VmHWM" if peak else "VmRSS"].split()[0])
    except (OSError, KeyError):  # not Linux: the most in both cases, which is a safe side to err on
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def keep_memory() -> None:
    """Keep what tensors free for the next ones, in pages of 2 MiB; to be called before torch makes its first tensor.

    A training step makes and frees gigabytes. Given back to the system and asked for anew, each page is cleared and
    mapped again: a fifth of a step's time. For glibc and Linux; elsewhere it does nothing. Who has set torch's or
    glibc's variable is not overruled.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_MOST_MAPPED, 0)
        mallopt(_TRIM_ABOVE, 2**31 - 1)


class Budget:
    """Bytes that several threads share: whoever would exceed them waits, unless nobody else holds any."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold `size` bytes inside the `with` block; one that alone exceeds the limit waits for all the others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()
