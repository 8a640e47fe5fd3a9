"""Descriptors as files: Parquet for data frames and databases, or .npy, written as they come."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verydeep.basics.errors import UserError
from verydeep.basics.files import first_difference, write_aside, write_text
from verydeep.basics.version import VERSION
from verydeep.datasets.content import content_hashes
from verydeep.datasets.dataset import Dataset
from verydeep.inference.combine import Rows
from verydeep.inference.parts import Part
from verydeep.transfer.descriptor import Descriptor
from verydeep.transfer.store import Store

GROUP_BYTES = 32 * 2**20
"""Descriptors in memory at a time while a file is written: one row group."""
_KEY = b"verydeep"
_MAY_DIFFER = ("created_by", "weights")
"""Between two files of the same features: who wrote them, and where the weights lay then."""

Columns = dict[str, Sequence[Any]]


@dataclass(frozen=True)
class Written:
    """What `write_features` did: pictures in the file, numbers each, and how many were computed for it."""

    rows: int
    width: int
    computed: int


def write_features(
    descriptor: Descriptor,
    dataset: Dataset,
    splits: Sequence[str],
    out: Path,
    store: Store,
    dtype: Literal["float32", "float16"] = "float32",
) -> Written:
    """Write pictures' descriptors, in order, as `.parquet` or `.npy`; what the store has is not computed again.

    Parquet: columns `id`, `label` (index into the metadata's classes, -1 for none), `split` (empty for none),
    `descriptor` (a list of fixed length), and as JSON under the key `verydeep` of the metadata where they come from.
    `.npy`: the descriptors, N x D, and all the rest in a `.json` beside it. A file that holds just these features is
    left as it is; UserError for features of another network, other settings or other pictures, BadImageError for a
    picture that cannot be read.
    """
    if out.suffix not in (".parquet", ".npy"):
        raise UserError(f"--out {out}: expected a name that ends in .parquet or .npy")
    about = _describe(descriptor, dataset, dtype)
    ids = [sample.id for sample in dataset.samples]
    width = len(descriptor.get_feature_names_out())
    if out.is_file():
        _check_same(out, about, ids)
        return Written(len(ids), width, 0)
    keys, parts = content_hashes(dataset), descriptor.parts()
    computed = sum(store.fill(part, dataset, keys) for part in chain(*parts))
    size = max(1, GROUP_BYTES // (4 * width))

    def groups() -> Iterator[Rows]:
        for start in range(0, len(keys), size):
            some = keys[start : start + size]
            yield descriptor.combine([[store.read(part, some) for part in scales] for scales in parts]).astype(dtype)

    columns: Columns = {"id": ids, "label": [sample.label for sample in dataset.samples], "split": list(splits)}
    (_write_parquet if out.suffix == ".parquet" else _write_npy)(out, about, columns, width, groups())
    return Written(len(ids), width, computed)


def describe_part(descriptor: Descriptor, dataset: Dataset, part: Part, store: Store) -> int:
    """Put a part of the pictures' descriptors into the store, for `write_features` to find; return its number."""
    some = dataset.subset(part.of(range(len(dataset))))
    keys = content_hashes(some)
    for scale in chain(*descriptor.parts()):
        store.fill(scale, some, keys)
    return len(some)


def _describe(descriptor: Descriptor, dataset: Dataset, dtype: str) -> dict[str, Any]:
    """Return all that decides a file of features, as JSON has it."""
    sources, identity = descriptor.sources(), descriptor.identity
    about = {
        "kind": "features",
        "weights": [source.path for source in sources],
        "weights_hash": identity["weights_hash"],
        "configuration": [source.net.configuration.name for source in sources],
        **identity,
        "preprocessing": [source.net.preprocessing.to_dict() for source in sources],
        "dtype": dtype,
        "data": dataset.name,
        "data_provenance": dataset.provenance,
        "classes": list(dataset.classes),
        "created_by": f"verydeep {VERSION}",
    }
    return dict(json.loads(json.dumps(about)))


def _write_parquet(out: Path, about: dict[str, Any], columns: Columns, width: int, groups: Iterator[Rows]) -> None:
    kind = pa.float16() if about["dtype"] == "float16" else pa.float32()
    fields = [("id", pa.string()), ("label", pa.int64()), ("split", pa.string()), ("descriptor", pa.list_(kind, width))]
    schema = pa.schema(fields, metadata={_KEY: json.dumps(about).encode()})
    beside = pa.table(columns, schema=pa.schema(fields[:3]))
    start = 0
    with write_aside(out) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for rows in groups:
            descriptors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), width)
            group = beside.slice(start, len(rows)).append_column(schema.field("descriptor"), descriptors)
            writer.write_table(group)
            start += len(rows)


def _write_npy(out: Path, about: dict[str, Any], columns: Columns, width: int, groups: Iterator[Rows]) -> None:
    shape = (len(columns["id"]), width)
    with write_aside(out) as aside:
        with aside.open("wb") as file:
            header = {"descr": np.dtype(about["dtype"]).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in groups:
                file.write(np.ascontiguousarray(rows).tobytes())
        write_text(
            out.with_suffix(".json"), json.dumps({**about, **{f"{name}s": values for name, values in columns.items()}})
        )


def _check_same(out: Path, about: dict[str, Any], ids: list[str]) -> None:
    there, ids_there = _read_about(out)
    fixed = [key for key in about if key not in _MAY_DIFFER]
    if what := first_difference({key: there.get(key) for key in fixed}, {key: about[key] for key in fixed}):
        raise UserError(
            f"{out}: holds features of another network, data or settings ({what}); choose another --out or remove it"
        )
    if ids_there != ids:
        raise UserError(f"{out}: holds features of other pictures; choose another --out or remove it")


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
