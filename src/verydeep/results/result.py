"""What a folder's files say: one `Result` for each test of classes, of boxes, or by transfer, each file read once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.metrics import ErrorRate, McNemar, Mean, errors, mcnemar, wrong
from verydeep.evaluation.parquet import read_metadata
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.localization.detections import Detections
from verydeep.localization.metrics import localization_metrics
from verydeep.nets.architectures import ARCHITECTURES
from verydeep.nets.configurations import CONFIGURATIONS
from verydeep.nets.run_info import RunInfo
from verydeep.results.published import Scales

ORDER = [*CONFIGURATIONS, *ARCHITECTURES]
FC_ONLY, BATCH_NORM = "FC only", "batch norm"


@dataclass(frozen=True)
class Network:
    """A trained network, as files tell it from others."""

    configuration: str
    train: Scales
    variant: tuple[str, ...] = ()  # empty for the paper's; else what sets it apart: FC_ONLY, BATCH_NORM
    weights: str = ""  # hash of its file; empty for localizers, which files of boxes tell apart by their folder
    regression: str = ""  # of localizers: `scr`, one box for all classes, or `pcr`, one for each
    tuned: str = ""  # of localizers: `fc` or `all` layers

    @property
    def kind(self) -> tuple[str, Scales, tuple[str, ...]]:
        """What it is, whatever its weights."""
        return self.configuration, self.train, self.variant

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it stands in a table: variants last, then by depth, fixed S before a range."""
        jitter = self.train[0] < self.train[1]
        return bool(self.variant), ORDER.index(self.configuration), jitter, self.train, self.variant


@dataclass(frozen=True, eq=False)
class Result:
    """What one test measured.

    `metrics` are, with 95 % bootstrap intervals, the errors `top1` and `top5` (no `top5` of five classes or fewer), for
    boxes also the error `given_class` and `mean_iou`; of a transfer `merit`.
    """

    kind: Literal["classes", "boxes", "transfer"]
    path: Path  # of a fusion the first file
    data: str
    split: str
    networks: tuple[Network, ...] = ()  # one, or several that were fused; none of a transfer, whose systems have names
    protocols: tuple[Protocol, ...] = ()  # how each of them was tested
    images: int = 0  # how many counted; 0 where a file does not say
    metrics: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""  # of a transfer's system
    about: Mapping[str, Any] = field(default_factory=dict)  # what the file says of itself
    wrong: NDArray[np.bool_] | None = None  # of classes: which images, in the order of their names, are named wrong
    names_hash: str = ""  # SHA-256 of these names
    detections: Detections | None = None  # of boxes: what `metrics` are of, without the boxes of single windows

    @property
    def network(self) -> Network:
        """The one network that was tested."""
        return self.networks[0]

    @property
    def protocol(self) -> Protocol:
        """How it was tested."""
        return self.protocols[0]

    @property
    def top1(self) -> ErrorRate:
        """Top-1 error."""
        rate: ErrorRate = self.metrics["top1"]
        return rate

    @property
    def run(self) -> RunInfo:
        """What is known of how the tested weights were made."""
        return RunInfo.of_test(self.about)


