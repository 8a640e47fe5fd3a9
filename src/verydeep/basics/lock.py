"""One writer a folder, over processes; a killed process leaves the folder free."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.basics.files import LOCK

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, flock


@contextmanager
def sole_writer(folder: Path | None) -> Iterator[None]:
    """Hold a folder, if there is one, for this process within the block, and make it where it is missing.

    UserError, naming the holder, where another one has it, or where the folder cannot be written. What is left is the
    folder with what the block wrote, or no folder where that was nothing. The system frees the lock of a process that
    is killed; where a network disk knows no locks, and on Windows, there is none.
    """
    if folder is None:
        yield
        return
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        file = None if sys.platform == "win32" else _locked(path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another place") from None
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)  # while the lock is held: who opened it before finds out below
            os.close(file)
        if made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _locked(path: Path) -> int | None:
    """Return the descriptor of the locked file; None on a disk without locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode("utf-8", "replace")
            os.close(file)
            raise UserError(
                f"{path.parent}: {ascii(holder)[1:-1] or 'another process'} is at work in it; wait for its end, or "
                "choose another place"
            ) from None
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            return None
        # The one that held it may have removed the file between the two calls above: the lock is then of no file.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {platform.node()}, since {datetime.now():%F %H:%M},".encode())
                return file
        os.close(file)
