"""How much memory this process holds, in pages of which size, and a bound that threads share."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition


def resident(peak: bool = False) -> int:
    """Return the bytes of memory that this process holds now, or the most that it ever held."""
    try:
        # Not getrusage's figure, which on Linux begins with that of the process it was started from.
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(lines["VmHWM" if peak else "VmRSS"].split()[0])
    except (OSError, KeyError):  # not Linux: the most in both cases, which is a safe side to err on
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ask_for_huge_pages() -> None:
    """Have torch ask Linux for pages of 2 MiB for tensors of that size or more; it looks when it is first needed.

    A training step makes and frees gigabytes, which in pages of 4 KiB the kernel clears one fault at a time. Who has
    set torch's variable is not overruled.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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
