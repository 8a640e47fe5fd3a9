"""Posteriors as data: one Parquet file for each evaluation, from which every figure is computed."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.evaluation import parquet

_COLUMNS = {"id", "label", "posterior"}


@dataclass(frozen=True, eq=False)
class Posteriors:
    """Posteriors of N images over K classes, and where they come from.

    Parameters
    ----------
    ids : tuple of str
        Names of the images, each once.
    labels : ndarray of int64, shape (N,)
        Index into `classes`; -1 where the label is unknown, or there may be several.
    probabilities : ndarray of float32, shape (N, K)
        In [0, 1]; each row sums to 1 where an image has one class.
    classes : tuple of str
        The network's class names, in the order of the columns.
    metadata : dict
        JSON-able: protocol, weights, weights_hash, configuration, run, data, split, preprocessing,
        options, created_by. Of a fusion: what its parts have in common, and ``fused``, the parts' metadata.
    targets : ndarray of int8, shape (N, K), optional
        Of images that may have several classes: 1 where a class is there, -1 where not, 0 where that is not known.

    Raises
    ------
    UserError
        Where shapes do not fit, an id is there twice, or a row is no distribution.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    targets: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        count, classes = len(self.ids), len(self.classes)
        if self.labels.shape != (count,) or self.probabilities.shape != (count, classes):
            raise UserError(
                f"posteriors: {count} ids and {classes} classes need labels of shape ({count},) and probabilities of "
                f"shape ({count}, {classes}), not {self.labels.shape} and {self.probabilities.shape}"
            )
        if len(set(self.ids)) < count:
            twice = Counter(self.ids).most_common(1)[0][0]
            raise UserError(f"posteriors: image {twice!r} is there twice; each must be there once")
        if count and (self.labels.min() < -1 or self.labels.max() >= classes):
            raise UserError(f"posteriors: a label lies outside -1...{classes - 1}")
        if self.targets is not None:
            self._check_targets()
            return
        sums = self.probabilities.sum(axis=1, dtype=np.float64)
        if count and not (self.probabilities.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
            raise UserError("posteriors: a row is no distribution (it must be finite, not negative, and sum to 1)")

    def _check_targets(self) -> None:
        assert self.targets is not None
        if self.targets.shape != self.probabilities.shape or (np.abs(self.targets) > 1).any():
            raise UserError(f"posteriors: targets are not {self.probabilities.shape} of -1, 0 and 1")
        if (self.labels >= 0).any():
            raise UserError("posteriors: an image has a label and several, too; it must be one of the two")
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all():
            raise UserError("posteriors: one lies outside [0, 1]")

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: tuple[str, ...]) -> "Posteriors":
        """Return the rows of these images, in this order; KeyError for one that is not there."""
        place = {name: i for i, name in enumerate(self.ids)}
        order = np.array([place[name] for name in ids], dtype=np.int64)
        targets = None if self.targets is None else self.targets[order]
        return Posteriors(ids, self.labels[order], self.probabilities[order], self.classes, self.metadata, targets)

    def write(self, path: Path) -> None:
        """Write the Parquet file: columns id, label, posterior (float32, K to a row); whole or not at all.

        Of images with several classes there is a column target (int8, K to a row), too.
        """
        flat = pa.array(np.ascontiguousarray(self.probabilities, dtype=np.float32).ravel())
        posterior = pa.FixedSizeListArray.from_arrays(flat, len(self.classes))
        columns = {"id": pa.array(self.ids, pa.string()), "label": pa.array(self.labels), "posterior": posterior}
        if self.targets is not None:
            rows = pa.array(np.ascontiguousarray(self.targets, dtype=np.int8).ravel())
            columns["target"] = pa.FixedSizeListArray.from_arrays(rows, len(self.classes))
        parquet.write(path, columns, {**self.metadata, "classes": self.classes})

    @staticmethod
    def read(path: Path) -> "Posteriors":
        """Read what `write` has written.

        Raises
        ------
        UserError
            Where `path` is not there or no posteriors file.
        """
        return parquet.read(path, _of_table, "a posteriors file as verydeep evaluate writes them")


def _of_table(about: dict[str, Any], table: pa.Table) -> Posteriors:
    if not set(table.column_names) >= _COLUMNS:
        raise ValueError(f"columns {', '.join(sorted(_COLUMNS))} were expected")
    classes = tuple(about.pop("classes"))
    flat = table["posterior"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    targets = None
    if "target" in table.column_names:
        rows = table["target"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        targets = rows.astype(np.int8).reshape(-1, len(classes))
    return Posteriors(
        tuple(table["id"].to_pylist()),
        table["label"].to_numpy().astype(np.int64),
        flat.astype(np.float32).reshape(-1, len(classes)),
        classes,
        about,
        targets,
    )
