"""A network for each pixel and a data set with masks become confusion matrices, one a picture, in one file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.progress import track
from verydeep.basics.version import VERSION
from verydeep.datasets.content import content_digest
from verydeep.datasets.masks import SegmentedDataset
from verydeep.evaluation import parquet
from verydeep.inference.runtime import Runtime
from verydeep.nets.families import load
from verydeep.nets.weights import weights_hash
from verydeep.segmentation.metrics import Matrix, confusion
from verydeep.segmentation.segmenter import Segmenter

FILE = "segmentation.parquet"


def confusions(
    weights: Path,
    dataset: SegmentedDataset,
    out: Path,
    *,
    runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
    factor: float | None = None,
    limit: int | None = None,
) -> Matrix:
    """Return each picture's confusion matrix, N x K x K; from the file in `out` where the network has run already.

    UserError where classes are not the network's, a picture takes more than the memory, or the file is of another test.
    """
    net = load(weights, "segment")
    if net.classes != dataset.classes:
        raise UserError(
            f"{weights}: knows {len(net.classes)} classes ({net.classes[0]}, ...), and the data set has "
            f"{len(dataset.classes)} ({dataset.classes[0]}, ...), in this order; they must be the same"
        )
    if limit is not None:
        dataset = dataset.subset(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).astype(int).tolist())
    segmenter = Segmenter.of(net, runtime, factor, len(dataset))
    about: dict[str, Any] = {
        "classes": list(dataset.classes),
        "weights_hash": weights_hash(weights),
        "data": dataset.name,
        "split": dataset.split,
        "factor": segmenter.factor,
        "data_sha256": dataset.fingerprint(),
        "content_sha256": content_digest(dataset),
    }
    path = out / FILE
    if path.exists():
        return _found(path, json.loads(json.dumps(about)))
    matrices = []
    for index in track(range(len(dataset)), len(dataset), "segmenting"):
        picture = dataset.image(index)
        if reason := segmenter.too_large(picture.shape[0], picture.shape[1]):
            raise BadImageError(dataset.where(index), reason)
        matrices.append(confusion(dataset.mask(index), segmenter.labels(picture), len(net.classes)))
    found: NDArray[np.int64] = np.stack(matrices)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), len(net.classes) ** 2)
    ids = pa.array([sample.id for sample in dataset.samples], pa.string())
    more = {"run": net.provenance.to_dict(), "configuration": net.configuration.name, "task": "segment"}
    parquet.write(path, {"id": ids, "confusion": rows}, {**about, **more, "created_by": f"verydeep {VERSION}"})
    return found


def _found(path: Path, here: dict[str, Any]) -> Matrix:
    def matrices(about: dict[str, Any], table: Any) -> Matrix:
        for key, value in here.items():
            if about.get(key) != value:
                raise UserError(f"holds another test ({key}); choose another --out, or remove it")
        flat = table["confusion"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        classes = len(here["classes"])
        return np.asarray(flat.astype(np.int64).reshape(-1, classes, classes))

    return parquet.read(path, matrices, "confusion matrices as verydeep evaluate --task segment writes them")
