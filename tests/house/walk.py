"""The files of the package that a command passes through, in order: `python tests/house/walk.py WORDS OF VERYDEEP`.

Counted by a call trace: a file counts once a function of it is called in the command's process, in any thread. Code
that runs while a module is imported does not count, nor do the methods that `dataclass` and the like write.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import verydeep

ROOT = Path(verydeep.__file__).resolve().parent


def walk(function: Callable[[], Any]) -> list[str]:
    """Return the package's files whose functions are called while `function` runs, in order of the first call."""
    seen: dict[str, None] = {}
    start = str(ROOT) + "/"

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(start) and not _at_import(frame):
            seen.setdefault(name[len(start) :])

    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return [name for name in seen if not name.endswith("__init__.py")]


def _at_import(frame: FrameType) -> bool:
    """Say whether a module's or a class's own code is running: what is called from there is called at import."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(str(ROOT)):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def of_words(words: list[str]) -> Callable[[], Any]:
    """Return a function that runs the command with these words, its exit swallowed."""

    def run() -> None:
        from verydeep.cli.main import run as main

        before, sys.argv = sys.argv, ["verydeep", *words]
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"verydeep {' '.join(words)}: exit status {stop.code}") from stop
        finally:
            sys.argv = before

    return run


def numbered(files: list[str]) -> Iterator[str]:
    """Yield lines to print."""
    yield from (f"{number:3d}  {name}" for number, name in enumerate(files, start=1))


if __name__ == "__main__":
    print("\n".join(numbered(walk(of_words(sys.argv[1:])))))