def read_results(folder: str | Path) -> list[Result]:
    """Return the results in a folder and below, as far as they belong in tables.

    Left out are fusions of posteriors, networks of unknown training scales, images without labels, tests with other
    options than the paper's, and boxes that are not merged yet. UserError where there is no such folder, no result in
    it, or a damaged file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the --out of verydeep reproduce or verydeep evaluate")
    # What an unfinished evaluation keeps stands in hidden folders.
    files = [
        f for f in sorted(path.rglob("*.parquet")) if not any(p.startswith(".") for p in f.relative_to(path).parts)
    ]
    results = [result for file in sorted(path.rglob("result.json")) for result in _transfers(file)]
    results += [result for file in files if (result := _tested(file))]
    if not results and files:
        raise UserError(
            f"{path}: none of its posteriors belongs in a table (that takes labels, the paper's options, and a "
            "network whose training scales are known); verydeep reproduce writes such files"
        )
    if not results:
        raise UserError(f"{path}: no posteriors (*.parquet) in it; verydeep reproduce and evaluate write them")
    return results


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file whose description turns out to be damaged."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: what it says of itself is damaged ({reason}); remove it or do that test again"
        ) from None


def _tested(path: Path) -> Result | None:
    about = read_metadata(path)
    if about.get("task") == "segment":  # no table of the paper is of pixels
        return None
    with _naming(path):
        result = _described(path, about)
    if result is None or result.kind == "boxes":
        return result and _with_boxes(result)
    posteriors = Posteriors.read(path)
    return _with_errors(result, posteriors) if (posteriors.labels >= 0).any() else None


def _described(path: Path, about: Mapping[str, Any]) -> Result | None:
    """Return a result without metrics; None where no table has a place for it."""
    members = about.get("fused") or [about]
    networks = tuple(network for member in members if (network := _network(member)))
    usable = about.get("merging") if about.get("boxes") else "fused" not in about and _is_papers_way(about)
    if len(networks) < len(members) or not usable:
        return None
    images = f"{about['split']}, {about['limit']}" if about.get("limit") else str(about["split"])
    protocols = tuple(Protocol.parse(member["protocol"]) for member in members)
    kind: Literal["boxes", "classes"] = "boxes" if about.get("boxes") else "classes"
    return Result(kind, path, about["data"], images, networks, protocols, about=about)


def _is_papers_way(about: Mapping[str, Any]) -> bool:
    options, plain = about.get("options") or {}, Options().to_dict()
    own = "up" if (about.get("preprocessing") or {}).get("pool_round_up") else "down"
    same = all(options.get(key) == plain[key] for key in ("softmax", "pool"))
    return same and options.get("pool_rounding") in (None, own)


def _network(about: Mapping[str, Any]) -> Network | None:
    """Return the network that a file was made by; None where no table has a place for it."""
    if about.get("configuration") not in ORDER:
        return None
    run, regression = RunInfo.of_test(about), about.get("regression") or ""
    if not run.train_scales or run.recipe == "transfer":
        return None
    tuned = run.trained_layers or "all"
    unlike = {FC_ONLY: tuned == "fc" and not regression, BATCH_NORM: about.get("batch_norm")}
    variant = tuple(name for name, is_so in unlike.items() if is_so)
    weights, layers = ("", tuned) if regression else (about.get("weights_hash", ""), "")
    return Network(about["configuration"], run.train_scales, variant, weights, regression, layers)


def _with_errors(result: Result, posteriors: Posteriors) -> Result:
    ids = np.array(posteriors.ids, dtype=object)[posteriors.labels >= 0]
    order = np.argsort(ids, kind="stable")
    missed = wrong(posteriors, 1)[order]
    digest = sha256("\n".join(ids[order]).encode()).hexdigest()
    return replace(result, images=len(ids), metrics=errors(posteriors), wrong=missed, names_hash=digest)


def _with_boxes(result: Result) -> Result | None:
    detections = Detections.read(result.path)
    if not detections.counted.any():
        return None
    # The boxes of all windows are by far the most of a file, and no table needs them.
    none = [np.empty((0, detections.classes.shape[1], 4), np.float32)] * len(detections)
    kept = replace(detections, windows=none, scores=[rows[..., 0] for rows in none])
    measured = dict(vars(localization_metrics(kept)))
    return replace(result, images=measured.pop("images"), metrics=measured, detections=kept)


def fused(parts: Sequence[Sequence[Result]], system: Result) -> Result:
    """Return a system with what the mean of posteriors measures: of each member the mean of its files, then of these.

    The files are read once more: a study's posteriors together, 200 MB each on ILSVRC, would not fit in memory.
    """
    means = [fuse([Posteriors.read(r.path) for r in part], [str(r.path) for r in part]) for part in parts]
    system = replace(system, path=parts[0][0].path)
    return _with_errors(system, fuse(means, [str(part[0].path) for part in parts]))


def compare(first: Result, second: Result) -> McNemar:
    """Test whether two systems err equally often in naming the same images; UserError where these differ."""
    assert first.wrong is not None
    assert second.wrong is not None
    if first.names_hash != second.names_hash:
        raise UserError(f"{first.path} and {second.path} differ in images; test both on the same data")
    return mcnemar(first.wrong, second.wrong)


def _transfers(path: Path) -> list[Result]:
    """Return the results of a transfer's systems; none for another program's file of that name."""
    try:
        about = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise UserError(f"{path}: damaged, not JSON; remove it or do that transfer again") from None
    if not isinstance(about, dict) or "systems" not in about or "identity" not in about:
        return []
    with _naming(path):
        systems = [(system["name"], system["merit"], system["std"]) for system in about["systems"]]
        if found := about.get("compared"):
            systems.append((f"{found['recipe'] or 'trained'} network, {found['protocol']}", found["merit"], None))
        identity = about["identity"]
        # What sets it apart from the paper's way.
        unlike = [identity["classifier"]] if identity["classifier"] != "svm" else []
        unlike += [] if identity["normalize"] == "l2" else [identity["normalize"]]
        unlike += [] if identity["flip"] else ["no flip"]
        result = Result("transfer", path, identity["data"], identity["protocol"], about=about)
        return [
            replace(result, metrics={"merit": Mean(merit, std)}, name=", ".join([name, *unlike]))
            for name, merit, std in systems
        ]
