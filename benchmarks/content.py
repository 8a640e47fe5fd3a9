"""What it costs to know a data set by its contents: the first time every file is read, later only looked at."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from verydeep.basics.machine import describe_machine
from verydeep.datasets.content import content_digest
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.storage import open_storage


def run(files: int = 100_000, size: int = 1000) -> dict[str, Any]:
    """Write so many files of so many random bytes, then take the digest of all of them twice, as two commands would."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        for number in range(files):
            path = root / f"{number // 1000:05d}" / f"{number % 1000:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        seconds = []
        for _ in range(2):
            storage = open_storage(root)
            dataset = Dataset("files", "train", ("any",), [Sample(name, 0) for name in storage.files], storage)
            begun = time.perf_counter()
            content_digest(dataset)
            seconds.append(time.perf_counter() - begun)
    row = {"files": files, "bytes_each": size, "first_seconds": seconds[0], "again_seconds": seconds[1]}
    return {"rows": [row], "machine": describe_machine()}


def text(result: dict[str, Any]) -> str:
    """Return the result in words."""
    row = result["rows"][0]
    first, again = (1e6 * row[key] / row["files"] for key in ("first_seconds", "again_seconds"))
    million = 1.28 * again
    return (
        f"{row['files']:,} files of {row['bytes_each']:,} bytes: {first:.0f} microseconds a file the first time, "
        f"{again:.0f} again; so looking at 1.28 million known files takes {million:.0f} s, and reading them the first "
        f"time {1.28 * first:.0f} s beside what the disk needs for their bytes"
    )
