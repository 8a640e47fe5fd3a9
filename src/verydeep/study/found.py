"""The posteriors files of a study, and what their metadata says of the network and the test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.evaluation.metrics import ErrorRate, error_rate
from verydeep.evaluation.options import Options
from verydeep.evaluation.posteriors import Posteriors
from verydeep.evaluation.protocol import Protocol
from verydeep.localization.guesses import holds_boxes
from verydeep.nets.configurations import CONFIGURATIONS
from verydeep.study.published import Scales


class NothingFoundError(UserError):
    """A folder without posteriors of networks' tests; it may hold results of another kind."""


ORDER = list(CONFIGURATIONS)
FC_ONLY, BATCH_NORM = "FC only", "batch norm"
PLAIN = Options().to_dict()


@dataclass(frozen=True)
class Measured:
    """Errors of one system on one set of images.

    Attributes
    ----------
    images : int
        Number of labeled images.
    top1, top5 : ErrorRate
        With 95 % bootstrap intervals; no top-5 error where there are no more than five classes.
    """

    images: int
    top1: ErrorRate
    top5: ErrorRate | None


@dataclass(frozen=True)
class Network:
    """A trained network, as posteriors files tell it from others.

    Attributes
    ----------
    configuration : str
        The paper's letter.
    train : (int, int)
        Least and greatest S.
    variant : tuple of str
        Empty for the paper's; else what sets it apart: `FC only`, `batch norm`.
    weights : str
        Hash of its weights file.
    """

    configuration: str
    train: Scales
    variant: tuple[str, ...]
    weights: str

    @property
    def kind(self) -> tuple[str, Scales, tuple[str, ...]]:
        """What it is, whatever its weights."""
        return self.configuration, self.train, self.variant

    @property
    def place(self) -> tuple[bool, int, bool, Scales, tuple[str, ...]]:
        """Where it stands in a table: variants last, then by depth, fixed S before a range."""
        return (
            bool(self.variant),
            ORDER.index(self.configuration),
            self.train[0] < self.train[1],
            self.train,
            self.variant,
        )


@dataclass(frozen=True)
class Tested:
    """One posteriors file and its errors."""

    path: Path
    network: Network
    protocol: Protocol
    measured: Measured


def find(study: Path) -> dict[tuple[str, str], list[Tested]]:
    """Return the posteriors in a folder and below that belong in a table, by (data set, images).

    Left out are fusions, networks of unknown training scales, images without labels, and tests with other options
    than the paper's.

    Raises
    ------
    UserError
        None there, or a damaged file.
    """
    sets: dict[tuple[str, str], list[Tested]] = {}
    for path in files_in(study):
        if holds_boxes(path):
            continue
        posteriors = Posteriors.read(path)
        about = posteriors.metadata
        if _belongs(about) and (posteriors.labels >= 0).any():
            images = f"{about['split']}, {about['limit']}" if about.get("limit") else str(about["split"])
            tested = Tested(path, _network(about), Protocol.parse(about["protocol"]), measure(posteriors))
            sets.setdefault((about["data"], images), []).append(tested)
    if not sets:
        raise NothingFoundError(
            f"{study}: none of its posteriors belongs in a table (that takes labels, the paper's options, and a "
            "network whose training scales are known); verydeep reproduce writes such files"
        )
    return sets


def files_in(study: Path) -> list[Path]:
    """Return the Parquet files in a folder and below; UserError where there are none."""
    if not study.is_dir():
        raise UserError(f"{study}: no such folder; give the --out of verydeep reproduce or verydeep evaluate")
    files = sorted(study.rglob("*.parquet"))
    # What an unfinished evaluation keeps stands in hidden folders.
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(study).parts)]
    if not files:
        raise NothingFoundError(f"{study}: no posteriors (*.parquet) in it; verydeep reproduce and evaluate write them")
    return files


def _belongs(about: dict[str, Any]) -> bool:
    options = about.get("options") or {}
    plain = all(options.get(key) == PLAIN[key] for key in ("softmax", "pool"))
    own = "up" if (about.get("preprocessing") or {}).get("pool_round_up") else "down"
    plain = plain and options.get("pool_rounding") in (None, own)
    trained = bool(about.get("train_scales")) and about.get("recipe") != "transfer"  # which trains no network
    return plain and "fused" not in about and trained and about["configuration"] in ORDER


def _network(about: dict[str, Any]) -> Network:
    unlike = {FC_ONLY: about.get("trained_layers") == "fc", BATCH_NORM: about.get("batch_norm")}
    variant = tuple(name for name, is_so in unlike.items() if is_so)
    least, most = about["train_scales"]
    return Network(about["configuration"], (least, most), variant, about["weights_hash"])


def measure(posteriors: Posteriors) -> Measured:
    """Return the errors of posteriors with at least one label."""
    top5 = error_rate(posteriors, 5) if len(posteriors.classes) > 5 else None
    return Measured(int((posteriors.labels >= 0).sum()), error_rate(posteriors, 1), top5)
