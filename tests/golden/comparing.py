"""Golden values as files, and how far others are from them."""

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Elsewhere by the variable: values of the code before a change, made on this machine, show every bit that it moved.
VALUES = Path(os.environ.get("VERYDEEP_GOLDEN", Path(__file__).parent / "values"))
PROCESSOR = VALUES / "processor.txt"
OTHER_PROCESSOR = 1e-3
"""The tolerance where the values were made with other vector instructions: sums are taken in another order there, and
three epochs of training multiply the difference (AVX-512 against AVX2: 6e-5, of a calibration error 2e-4)."""


def write(name: str, values: dict[str, Any]) -> None:
    """Keep a case's values: arrays in an .npz, all else in a .json with a line a name."""
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values.items() if key not in arrays]
    VALUES.mkdir(exist_ok=True)
    PROCESSOR.write_text(f"{processor()}\n", encoding="utf-8")
    (VALUES / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    (VALUES / f"{name}.npz").unlink(missing_ok=True)
    if arrays:
        np.savez_compressed(VALUES / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def processor() -> str:
    """Return the kind of vector instructions that torch computes with, and those that oneDNN may choose among."""
    kind, file = torch.backends.cpu.get_cpu_capability(), Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    chosen = [flag for flag in flags[1].split() if flag.startswith(("avx", "amx"))] if flags else []
    return " ".join([kind, *sorted(chosen)])


def tolerance(own: float) -> float:
    """Return a case's tolerance on this machine, given its own."""
    made_here = PROCESSOR.read_text(encoding="utf-8").strip() == processor()
    return own if made_here else max(own, OTHER_PROCESSOR)


def read(name: str) -> dict[str, Any]:
    """Return what `write` kept."""
    values: dict[str, Any] = json.loads((VALUES / f"{name}.json").read_text(encoding="utf-8"))
    if (VALUES / f"{name}.npz").is_file():
        with np.load(VALUES / f"{name}.npz") as arrays:
            values |= {key: arrays[key] for key in arrays.files}
    return values


@dataclass(frozen=True)
class Difference:
    """What is not the same.

    Attributes
    ----------
    place : str
        Which value.
    size : float
        Of the difference of floats, as a share of the greatest one or of 1; infinite where something is simply
        something else.
    words : str
        For people.
    """

    place: str
    size: float
    words: str


def differences(expected: Any, found: Any, place: str = "") -> Iterator[Difference]:
    """Yield all that differs, down to the last bit.

    Parameters
    ----------
    expected : object
        From `read`: dictionaries, lists, arrays, JSON's values.
    found : object
        From a case, not written yet.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        if list(expected) != list(found) and sorted(expected) != sorted(found):
            gone, fresh = [key for key in expected if key not in found], [key for key in found if key not in expected]
            yield Difference(place, math.inf, f"without {gone}, with {fresh} in addition")
        for key in expected:
            if key in found:
                yield from differences(expected[key], found[key], f"{place} / {key}" if place else str(key))
    elif isinstance(expected, list) and isinstance(found, list | tuple) and len(expected) == len(found):
        for i, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, f"{place}[{i}]")
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        yield from _of_arrays(expected, found, place)
    elif isinstance(expected, float) and isinstance(found, float):
        size = abs(expected - found) / max(1.0, abs(expected))
        if size and not (math.isnan(expected) and math.isnan(found)):
            yield Difference(place, math.inf if math.isnan(size) else size, f"{expected!r} was, {found!r} is")
    elif type(expected) is not type(found) or expected != found:
        yield Difference(place, math.inf, f"{_short(expected)} was, {_short(found)} is")


def _of_arrays(expected: NDArray[Any], found: NDArray[Any], place: str) -> Iterator[Difference]:
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        words = f"{expected.dtype} {expected.shape} was, {found.dtype} {found.shape} is"
        yield Difference(place, math.inf, words)
    elif not np.array_equal(expected, found, equal_nan=expected.dtype.kind == "f"):
        if expected.dtype.kind != "f" or not np.array_equal(np.isnan(expected), np.isnan(found)):
            yield Difference(place, math.inf, f"{(expected != found).sum()} of {expected.size} are others")
            return
        apart = np.nan_to_num(np.abs(expected.astype(np.float64) - found.astype(np.float64)))
        size = float(apart.max()) / float(np.nanmax(np.abs(expected)))
        at = np.unravel_index(int(apart.argmax()), apart.shape)
        where = ", ".join(map(str, at))
        yield Difference(
            place, size, f"off by {size:.2g} of the greatest value at [{where}]: {expected[at]}, {found[at]}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
