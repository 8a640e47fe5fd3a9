"""HDF5 files of other projects as plain groups and arrays, read by a process that can do no harm."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need

PACKING = 4
"""Weights hardly compress: a file that claims more than this many times its own size lies."""
_SECONDS = 20
_BYTES_A_SECOND = 5 << 20


class Group(dict[str, Any]):
    """A group's members by name - groups, arrays, lists of texts or of what references lead to - and its `attrs`."""

    def __init__(self, attrs: dict[str, Any]) -> None:
        super().__init__()
        self.attrs = attrs

    def at(self, path: str) -> Any:
        """Return what stands at a path such as `conv1/kernel:0`; KeyError where nothing does."""
        found: Any = self
        for name in filter(None, path.split("/")):
            found = found[name]
        return found


class Data(np.memmap[Any, Any]):
    """An array of the file, read when it is looked at, with its `attrs`."""

    attrs: dict[str, Any]


def read(path: Path, source: IO[bytes] | None = None) -> Group:
    """Return the file's groups and arrays; `source` is what to read in place of the file at `path`, open.

    UserError where it is damaged, claims more than it holds, has values in other files or takes too long, or where
    h5py is missing.
    """
    need("h5py", "keras")
    try:
        with tempfile.TemporaryFile() as arrays, source or path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            opened.seek(0)
            tree = _run(opened, arrays, size)
            root: Group = _grown(tree, arrays)
            return root
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = "it takes too long" if isinstance(error, subprocess.TimeoutExpired) else error
        raise UserError(f"{path}: not a readable HDF5 file ({reason})") from None


def _run(source: IO[bytes], arrays: IO[bytes], size: int) -> dict[str, Any]:
    """Return the tree that the child prints, the values in `arrays`; ValueError says in words why there is none."""
    if sys.platform != "win32":
        os.set_inheritable(arrays.fileno(), True)
    done = subprocess.run(
        [sys.executable, "-m", "verydeep.checkpoints.hdf5_child", str(size), str(arrays.fileno())],
        stdin=source,
        capture_output=True,
        pass_fds=(arrays.fileno(),),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=_SECONDS + size // _BYTES_A_SECOND,
        check=False,
    )
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 3 and said:
        raise ValueError(said[-1])
    raise ValueError("it takes more time or memory than a file of its size may")


def _grown(node: dict[str, Any], arrays: IO[bytes]) -> Any:
    if "items" in node:
        group = Group(node["attrs"])
        group.update({name: _grown(inner, arrays) for name, inner in node["items"].items()})
        return group
    if "references" in node:
        return [_grown(inner, arrays) for inner in node["references"]]
    if "text" in node:
        return node["text"]
    shape = tuple(node["shape"])
    if 0 in shape:
        data = np.zeros(shape, node["dtype"]).view(Data)
    else:
        data = Data(arrays, np.dtype(node["dtype"]), "r", node["at"], shape)
    data.attrs = node["attrs"]
    return data
