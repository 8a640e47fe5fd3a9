"""Boxes as data: one Parquet file for each way of localizing, from which every figure is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.evaluation import parquet
from verydeep.evaluation.parquet import read_metadata
from verydeep.localization.boxes import Boxes

MOST_DETECTIONS = 5
"""(class, box) pairs that the challenge allows for an image."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Guessed classes and boxes of N images, and the boxes of all windows that they were made from.

    Every image has G classes: the most probable ones in descending order, its detections, and last its own class, so
    that localization can be told from classification. Without a label the most probable class stands there again.

    Parameters
    ----------
    ids : tuple of str
        Names of the images.
    labels : ndarray of int64, shape (N,)
        Index into `names`; -1 where unknown.
    sizes : ndarray of int64, shape (N, 2)
        Height and width of the original images in pixels.
    truths : sequence of ndarray, shape (M, 4)
        True boxes of each image's class, by edges in original pixels; M may be 0.
    classes : ndarray of int64, shape (N, G)
        Which classes; G is `MOST_DETECTIONS` + 1, or less where there are fewer classes.
    posteriors : ndarray of float32, shape (N, G)
        Their posteriors.
    windows : sequence of ndarray of float32, shape (n, G, 4)
        The box that each of n windows gives for each class, by edges in original pixels.
    scores : sequence of ndarray of float32, shape (n, G)
        The classifier's soft-max posterior of each class in each window.
    boxes : ndarray, shape (N, G, 4)
        The merged box with the highest rating for each class, cut at the image's edges.
    ratings : ndarray, shape (N, G)
        Sum of the class's scores over the windows that were merged into it.
    names : tuple of str
        The network's class names.
    metadata : dict
        JSON-able: protocol, networks, data, split, how boxes were merged.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    truths: Sequence[Boxes]
    classes: NDArray[np.int64]
    posteriors: NDArray[np.float32]
    windows: Sequence[NDArray[np.float32]]
    scores: Sequence[NDArray[np.float32]]
    boxes: Boxes
    ratings: NDArray[np.float64]
    names: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which images have a label and a true box, shape (N,): those that errors are computed of."""
        return (self.labels >= 0) & np.array([len(truth) > 0 for truth in self.truths], np.bool_)

    def rows(self, chosen: Sequence[int] | NDArray[np.int64]) -> "Detections":
        """Return these images alone, in this order."""
        at = np.asarray(chosen, np.int64)
        parts: dict[str, Any] = {name: getattr(self, name)[at] for name in _ARRAYS}
        parts |= {name: [getattr(self, name)[i] for i in at] for name in ("truths", "windows", "scores")}
        return replace(self, ids=tuple(self.ids[i] for i in at), **parts)

    @property
    def tested(self) -> "Detections":
        """The images that figures are of: all but those that the threshold of merging was chosen on."""
        share = (self.metadata.get("merging") or {}).get("held_out", 0.0)
        return self.without_held_out(share) if share else self

    def without_held_out(self, share: float) -> "Detections":
        """Return the detections, merged, without the images that `held_out` chooses."""
        rest = self.rows(np.setdiff1d(np.arange(len(self)), held_out(self.ids, share)))
        return replace(rest, metadata={**self.metadata, "merging": {**self.metadata["merging"], "held_out": 0.0}})

    def write(self, path: Path) -> None:
        """Write the Parquet file, whole or not at all; nested arrays are flat lists, their shapes as documented."""
        columns: dict[str, Any] = {"id": pa.array(self.ids, pa.string()), "label": pa.array(self.labels)}
        columns |= {"height": pa.array(self.sizes[:, 0]), "width": pa.array(self.sizes[:, 1])}
        for name, kind in _LISTS.items():
            rows = [np.asarray(row).reshape(-1).astype(kind) for row in getattr(self, name)]
            columns[name] = pa.array(rows, pa.list_(pa.from_numpy_dtype(kind)))
        parquet.write(path, columns, {**self.metadata, "classes": self.names, "boxes": True})

    @staticmethod
    def read(path: Path) -> "Detections":
        """Read what `write` has written. UserError where `path` is not there or no file of boxes."""
        return parquet.read(path, _of_table, "a file of boxes as verydeep evaluate --task localize writes them")


def _of_table(about: dict[str, Any], table: pa.Table) -> Detections:
    if not about.pop("boxes", False):
        raise ValueError("it is of no boxes")
    names = tuple(about.pop("classes"))
    lists = {name: _unpack(table[name]) for name in _LISTS}
    count = len(lists["classes"][0]) if len(table) else 0
    shapes = {"truths": (-1, 4), "windows": (-1, count, 4), "scores": (-1, count)}
    shaped = {name: [row.reshape(shape) for row in lists[name]] for name, shape in shapes.items()}
    flat = {name: np.stack(lists[name]) for name in ("classes", "posteriors", "boxes", "ratings")}
    return Detections(
        ids=tuple(table["id"].to_pylist()),
        labels=table["label"].to_numpy().astype(np.int64),
        sizes=np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1).astype(np.int64),
        names=names,
        metadata=about,
        truths=shaped["truths"],
        windows=shaped["windows"],
        scores=shaped["scores"],
        classes=flat["classes"],
        posteriors=flat["posteriors"],
        boxes=flat["boxes"].reshape(-1, count, 4),
        ratings=flat["ratings"],
    )


def held_out(ids: Sequence[str], share: float) -> NDArray[np.int64]:
    """Return the images to choose a threshold on: `share` of all, by chance, the same in whatever order they stand."""
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    chosen = generator(0).permutation(len(order))[: max(1, round(share * len(order)))]
    return np.sort(order[chosen])


_ARRAYS = ("labels", "sizes", "classes", "posteriors", "boxes", "ratings")
_LISTS = {
    "truths": np.float64,
    "classes": np.int64,
    "posteriors": np.float32,
    "windows": np.float32,
    "scores": np.float32,
    "boxes": np.float64,
    "ratings": np.float64,
}


def _unpack(column: Any) -> list[NDArray[Any]]:
    """Return a column of lists as arrays."""
    flat = column.combine_chunks()
    values, offsets = flat.flatten().to_numpy(zero_copy_only=False), flat.offsets.to_numpy()
    return [values[a:b] for a, b in zip(offsets[:-1] - offsets[0], offsets[1:] - offsets[0], strict=True)]


def holds_boxes(path: Path) -> bool:
    """Return whether a file is one of boxes; no, too, for one that cannot be read."""
    try:
        return bool(read_metadata(path).get("boxes"))
    except UserError:
        return False
