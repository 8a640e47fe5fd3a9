"""The native library, which is there where a C++ compiler was when the package was installed."""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from verydeep.basics.errors import UserError

Processor = Literal["portable", "avx2", "avx512"]
PROCESSORS: tuple[Processor, ...] = get_args(Processor)  # in the library's own numbering
MISSING = (
    "the native engine was not built: install a C++ compiler (Debian, Ubuntu: apt-get install g++) and install "
    "verydeep again, or use the engine torch"
)


@lru_cache(maxsize=1)
def find() -> ctypes.CDLL | None:
    """Return the native library with its functions declared, or None where it was not built."""
    files = sorted(Path(__file__).parent.glob("_native*.so"))
    if not files:
        return None
    library = ctypes.CDLL(str(files[0]))
    pointer, number, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    library.vd_new.argtypes, library.vd_new.restype = [number], pointer
    library.vd_delete.argtypes, library.vd_delete.restype = [pointer], None
    library.vd_add.argtypes = [pointer, number, long, long, long, pointer, pointer, number, number, number, number]
    library.vd_run.argtypes, library.vd_run.restype = [pointer, pointer, pointer, number, pointer, number], number
    library.vd_train.argtypes, library.vd_train.restype = [number, pointer, number, number], number
    library.vd_normalize.argtypes, library.vd_normalize.restype = [number, pointer, number, number], number
    return library


def load() -> ctypes.CDLL:
    """Return the native library.

    Raises
    ------
    UserError
        It was not built.
    """
    library = find()
    if library is None:
        raise UserError(MISSING)
    return library


def best_processor() -> Processor:
    """Return the kind of code that this machine runs fastest."""
    number: int = load().vd_best_processor()
    return PROCESSORS[number]
