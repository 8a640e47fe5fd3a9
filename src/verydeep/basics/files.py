"""Files that appear whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from verydeep.basics.errors import UserError


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to it on success and removed on failure.

    Parameters
    ----------
    path : Path
        Where the finished file is to stand; missing parent folders are made. An existing file stays as it is
        until the new one is complete.

    Yields
    ------
    Path
        Path of the file to write, in the same folder, so that the rename is atomic.

    Raises
    ------
    UserError
        The file cannot be written there.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with write_aside(folder / "a.txt") as aside:
    ...     _ = aside.write_text("whole")
    >>> (folder / "a.txt").read_text(), len(list(folder.iterdir()))
    ('whole', 1)
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(path, error) from error
    # The process id keeps two writers apart; the suffix stays last for libraries that look at it.
    aside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        if error.filename is None or Path(error.filename) != aside:
            raise  # of something else that was read or written meanwhile
        raise _cannot(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _cannot(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def usual_permissions(path: Path) -> None:
    """Give a file the permissions of any new one: safetensors makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
