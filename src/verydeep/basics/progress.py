"""A progress bar for whatever lasts, on stderr, silent when that is no terminal."""

import sys
import time
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def track(
    iterable: Iterable[T],
    total: int | None,
    description: str,
    unit: str = "images",
    size: int = 1,
    patience: float = 2.0,
    quiet: bool = False,
) -> Generator[T, None, None]:
    """Pass `iterable` through, drawing progress, rate and time left.

    `total` counts units, None where unknown; each item stands for `size` of them (a batch of 64 images counts 64). The
    bar appears after `patience` seconds: short work draws nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} " + unit),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total, rate=0.0)
    done, shown = 0, False
    try:
        for item in iterable:
            yield item
            done += size
            elapsed = time.monotonic() - start
            if not shown and elapsed > patience:
                bar.start()
                shown = True
            count = done if total is None else min(done, total)
            bar.update(task, completed=count, rate=done / max(elapsed, 1e-9))
    finally:
        if shown:
            bar.stop()
