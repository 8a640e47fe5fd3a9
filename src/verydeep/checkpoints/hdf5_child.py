"""What reads an HDF5 file, in a process of its own: `python -m verydeep.checkpoints.hdf5_child SIZE OUT < FILE`.

The HDF5 library hangs, crashes or takes gigabytes over damaged files, and opens other files that a file names. Here
it runs with the file already open, unable to open another, within limits of memory and time in proportion to the
file's size. Arrays are appended to the open descriptor OUT as they lie in memory; standard output gets the tree of
groups as JSON, which says where each one begins.
"""

import io
import json
import os
import sys
from typing import Any

import h5py
import numpy as np

from verydeep.checkpoints.hdf5 import PACKING

BASE_MEMORY = 256 << 20
BASE_SECONDS = 10
BYTES_A_SECOND = 10 << 20
MOST_NODES = 100_000
MOST_DEPTH = 50
MOST_TEXT = 1 << 24
"""Bytes of a text, such as a model's definition; that of Keras's own VGG has 30 thousand."""


class RefusedError(Exception):
    """What makes the file unreadable, in words."""


class Tree:
    """Turns an open file into JSON-able nodes; every one is counted, so that links in circles come to an end."""

    def __init__(self, file: h5py.File, out: io.FileIO, size: int) -> None:
        self.file, self.out, self.left = file, out, PACKING * size + MOST_TEXT
        self.nodes = 0

    def of(self, value: Any, depth: int = 0) -> dict[str, Any]:
        """Return a group as `{items, attrs}`, an array as `{dtype, shape, at, attrs}`, texts and references alike."""
        self.nodes += 1
        if depth > MOST_DEPTH or self.nodes > MOST_NODES:
            raise RefusedError("groups without end")
        attrs = {name: self._attribute(value.attrs, name) for name in value.attrs}
        if not isinstance(value, h5py.Group):
            return {"attrs": attrs, **self._dataset(value, depth)}
        items = {}
        for name in value:
            if isinstance(value.get(name, getlink=True), h5py.ExternalLink):
                raise RefusedError(f"{name}: its values lie in another file, which is not read")
            items[name] = self.of(value[name], depth + 1)
        return {"attrs": attrs, "items": items}

    def _attribute(self, attrs: Any, name: str) -> Any:
        about = attrs.get_id(name)
        self._spend(int(np.prod(about.shape or (1,))) * about.dtype.itemsize, name)
        value = attrs[name]
        if isinstance(value, h5py.Empty):
            return None
        return [_plain(one) for one in value.ravel()] if isinstance(value, np.ndarray) else _plain(value)

    def _dataset(self, data: Any, depth: int) -> dict[str, Any]:
        if data.external or data.is_virtual:
            raise RefusedError(f"{data.name}: its values lie in another file, which is not read")
        self._spend(data.nbytes, data.name)
        if h5py.check_ref_dtype(data.dtype):
            return {"references": [self.of(self.file[one], depth + 1) for one in data[...].ravel()]}
        if data.dtype.kind in "SO":
            return {"text": [_plain(one) for one in np.ravel(data[()])]}
        if data.dtype.kind not in "fiub":
            raise RefusedError(f"{data.name}: expected numbers, found values of type {data.dtype}")
        at = self.out.tell()
        if data.shape is not None and data.size:
            self.out.write(np.ascontiguousarray(data[...]).data.cast("B"))
        return {"dtype": data.dtype.str, "shape": list(data.shape or (0,)), "at": at}

    def _spend(self, count: int, name: str) -> None:
        self.left -= count
        if self.left < 0:
            raise RefusedError(f"{name}: claims more values than the file holds")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else str(value)


def limit(size: int) -> None:
    """Bound this process's memory and time, and let it open no other file."""
    if sys.platform == "win32":
        return
    import resource

    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
        most = now + BASE_MEMORY + PACKING * size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    seconds = BASE_SECONDS + size // BYTES_A_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def main() -> None:
    """Read the file that standard input is; an error is one line on standard error, and exit status 3."""
    size, out = int(sys.argv[1]), io.FileIO(int(sys.argv[2]), "w", closefd=False)
    source = os.fdopen(0, "rb")
    try:
        limit(size)
        with h5py.File(source, "r") as file:
            print(json.dumps(Tree(file, out, size).of(file)))
    except Exception as error:  # of any type: the library's own are many
        print(" ".join(str(error).split())[:200] or type(error).__name__, file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
