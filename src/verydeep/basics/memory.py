"""How much memory this process holds."""

import sys
from pathlib import Path


def resident(peak: bool = False) -> int:
    """Return the bytes of memory that this process holds now, or the most that it ever held."""
    try:
        # Not getrusage's figure, which on Linux begins with that of the process it was started from.
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(lines["VmHWM" if peak else "VmRSS"].split()[0])
    except (OSError, KeyError):  # not Linux: the most in both cases, which is a safe side to err on
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
