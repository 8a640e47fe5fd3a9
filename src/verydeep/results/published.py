"""The paper's figures, read from `published.toml`, which says what stands there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verydeep.inference.protocol import Kind
from verydeep.training.recipe import parse_toml

SOURCE = "Simonyan & Zisserman, arXiv:1409.1556v6 (ICLR 2015)"
DATA = "ilsvrc-2012"

Scales = tuple[int, int]

# The three kinds of training scale of the paper: small, large, and jittered between them.
SMALL: Scales = (256, 256)
LARGE: Scales = (384, 384)
JITTER: Scales = (256, 512)


@dataclass(frozen=True)
class Member:
    """One network of a system: the paper's letter, least and greatest S, each Q.

    `tuned` is `fc` where the last training was of the fully connected layers alone; `regression` says of a localizer
    whether it has one box for all classes (`scr`) or one for each (`pcr`).
    """

    configuration: str
    train: Scales
    test: tuple[int, ...]
    tuned: str = "all"
    regression: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a table: figures in % by their name, of networks tested by a method, or of a system with a name.

    A figure that the paper does not give is not there; `x_std` is the standard deviation of `x` over random splits.
    """

    metrics: Mapping[str, float]
    members: tuple[Member, ...]
    method: Kind
    name: str


def _member(text: str) -> Member:
    configuration, train, test, *more = text.strip().split("/")
    least, _, most = train.partition("-")
    return Member(configuration, (int(least), int(most or least)), tuple(map(int, test.split(","))), *more)


def _row(columns: Sequence[str], values: Sequence[Any]) -> Row:
    cells = dict(zip(columns, values, strict=True))
    members = tuple(map(_member, cells.pop("system").split("+"))) if "system" in cells else ()
    method, name = cells.pop("method", "dense"), cells.pop("name", "")
    pairs = {key: value if isinstance(value, list) else [value] for key, value in cells.items() if value != "-"}
    metrics = {
        key + end: figure for key, pair in pairs.items() for end, figure in zip(("", "_std"), pair, strict=False)
    }
    return Row(metrics, members, method, name)


def _read(path: Path) -> dict[str, tuple[Row, ...]]:
    tables = parse_toml(path.read_text(encoding="utf-8"), str(path))
    return {number: tuple(_row(table["columns"], row) for row in table["rows"]) for number, table in tables.items()}


TABLES = _read(Path(__file__).with_name("published.toml"))
"""Rows in the paper's order, by the table's number."""

SUBMISSION, POST_SUBMISSION = (TABLES["6"][place].members for place in (0, 1))
"""The seven networks of the ILSVRC submission, and the two from after it."""

SYSTEMS = {
    "alexnet": "Krizhevsky et al., 1 net",
    "zfnet": "Zeiler & Fergus, 1 net",
    "overfeat-fast": "OverFeat, 1 net",
    "overfeat-accurate": "OverFeat, 1 net",
    "googlenet": "GoogLeNet, 1 net",
    "E": "VGG, 1 net, multi-crop & dense",
}
"""Table 7's name of what a single network is, by its configuration; of E by `dense+crops`."""

# Section 4.1: B with each pair of 3x3 layers replaced by one 5x5, tested on a center crop, is worse by this
# many percentage points of top-1 error. The two errors themselves are not given.
SHALLOW_B_LOSS = 7.0

# Protocol of a transfer: how many classes the paper's data set has, and how its column is headed.
TRANSFERS = {
    "voc2007": (20, "VOC-2007, mAP"),
    "voc2012": (20, "VOC-2012, mAP"),
    "caltech101": (102, "Caltech-101, recall"),
    "caltech256": (257, "Caltech-256, recall"),
    "voc2012-action": (10, "VOC-2012 action, mAP"),
}


def rows(*tables: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of some tables with their table's number."""
    return ((number, row) for number in tables for row in TABLES[number])
