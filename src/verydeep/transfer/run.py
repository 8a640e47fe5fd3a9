"""A transfer from its request to its files (appendix B of the paper)."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.basics.files import first_difference, write_text
from verydeep.basics.machine import describe_machine
from verydeep.basics.version import VERSION
from verydeep.datasets.opening import Reading
from verydeep.inference.combine import Rows
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.nets.weights import weights_hash
from verydeep.training.run_folder import find_weights
from verydeep.transfer.deploy import deploy, no_network
from verydeep.transfer.descriptor import Weights
from verydeep.transfer.protocols import find_protocol
from verydeep.transfer.report import write_report
from verydeep.transfer.work import Outcome, Settings, Transfer

RESULT, REPORT = "result.json", "report.html"


def transfer(
    weights: Sequence[Weights],
    data: str,
    protocol: str,
    out: str | Path,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
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
    settings : Settings
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
    started, out = time.monotonic(), Path(out)
    work = Transfer(weights, data, find_protocol(protocol), settings, cache, Runtime(**runtime), reading)
    identity = json.loads(
        json.dumps({**work.identity, "compare": weights_hash(find_weights(compare)) if compare else None})
    )
    if (finished := _finished(out, identity)) is not None:
        return finished
    compared = work.compare(compare) if compare else None
    described = work.describe()
    outcomes = {shown: [work.classify(rows, split) for split in work.splits] for shown, rows in described.items()}
    result = {
        "identity": identity,
        "name": work.name,
        "measure": work.protocol.metric,
        "systems": [_system(work, shown, rows.shape[1], outcomes[shown]) for shown, rows in described.items()],
        "deployed": deploy(work, out, outcomes["image"][0]),
        "no_network": no_network(work),
        "compared": compared,
        "imbalance": work.imbalance(),
        "duplicates": [work.data.duplicates(split) for split in work.splits],
        "left_out": [str(bad) for bad in work.data.dataset.bad],
        "data_provenance": work.provenance,
        "seconds": time.monotonic() - started,
        "machine": describe_machine(),
        "created_by": f"verydeep {VERSION}",
    }
    _write(work, out, described["image"], outcomes["image"], result)
    return result


def _finished(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return a finished transfer's result; UserError where the folder holds something else.

    The result itself says whose the folder is; it is not claimed before, as a run's is: a request that turns out
    wrong leaves no folder.
    """
    file = out / RESULT
    if not file.is_file():
        if out.exists() and (not out.is_dir() or any(out.glob("*.toml"))):
            raise UserError(f"{out}: is there already and holds no transfer; choose another --out")
        return None
    result: dict[str, Any] = json.loads(file.read_text("utf-8"))
    there = result.get("identity", {})
    if what := first_difference({key: there.get(key) for key in identity}, identity):
        raise UserError(f"{out}: holds another transfer ({what}); choose another --out or remove it")
    return result


def _system(work: Transfer, shown: str, width: int, outcomes: list[Outcome]) -> dict[str, Any]:
    merits = [outcome.metrics["merit"] for outcome in outcomes]
    return {
        "name": work.name if shown == "image" else f"{work.name}, {shown}",
        "shown": shown,
        "width": width,
        "merit": float(np.mean(merits)),
        "std": float(np.std(merits, ddof=1)) if len(merits) > 1 else None,
        "splits": [outcome.metrics for outcome in outcomes],
    }


def _write(work: Transfer, out: Path, rows: Rows, outcomes: list[Outcome], result: dict[str, Any]) -> None:
    """Write all files of a transfer, the result last: where it is, the others are, too."""
    ids, several = work.data.ids, work.protocol.multi_label
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
    write_report(out / REPORT, work.data, rows, outcomes[0], result)
    write_text(out / RESULT, json.dumps(result, indent=1))
