"""A transfer from its request to its files (appendix B of the paper)."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_text
from verydeep.basics.machine import describe_machine
from verydeep.basics.version import VERSION
from verydeep.datasets.opening import Reading
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import weights_hash
from verydeep.training.run_folder import find_weights
from verydeep.transfer.collection import Collection, duplicates
from verydeep.transfer.protocols import Split, find_protocol
from verydeep.transfer.report import write_report
from verydeep.transfer.settings import Settings
from verydeep.transfer.store import Rows
from verydeep.transfer.work import Outcome, Transfer

RESULT, REPORT = "result.json", "report.html"


def transfer(
    weights: Sequence[VGG | str | Path],
    data: str,
    protocol: str,
    out: str | Path,
    settings: Settings | None = None,
    *,
    compare: Path | None = None,
    cache: Path | None = None,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
    **runtime: Unpack[RuntimeOptions],
) -> dict[str, Any]:
    """Train linear classifiers on a network's descriptors, and measure them by one of the paper's protocols.

    Parameters
    ----------
    weights : sequence of VGG, str or Path
        Networks; the descriptors of several are stacked. None are needed for the baselines `pixels` and `hog`.
    data : str
        Folder, tar, or `scenes`.
    protocol : str
        One of `protocols.PROTOCOLS`.
    out : str or Path
        Folder for `result.json`, `report.html`, the posteriors of the test images, the splits, and for each network
        a `classifier.safetensors`; where there is none, `no_network` in the result says why. A finished folder is
        read, one of another transfer is refused.
    settings : Settings, optional
        The choices.
    compare : Path, optional
        A network trained for the same classes, to stand beside.
    cache : Path, optional
        Where descriptors are kept; by default in the user's cache folder.
    reading : Reading
        How the data set is read.
    device, engine, memory
        Where and how the network runs: the fields of `verydeep.inference.runtime.Runtime`.

    Returns
    -------
    dict
        The content of `result.json`.

    Raises
    ------
    UserError
        A wrong request.
    BadImageError
        For an image that cannot be read.
    """
    started, out, where = time.monotonic(), Path(out), Runtime(**runtime)
    work = Transfer(weights, data, find_protocol(protocol), settings or Settings(), cache, where, reading)
    identity = json.loads(
        json.dumps({**work.identity, "compare": weights_hash(find_weights(compare)) if compare else None})
    )
    if (finished := _finished(out, identity)) is not None:
        return finished
    compared = work.compare(compare) if compare else None
    systems, described, outcomes = [], work.describe(), {}
    for shown, rows in described.items():
        outcomes[shown] = [work.classify(rows, split) for split in work.splits]
        systems.append(_system(work, shown, rows.shape[1], outcomes[shown]))
    result = {
        "identity": identity,
        "name": work.name,
        "measure": work.protocol.measure,
        "systems": systems,
        "deployed": work.deploy(out, outcomes["image"][0]),
        "no_network": work.no_network(),
        "compared": compared,
        "imbalance": work.imbalance(),
        "duplicates": [_duplicates(work.collection, split) for split in work.splits],
        "left_out": [str(bad) for bad in work.collection.dataset.bad],
        "data_provenance": work.provenance,
        "seconds": time.monotonic() - started,
        "machine": describe_machine(),
        "created_by": f"verydeep {VERSION}",
    }
    _write(work, out, described["image"], outcomes["image"], result)
    return result


def _finished(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return a finished transfer's result; UserError where the folder holds something else."""
    file = out / RESULT
    if not file.is_file():
        if out.exists() and (not out.is_dir() or any(out.glob("*.toml"))):
            raise UserError(f"{out}: is there already and holds no transfer; choose another --out")
        return None
    result: dict[str, Any] = json.loads(file.read_text("utf-8"))
    for key, value in identity.items():
        there = result.get("identity", {}).get(key)
        if there != value:
            what = f"{key} differs" if len(f"{there}{value}") > 100 else f"{key} is {there} there, {value} here"
            raise UserError(f"{out}: holds another transfer ({what}); choose another --out or remove it")
    return result


def _system(work: Transfer, shown: str, width: int, outcomes: list[Outcome]) -> dict[str, Any]:
    merits = [outcome.figures["merit"] for outcome in outcomes]
    return {
        "name": work.name if shown == "image" else f"{work.name}, {shown}",
        "shown": shown,
        "width": width,
        "merit": float(np.mean(merits)),
        "std": float(np.std(merits, ddof=1)) if len(merits) > 1 else None,
        "splits": [outcome.figures for outcome in outcomes],
    }


def _duplicates(collection: Collection, split: Split) -> dict[str, Any]:
    found = duplicates(collection, split)
    return {"split": split.name, "test_images": found.count, "examples": [list(pair) for pair in found.examples]}


def _write(work: Transfer, out: Path, rows: Rows, outcomes: list[Outcome], result: dict[str, Any]) -> None:
    """Write all files of a transfer, the result last: where it is, the others are, too."""
    ids, several = work.collection.ids, work.protocol.multi_label
    lists = [
        {
            "name": split.name,
            **{part: [ids[i] for i in getattr(split, part).tolist()] for part in ("train", "validation", "test")},
        }
        for split in work.splits
    ]
    write_text(out / "splits.json", json.dumps(lists))
    for number, outcome in enumerate([] if several else outcomes, start=1):
        work.posteriors(outcome).write(out / f"posteriors-{number}.parquet")
    write_report(out / REPORT, work.collection, rows, outcomes[0], several, result)
    write_text(out / RESULT, json.dumps(result, indent=1))
