"""The project's Parquet files: a table, and as JSON in its metadata what it says of itself."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from verydeep.basics.errors import UserError
from verydeep.basics.files import open_regular, write_aside

_KEY = b"verydeep"
T = TypeVar("T")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, MemoryError, pa.ArrowException)


def write(path: Path, columns: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a table, whole or not at all."""
    table = pa.table(dict(columns)).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    with write_aside(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def read(path: Path, make: Callable[[dict[str, Any], Any], T], what: str) -> T:
    """Return what `make` makes of a file's description and its table; UserError where it is no such file, `what`."""
    with _opened(path, what) as file:
        # In this thread: one of Arrow's own that still holds the file when Python ends aborts the process.
        return make(_about(file), file.read(use_threads=False))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a file says of itself; `boxes` is true in files of boxes."""
    with _opened(path, "a file as verydeep evaluate writes them") as file:
        return _about(file)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[pq.ParquetFile]:
    try:
        # ParquetFile and not read_table: a name such as "a=b" in the path would become a column there.
        with open_regular(path) as opened, pq.ParquetFile(opened) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; verydeep evaluate writes them") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not {what} ({reason})") from None


def _about(file: pq.ParquetFile) -> dict[str, Any]:
    about = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
    if not isinstance(about, dict) or not isinstance(about.get("classes"), list):
        raise ValueError("a Parquet file without a list of classes")
    return about
