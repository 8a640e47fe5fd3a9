"""Descriptors as files: Parquet for data frames and databases, or .npy, written as they come."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside, write_text
from verydeep.basics.version import VERSION
from verydeep.datasets.dataset import Dataset
from verydeep.inference.combine import combine
from verydeep.transfer.collection import content_hashes
from verydeep.transfer.descriptor import Descriptor
from verydeep.transfer.store import Rows, Store

GROUP_BYTES = 32 * 2**20
"""Descriptors in memory at a time while a file is written: one row group."""
_KEY = b"verydeep"
_WRITTEN = ("created_by", "weights")
"""What may differ between two files of the same features: who wrote them, and where the weights lay then."""


@dataclass(frozen=True)
class Labeled:
    """Pictures to describe, and what stands beside their descriptors.

    Attributes
    ----------
    dataset : Dataset
        The pictures; a label of -1 is none.
    splits : sequence of str
        Of each picture: `train`, `val`, `test`, or empty where there are none.
    """

    dataset: Dataset
    splits: Sequence[str]


@dataclass(frozen=True)
class Written:
    """What `write_features` did: pictures in the file, numbers each, and how many were computed for it."""

    rows: int
    width: int
    computed: int


def write_features(
    descriptor: Descriptor, pictures: Labeled, out: Path, store: Store, dtype: Literal["float32", "float16"] = "float32"
) -> Written:
    """Write the descriptors of pictures, in their order; what the store has is not computed again.

    Parquet: columns `id`, `label` (index into the metadata's classes, -1 for none), `split`, `descriptor` (a list of
    fixed length), and as JSON under the key `verydeep` of the metadata where they come from. `.npy`: the descriptors,
    N x D, and all the rest in a `.json` beside it.

    Parameters
    ----------
    descriptor : Descriptor
        How to describe them.
    pictures : Labeled
        Which.
    out : Path
        Ends in `.parquet` or `.npy`. If it is there already and holds just these features, nothing is done.
    store : Store
        Where descriptors are kept as they come, so that a stopped command continues.
    dtype : {"float32", "float16"}
        Of the file.

    Raises
    ------
    UserError
        Another suffix, or a file with features of another network, other settings or other pictures.
    BadImageError
        For a picture that cannot be read.
    """
    if out.suffix not in (".parquet", ".npy"):
        raise UserError(f"--out {out}: expected a name that ends in .parquet or .npy")
    dataset = pictures.dataset
    about = describe_features(descriptor, dataset, dtype)
    if out.is_file():
        _check_same(out, about, dataset)
        return Written(len(dataset), len(descriptor.get_feature_names_out()), 0)
    keys = content_hashes(dataset)
    parts = descriptor.parts()
    computed = sum(store.fill(part, dataset, keys) for scales in parts for part in scales)
    width = len(descriptor.get_feature_names_out())
    size = max(1, GROUP_BYTES // (4 * width))

    def groups() -> Iterator[tuple[slice, Rows]]:
        for start in range(0, len(keys), size):
            some = keys[start : start + size]
            rows = [[store.read(part, some) for part in scales] for scales in parts]
            yield slice(start, start + size), combine(rows, descriptor.aggregate, descriptor.normalize).astype(dtype)

    (_write_parquet if out.suffix == ".parquet" else _write_npy)(out, about, pictures, width, groups())
    return Written(len(dataset), width, computed)


def describe_features(descriptor: Descriptor, dataset: Dataset, dtype: str) -> dict[str, Any]:
    """Return all that decides a file of features, JSON-able."""
    sources = descriptor.sources()
    return {
        "kind": "features",
        "weights": [source.path for source in sources],
        "weights_hash": [source.hash for source in sources],
        "configuration": [source.net.configuration.name for source in sources],
        "layer": " & ".join(dict.fromkeys(descriptor.layers())),
        "scales": [int(scale) for scale in descriptor.scales],
        "aggregate": descriptor.aggregate,
        "flip": bool(descriptor.flip),
        "normalize": descriptor.normalize,
        "preprocessing": json.loads(json.dumps([source.net.preprocessing.to_dict() for source in sources])),
        "dtype": dtype,
        "data": dataset.name,
        "data_provenance": dataset.provenance,
        "classes": list(dataset.classes),
        "created_by": f"verydeep {VERSION}",
    }


def _write_parquet(
    out: Path, about: dict[str, Any], pictures: Labeled, width: int, groups: Iterator[tuple[slice, Rows]]
) -> None:
    samples = pictures.dataset.samples
    kind = pa.float16() if about["dtype"] == "float16" else pa.float32()
    fields = [("id", pa.string()), ("label", pa.int64()), ("split", pa.string()), ("descriptor", pa.list_(kind, width))]
    schema = pa.schema(fields, metadata={_KEY: json.dumps(about).encode()})
    with write_aside(out) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for rows, values in groups:
            columns = [
                pa.array([sample.id for sample in samples[rows]], pa.string()),
                pa.array([sample.label for sample in samples[rows]], pa.int64()),
                pa.array(pictures.splits[rows], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _write_npy(
    out: Path, about: dict[str, Any], pictures: Labeled, width: int, groups: Iterator[tuple[slice, Rows]]
) -> None:
    samples = pictures.dataset.samples
    with write_aside(out) as aside:
        with aside.open("wb") as file:
            header = {"descr": np.dtype(about["dtype"]).str, "fortran_order": False, "shape": (len(samples), width)}
            np.lib.format.write_array_header_1_0(file, header)
            for _, values in groups:
                file.write(np.ascontiguousarray(values).tobytes())
        table = {
            "ids": [sample.id for sample in samples],
            "labels": [sample.label for sample in samples],
            "splits": list(pictures.splits),
        }
        write_text(out.with_suffix(".json"), json.dumps({**about, **table}))


def _check_same(out: Path, about: dict[str, Any], dataset: Dataset) -> None:
    there, ids = _read_about(out)
    for key in about:
        if key not in _WRITTEN and there.get(key) != about[key]:
            raise UserError(
                f"{out}: holds features of another network, data or settings ({key} is {_short(there.get(key))} there, "
                f"{_short(about[key])} here); choose another --out or remove it"
            )
    if ids != [sample.id for sample in dataset.samples]:
        raise UserError(f"{out}: holds features of other pictures; choose another --out or remove it")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_about(out: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what a file says of itself, and the ids of its pictures."""
    try:
        if out.suffix == ".npy":
            about = json.loads(out.with_suffix(".json").read_text("utf-8"))
            return about, about.get("ids", [])
        with pq.ParquetFile(out) as file:
            about = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
            return about, file.read(columns=["id"])["id"].to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{out}: is there already and no file of features ({reason}); choose another --out") from None
