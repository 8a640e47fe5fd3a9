"""Folders for temporary files, which a later process clears away where their own was killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.basics.files import LOCK
from verydeep.basics.lock import sole_writer


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a folder that begins so, in the system's place for temporary files, and remove it behind the block.

    First those are removed that this user's processes left behind, killed or lost with the machine: whose lock, of a
    disk that knows locks, nobody holds.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError, UserError):
            if _is_ours(left) and (left / LOCK).exists():
                with sole_writer(left):
                    shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        with sole_writer(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return hasattr(os, "getuid") and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
