"""Files that appear whole or not at all, and folders that belong to one thing alone."""

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import tomli_w

from verydeep.basics.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


LOCK = ".lock"
"""File in a folder that a process is at work in: see `verydeep.basics.lock`."""


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to it on success and removed on failure.

    Missing parent folders are made; an existing file stays as it is until the new one is complete. UserError where
    nothing can be written there.

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


def read_text(path: Path) -> str:
    """Return a text file's content, without a byte-order mark; UserError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8 (byte {error.start})") from None


def claim(
    folder: Path,
    identity: Mapping[str, Any],
    file: str,
    kind: str,
    *,
    difference: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None = None,
    taken_over: str = "",
    look_only: bool = False,
) -> None:
    """Make a folder that of the one thing which `identity` describes, or find that it already is.

    The TOML `file` in it holds the identity; `kind` (`study`, `run`) names it in messages. `difference` says in words
    how the identity that is there and this one differ, nothing where the folder is this one's. A folder that has no
    such file is claimed if it is empty or holds `taken_over`. With `look_only` nothing is written. UserError where the
    folder is another one's, holds something else or is no folder, or its TOML is damaged.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> claim(folder, {"seed": 1}, "run.toml", "run")
    >>> claim(folder, {"seed": 1}, "run.toml", "run")
    """
    path = folder / file
    if path.is_file():
        try:
            there = tomllib.loads(read_text(path))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path}: not valid TOML: {error}") from None
        if what := (difference or first_difference)(there, identity):
            raise UserError(f"{folder}: holds another {kind} ({what}); choose another --out or remove it")
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is no folder; choose another --out")
    elif folder.is_dir() and not _free(folder, taken_over):
        raise UserError(f"{folder}: is there already and holds no {kind}; choose another --out")
    elif not look_only:
        write_text(path, tomli_w.dumps(identity))


def _free(folder: Path, taken_over: str) -> bool:
    names = {path.name for path in folder.iterdir()} - {LOCK}
    return not names or taken_over in names


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str:
    """Return in words the first key whose values differ, also deep inside; nothing where all are the same.

    Values too long for a line are not shown.

    Examples
    --------
    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    'a.b is 1 there, 2 here'
    """
    for key in [*here, *(key for key in there if key not in here)]:
        a, b = there.get(key), here.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if found := first_difference(a, b, f"{prefix}{key}."):
                return found
        elif a != b:
            return f"{prefix}{key} " + ("differs" if len(f"{a}{b}") > 100 else f"is {a} there, {b} here")
    return ""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading, but no device, no pipe and no socket: those might never come to an end.

    OSError where it is none, or cannot be read.
    """
    # Without the flag the opening of a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def cache_folder() -> Path:
    """Return the folder of what is kept between commands: $VERYDEEP_CACHE, or `verydeep` in the user's cache folder."""
    given = os.environ.get("VERYDEEP_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "verydeep"


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
