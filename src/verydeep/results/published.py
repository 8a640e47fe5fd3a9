"""The paper's figures as data: Tables 3 to 12 of arXiv:1409.1556v6, in %, and which systems they are of.

Written the paper's way: S is the smallest image side in training, fixed (256, 256) or drawn from a range (256, 512); Q
are the smallest sides in testing. Errors of Tables 3 to 10 are on ILSVRC-2012's validation set of 50,000 images, which
the paper tests on; those called `_test` were scored by the challenge's server. A figure that the paper does not give
is not there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from verydeep.evaluation.protocol import Kind

SOURCE = "Simonyan & Zisserman, arXiv:1409.1556v6 (ICLR 2015)"
DATA = "ilsvrc-2012"

Scales = tuple[int, int]

# The three kinds of training scale of the paper: small, large, and jittered between them.
SMALL: Scales = (256, 256)
LARGE: Scales = (384, 384)
JITTER: Scales = (256, 512)

# Section 3.2: a network trained at a fixed S is tested at S - 32, S, S + 32.
MULTI = {SMALL: (224, 256, 288), LARGE: (352, 384, 416), JITTER: (256, 384, 512)}


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
    """One row of a table: a system by its networks and how these are tested, or by its name, and its figures."""

    figures: Mapping[str, float]
    members: tuple[Member, ...] = ()
    method: Kind = "dense"
    name: str = ""


SUBMISSION = (
    Member("D", SMALL, MULTI[SMALL]),
    Member("D", LARGE, MULTI[LARGE]),
    Member("D", JITTER, MULTI[JITTER], tuned="fc"),
    Member("C", SMALL, MULTI[SMALL]),
    Member("C", LARGE, MULTI[LARGE]),
    Member("E", SMALL, MULTI[SMALL]),
    Member("E", LARGE, MULTI[LARGE]),
)
"""The seven networks of the ILSVRC submission."""
POST_SUBMISSION = (Member("D", JITTER, MULTI[JITTER]), Member("E", JITTER, MULTI[JITTER]))


def _errors(top1: float | None, top5: float | None, top5_test: float | None = None) -> dict[str, float]:
    given = {"top1": top1, "top5": top5, "top5_test": top5_test}
    return {name: value for name, value in given.items() if value is not None}


def _single(letter: str, train: Scales, test: int, *errors: float) -> Row:
    return Row(_errors(*errors), (Member(letter, train, (test,)),))


def _several(letter: str, train: Scales, *errors: float, method: Kind = "dense") -> Row:
    return Row(_errors(*errors), (Member(letter, train, MULTI[train]),), method)


def _boxes(regression: str, tuned: str, error: float) -> Row:
    return Row({"given_class": error}, (Member("D", LARGE, (384,), tuned, regression),), "center")


def _localization(top5: float, top5_test: float | None, *networks: tuple[Scales, tuple[int, ...]]) -> Row:
    return Row(_errors(None, top5, top5_test), tuple(Member("D", *network, "all", "pcr") for network in networks))


def _compared(name: str, *errors: float | None) -> Row:
    return Row(_errors(*errors), name=name)


def _transferred(name: str, **figures: Any) -> Row:
    """Return a row of Table 11; a pair is a mean over random splits and its standard deviation."""
    flat = {key: value if isinstance(value, float) else value[0] for key, value in figures.items()}
    spreads = {f"{key}_std": value[1] for key, value in figures.items() if not isinstance(value, float)}
    return Row({**flat, **spreads}, name=name)


TABLES: Mapping[str, tuple[Row, ...]] = {
    # A single test scale.
    "3": (
        _single("A", SMALL, 256, 29.6, 10.4),
        _single("A-LRN", SMALL, 256, 29.7, 10.5),
        _single("B", SMALL, 256, 28.7, 9.9),
        _single("C", SMALL, 256, 28.1, 9.4),
        _single("C", LARGE, 384, 28.1, 9.3),
        _single("C", JITTER, 384, 27.3, 8.8),
        _single("D", SMALL, 256, 27.0, 8.8),
        _single("D", LARGE, 384, 26.8, 8.7),
        _single("D", JITTER, 384, 25.6, 8.1),
        _single("E", SMALL, 256, 27.3, 9.0),
        _single("E", LARGE, 384, 26.9, 8.7),
        _single("E", JITTER, 384, 25.5, 8.0),
    ),
    # Several test scales.
    "4": (
        _several("B", SMALL, 28.2, 9.6),
        _several("C", SMALL, 27.7, 9.2),
        _several("C", LARGE, 27.8, 9.2),
        _several("C", JITTER, 26.3, 8.2),
        _several("D", SMALL, 26.6, 8.6),
        _several("D", LARGE, 26.5, 8.6),
        _several("D", JITTER, 24.8, 7.5),
        _several("E", SMALL, 26.9, 8.7),
        _several("E", LARGE, 26.7, 8.6),
        _several("E", JITTER, 24.8, 7.5),
    ),
    # Ways of testing.
    "5": (
        _several("D", JITTER, 24.8, 7.5),
        _several("D", JITTER, 24.6, 7.5, method="crops"),
        _several("D", JITTER, 24.4, 7.2, method="dense+crops"),
        _several("E", JITTER, 24.8, 7.5),
        _several("E", JITTER, 24.6, 7.4, method="crops"),
        _several("E", JITTER, 24.4, 7.1, method="dense+crops"),
    ),
    # Fusion: the members' posteriors are averaged (section 4.4).
    "6": (
        Row(_errors(24.7, 7.5, 7.3), SUBMISSION),
        Row(_errors(24.0, 7.1, 7.0), POST_SUBMISSION),
        Row(_errors(23.9, 7.2), POST_SUBMISSION, "crops"),
        Row(_errors(23.7, 6.8, 6.8), POST_SUBMISSION, "dense+crops"),
    ),
    # Comparison with other systems. The paper gives GoogLeNet one figure for both sets.
    "7": (
        _compared("VGG, 2 nets, multi-crop & dense", 23.7, 6.8, 6.8),
        _compared("VGG, 1 net, multi-crop & dense", 24.4, 7.1, 7.0),
        _compared("VGG, ILSVRC submission, 7 nets, dense", 24.7, 7.5, 7.3),
        _compared("GoogLeNet, 1 net", None, 7.9, 7.9),
        _compared("GoogLeNet, 7 nets", None, 6.7, 6.7),
        _compared("MSRA, 11 nets", None, None, 8.1),
        _compared("MSRA, 1 net", 27.9, 9.1, 9.1),
        _compared("Clarifai, multiple nets", None, None, 11.7),
        _compared("Clarifai, 1 net", None, None, 12.5),
        _compared("Zeiler & Fergus, 6 nets", 36.0, 14.7, 14.8),
        _compared("Zeiler & Fergus, 1 net", 37.5, 16.0, 16.1),
        _compared("OverFeat, 7 nets", 34.0, 13.2, 13.6),
        _compared("OverFeat, 1 net", 35.7, 14.2),
        _compared("Krizhevsky et al., 5 nets", 38.1, 16.4, 16.4),
        _compared("Krizhevsky et al., 1 net", 40.7, 18.2),
    ),
    # Boxes of the true class (IoU below 0.5 is an error), one central crop; "all" with one box for all classes is not
    # reported. "fc" is the table's "1st and 2nd FC".
    "8": (_boxes("scr", "fc", 36.4), _boxes("pcr", "fc", 34.3), _boxes("pcr", "all", 33.1)),
    # Localization in full, top-5 error: boxes of all windows and networks merged.
    "9": (
        _localization(29.5, None, (SMALL, (256,))),
        _localization(28.2, 26.7, (LARGE, (384,))),
        _localization(27.5, None, (LARGE, (352, 384))),
        _localization(26.9, 25.3, (SMALL, (256,)), (LARGE, (352, 384))),
    ),
    # Comparison with other systems, top-5 localization error.
    "10": (
        _compared("VGG", None, 26.9, 25.3),
        _compared("GoogLeNet", None, None, 26.7),
        _compared("OverFeat", None, 30.0, 29.9),
        _compared("Krizhevsky et al.", None, None, 34.2),
    ),
    # Appendix B.2, by protocol of `verydeep transfer`: mean average precision (VOC) or mean class recall (Caltech).
    # "2000 classes": pre-trained on an extension of ILSVRC.
    "11": (
        _transferred("Zeiler & Fergus", voc2012=79.0, caltech101=(86.5, 0.5), caltech256=(74.2, 0.3)),
        _transferred("Chatfield et al.", voc2007=82.4, voc2012=83.2, caltech101=(88.4, 0.6), caltech256=(77.6, 0.1)),
        _transferred("He et al.", voc2007=82.4, caltech101=(93.4, 0.5)),
        _transferred("Wei et al.", voc2007=81.5, voc2012=81.7),
        _transferred("Wei et al., 2000 classes", voc2007=85.2, voc2012=90.3),
        _transferred("VGG D", voc2007=89.3, voc2012=89.0, caltech101=(91.8, 1.0), caltech256=(85.0, 0.2)),
        _transferred("VGG E", voc2007=89.3, voc2012=89.0, caltech101=(92.3, 0.5), caltech256=(85.1, 0.3)),
        _transferred("VGG D & E", voc2007=89.7, voc2012=89.3, caltech101=(92.7, 0.5), caltech256=(86.2, 0.3)),
    ),
    # VOC-2012 action classification, mean average precision. "1512 classes": of pre-training.
    "12": tuple(
        Row({"voc2012-action": precision}, name=name)
        for name, precision in (
            ("Oquab et al., 1512 classes", 70.2),
            ("Gkioxari et al.", 73.6),
            ("Hoai", 76.3),
            ("VGG D & E, image", 79.2),
            ("VGG D & E, image + person box", 84.0),
        )
    ),
}

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
