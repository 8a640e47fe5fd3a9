"""A transfer from its request to its files (appendix B of the paper)."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.basics.files import first_difference, write_text
from verydeep.basics.lock import sole_writer
from verydeep.basics.machine import describe_machine
from verydeep.basics.version import VERSION
from verydeep.datasets.opening import Reading
from verydeep.inference.combine import Rows
from verydeep.inference.protocol import default_protocol
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.nets.config import DescriptorConfig
from verydeep.nets.families import make_on_meta
from verydeep.nets.network import Network
from verydeep.nets.run_info import RunInfo
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import save, weights_hash
from verydeep.training.run_folder import find_weights
from verydeep.transfer.descriptor import Weights
from verydeep.transfer.elementary import PAPERS_LAYER, LayerDescriptor
from verydeep.transfer.linear import Linear
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

    UserError: a wrong request. BadImageError for an image that cannot be read.

    Parameters
    ----------
    weights : sequence of Network, str or Path
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
    device, engine, memory, precision
        Where and how the network runs: the fields of `verydeep.inference.runtime.Runtime`.

    Returns
    -------
    dict
        The content of `result.json`.
    """
    started, out = time.monotonic(), Path(out)
    work = Transfer(weights, data, find_protocol(protocol), settings, cache, Runtime(**runtime), reading)
    identity = json.loads(
        json.dumps({**work.identity, "compare": weights_hash(find_weights(compare)) if compare else None})
    )
    if (finished := _finished(out, identity)) is not None:
        return finished
    with sole_writer(out):
        # Another process may have finished it before this one got the folder.
        return _finished(out, identity) or _transfer(work, out, identity, compare, started)


def _transfer(
    work: Transfer, out: Path, identity: dict[str, Any], compare: Path | None, started: float
) -> dict[str, Any]:
    compared = work.compare(compare) if compare else None
    described = work.describe()
    outcomes = {shown: [work.classify(rows, split) for split in work.splits] for shown, rows in described.items()}
    result = {
        "identity": identity,
        "name": work.name,
        "measure": work.protocol.metric,
        "systems": [_system(work, shown, rows.shape[1], outcomes[shown]) for shown, rows in described.items()],
        "deployed": deploy(work, out, outcomes["image"][0]),
        "no_network": _no_network(work),
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


def _no_network(work: Transfer) -> str | None:
    """Return why no network's file comes of a transfer; None where one does."""
    if work.descriptor is None or work.settings.baseline:
        return f"baseline {work.settings.baseline} is there to compare with"
    if work.data.boxes is not None:
        return "a classifier of whole pictures and persons' boxes takes two descriptors, and a network one picture"
    for source, layer in zip(work.descriptor.sources(), work.descriptor.layers(), strict=True):
        names, classifier = source.net.layer_names, source.net.config.classifier
        if classifier in names and layer in names[names.index(classifier) :]:
            what = f"a classifier on {layer}, the scores of other classes,"
            return f"{what} has no place in a network; take another --layer"
    return None


def deploy(work: Transfer, out: Path, measured: Outcome) -> list[dict[str, Any]]:
    """Write the classifier of the first split as a network; return the file's name, what it is and its metric.

    Of several networks each gets one, with the classifier on its own descriptor alone.

    Parameters
    ----------
    work : Transfer
        What was done.
    out : Path
        Folder for the files.
    measured : Outcome
        The first split's.
    """
    descriptor, made = work.descriptor, []
    if descriptor is None or _no_network(work):
        return []
    parts = descriptor.parts()
    for number, scales in enumerate(parts, start=1):
        outcome, source = measured, scales[0].source
        if len(parts) > 1:
            rows = [work.store.read(part, work.data.hashes) for part in scales]
            outcome = work.classify(descriptor.combine([rows]), measured.split)
        net = _as_network(scales, outcome.chosen.linear, _config(work, scales), work.data.classes)
        net.provenance = _run_info(work, scales[0], outcome)
        path = out / ("classifier.safetensors" if len(parts) == 1 else f"classifier-{number}.safetensors")
        save(net, path)
        made.append(
            {
                "file": path.name,
                "system": work.system([source], [scales[0].layer]),
                "split": outcome.split.name,
                "protocol": str(default_protocol(net)),
                "C": outcome.chosen.C,
                "merit": outcome.metrics["merit"],
            }
        )
    return made


def _config(work: Transfer, scales: list[LayerDescriptor]) -> DescriptorConfig:
    known = [work.data.hashes[i] for i in work.splits[0].known.tolist()]
    norms = [np.linalg.norm(work.store.read(part, known), axis=1).mean(dtype=np.float64) for part in scales]
    choice, aggregate = work.settings, work.settings.aggregate or work.protocol.aggregate
    norm = float(np.mean(norms)) or 1.0
    return DescriptorConfig(tuple(part.scale for part in scales), aggregate, choice.flip, choice.normalize, norm)


def _as_network(
    scales: list[LayerDescriptor], linear: Linear, config: DescriptorConfig, classes: tuple[str, ...]
) -> Network:
    """Return the network up to the layer, whose weights are shared, with the classifier behind it."""
    net, layer = scales[0].source.net, scales[0].layer
    trunk = None if layer == PAPERS_LAYER and isinstance(net, VGG) else layer
    new = make_on_meta(replace(net.config, classes=classes, trunk=trunk, descriptor=config, regression=None))
    state = {name: tensor.cpu() for name, tensor in net.state_dict().items() if name in new.state_dict()}
    last = new.config.classifier
    state[f"{last}.weight"] = torch.from_numpy(linear.weights.astype(np.float32))[:, :, None, None]
    state[f"{last}.bias"] = torch.from_numpy(linear.biases.astype(np.float32))
    new.load_state_dict(state, assign=True)
    return new.eval()


def _run_info(work: Transfer, part: LayerDescriptor, outcome: Outcome) -> RunInfo:
    of_source = part.source.net.provenance
    choices = {
        "protocol": work.protocol.name,
        "classifier": work.settings.classifier,
        "C": outcome.chosen.C,
        "created_by": f"verydeep {VERSION}",
    }
    return RunInfo(
        train_scales=of_source.train_scales,  # of the layers, for who trains them further
        recipe="transfer",
        data=work.data.dataset.name,
        training_images=len(outcome.split.known),
        split=outcome.split.name,
        multi_label=work.protocol.multi_label,
        more={
            "transfer": choices,
            "features": {"weights_hash": part.source.hash, "provenance": of_source.to_dict()},
        },
    )
