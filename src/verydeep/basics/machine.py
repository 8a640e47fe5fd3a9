"""What machine this is, for cards, benchmarks and bug reports."""

import os
import platform
from importlib import metadata
from pathlib import Path

from verydeep.basics.version import VERSION

PACKAGES = ("torch", "numpy", "pillow", "opencv-python-headless", "simplejpeg")
"""Packages whose versions decide results or speed."""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def describe_machine() -> dict[str, str]:
    """Return processor, cores, memory, accelerator and the versions that decide results and speed.

    Examples
    --------
    >>> sorted(describe_machine())[:3]
    ['accelerator', 'cores', 'memory']
    """
    import torch

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    if accelerator == "none" and torch.backends.mps.is_available():
        accelerator = "Apple MPS"
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "memory": _memory(),
        "accelerator": accelerator,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "verydeep": VERSION,
        **{package: _installed(package) for package in PACKAGES},
    }
