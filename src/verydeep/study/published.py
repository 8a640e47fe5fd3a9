"""The paper's figures as data: Tables 3 to 10 of arXiv:1409.1556v6, errors in % on ILSVRC-2012; Tables 11 and 12.

Written the paper's way: S is the smallest image side in training, fixed (256, 256) or drawn from a range
(256, 512); Q are the smallest sides in testing. "val" is the validation set of 50,000 images, which the paper
tests on; "test" was scored by the challenge's server. `None` stands where the paper gives no figure.
"""

from dataclasses import dataclass

SOURCE = "Simonyan & Zisserman, arXiv:1409.1556v6 (ICLR 2015)"

Scales = tuple[int, int]

# The three kinds of training scale of the paper: small, large, and jittered between them.
SMALL: Scales = (256, 256)
LARGE: Scales = (384, 384)
JITTER: Scales = (256, 512)

# Section 3.2: a network trained at a fixed S is tested at S - 32, S, S + 32.
MULTI_SMALL = (224, 256, 288)
MULTI_LARGE = (352, 384, 416)
MULTI_JITTER = (256, 384, 512)


@dataclass(frozen=True)
class Result:
    """One network's errors by one way of testing.

    Attributes
    ----------
    configuration : str
        The paper's letter.
    train : tuple of int
        Least and greatest S.
    test : tuple of int
        Each Q; posteriors are averaged over them.
    top1, top5 : float
        Error on the validation set, %.
    method : {"dense", "crops", "dense+crops"}
        Dense evaluation of the whole image, 50 crops a scale, or the mean of both.
    """

    configuration: str
    train: Scales
    test: tuple[int, ...]
    top1: float
    top5: float
    method: str = "dense"


@dataclass(frozen=True)
class Member:
    """One network of an ensemble; `fc_only` says that its jitter training tuned the FC layers alone."""

    configuration: str
    train: Scales
    test: tuple[int, ...]
    fc_only: bool = False


@dataclass(frozen=True)
class Fusion:
    """An ensemble's errors: the members' posteriors are averaged (section 4.4)."""

    title: str
    members: tuple[Member, ...]
    method: str
    top1: float
    top5: float
    top5_test: float | None


@dataclass(frozen=True)
class Comparison:
    """One row of Table 7 or 10, systems trained without outside data; errors in %."""

    title: str
    top1: float | None
    top5: float | None
    top5_test: float | None


# Table 3: a single test scale.
TABLE_3 = (
    Result("A", SMALL, (256,), 29.6, 10.4),
    Result("A-LRN", SMALL, (256,), 29.7, 10.5),
    Result("B", SMALL, (256,), 28.7, 9.9),
    Result("C", SMALL, (256,), 28.1, 9.4),
    Result("C", LARGE, (384,), 28.1, 9.3),
    Result("C", JITTER, (384,), 27.3, 8.8),
    Result("D", SMALL, (256,), 27.0, 8.8),
    Result("D", LARGE, (384,), 26.8, 8.7),
    Result("D", JITTER, (384,), 25.6, 8.1),
    Result("E", SMALL, (256,), 27.3, 9.0),
    Result("E", LARGE, (384,), 26.9, 8.7),
    Result("E", JITTER, (384,), 25.5, 8.0),
)

# Table 4: several test scales.
TABLE_4 = (
    Result("B", SMALL, MULTI_SMALL, 28.2, 9.6),
    Result("C", SMALL, MULTI_SMALL, 27.7, 9.2),
    Result("C", LARGE, MULTI_LARGE, 27.8, 9.2),
    Result("C", JITTER, MULTI_JITTER, 26.3, 8.2),
    Result("D", SMALL, MULTI_SMALL, 26.6, 8.6),
    Result("D", LARGE, MULTI_LARGE, 26.5, 8.6),
    Result("D", JITTER, MULTI_JITTER, 24.8, 7.5),
    Result("E", SMALL, MULTI_SMALL, 26.9, 8.7),
    Result("E", LARGE, MULTI_LARGE, 26.7, 8.6),
    Result("E", JITTER, MULTI_JITTER, 24.8, 7.5),
)

# Table 5: ways of testing.
TABLE_5 = (
    Result("D", JITTER, MULTI_JITTER, 24.8, 7.5, "dense"),
    Result("D", JITTER, MULTI_JITTER, 24.6, 7.5, "crops"),
    Result("D", JITTER, MULTI_JITTER, 24.4, 7.2, "dense+crops"),
    Result("E", JITTER, MULTI_JITTER, 24.8, 7.5, "dense"),
    Result("E", JITTER, MULTI_JITTER, 24.6, 7.4, "crops"),
    Result("E", JITTER, MULTI_JITTER, 24.4, 7.1, "dense+crops"),
)

SUBMISSION = (
    Member("D", SMALL, MULTI_SMALL),
    Member("D", LARGE, MULTI_LARGE),
    Member("D", JITTER, MULTI_JITTER, fc_only=True),
    Member("C", SMALL, MULTI_SMALL),
    Member("C", LARGE, MULTI_LARGE),
    Member("E", SMALL, MULTI_SMALL),
    Member("E", LARGE, MULTI_LARGE),
)
POST_SUBMISSION = (Member("D", JITTER, MULTI_JITTER), Member("E", JITTER, MULTI_JITTER))

# Table 6: fusion of networks.
TABLE_6 = (
    Fusion("ILSVRC submission", SUBMISSION, "dense", 24.7, 7.5, 7.3),
    Fusion("post-submission", POST_SUBMISSION, "dense", 24.0, 7.1, 7.0),
    Fusion("post-submission", POST_SUBMISSION, "crops", 23.9, 7.2, None),
    Fusion("post-submission", POST_SUBMISSION, "dense+crops", 23.7, 6.8, 6.8),
)

# Table 7: comparison with other systems. The paper gives GoogLeNet one figure for both sets.
TABLE_7 = (
    Comparison("VGG, 2 nets, multi-crop & dense", 23.7, 6.8, 6.8),
    Comparison("VGG, 1 net, multi-crop & dense", 24.4, 7.1, 7.0),
    Comparison("VGG, ILSVRC submission, 7 nets, dense", 24.7, 7.5, 7.3),
    Comparison("GoogLeNet, 1 net", None, 7.9, 7.9),
    Comparison("GoogLeNet, 7 nets", None, 6.7, 6.7),
    Comparison("MSRA, 11 nets", None, None, 8.1),
    Comparison("MSRA, 1 net", 27.9, 9.1, 9.1),
    Comparison("Clarifai, multiple nets", None, None, 11.7),
    Comparison("Clarifai, 1 net", None, None, 12.5),
    Comparison("Zeiler & Fergus, 6 nets", 36.0, 14.7, 14.8),
    Comparison("Zeiler & Fergus, 1 net", 37.5, 16.0, 16.1),
    Comparison("OverFeat, 7 nets", 34.0, 13.2, 13.6),
    Comparison("OverFeat, 1 net", 35.7, 14.2, None),
    Comparison("Krizhevsky et al., 5 nets", 38.1, 16.4, 16.4),
    Comparison("Krizhevsky et al., 1 net", 40.7, 18.2, None),
)

# Section 4.1: B with each pair of 3x3 layers replaced by one 5x5, tested on a center crop, is worse by this
# many percentage points of top-1 error. The two errors themselves are not given.
SHALLOW_B_LOSS = 7.0


@dataclass(frozen=True)
class BoxSettings:
    """One row of Table 8: D at S = 384, one central crop, the box of the true class.

    Attributes
    ----------
    regression : {"scr", "pcr"}
        One box for all classes, or one for each.
    trained_layers : {"fc", "all"}
        Fully connected layers alone (the table's "1st and 2nd FC"), or all.
    error : float
        Share of boxes with an IoU below 0.5, %, on the validation set.
    """

    regression: str
    trained_layers: str
    error: float


@dataclass(frozen=True)
class BoxResult:
    """One row of Table 9: top-5 localization error in % of merged boxes, all layers tuned, a box for each class.

    Attributes
    ----------
    networks : tuple of (Scales, tuple of int)
        S and the Q of each network that is merged.
    top5 : float
        On the validation set.
    top5_test : float or None
        On the test set.
    """

    networks: tuple[tuple[Scales, tuple[int, ...]], ...]
    top5: float
    top5_test: float | None


# Table 8: ways of training; "all" with one box for all classes is not reported.
TABLE_8 = (BoxSettings("scr", "fc", 36.4), BoxSettings("pcr", "fc", 34.3), BoxSettings("pcr", "all", 33.1))

# Table 9: localization in full.
TABLE_9 = (
    BoxResult(((SMALL, (256,)),), 29.5, None),
    BoxResult(((LARGE, (384,)),), 28.2, 26.7),
    BoxResult(((LARGE, (352, 384)),), 27.5, None),
    BoxResult(((SMALL, (256,)), (LARGE, (352, 384))), 26.9, 25.3),
)

# Table 10: comparison with other systems, top-5 localization error.
TABLE_10 = (
    Comparison("VGG", None, 26.9, 25.3),
    Comparison("GoogLeNet", None, None, 26.7),
    Comparison("OverFeat", None, 30.0, 29.9),
    Comparison("Krizhevsky et al.", None, None, 34.2),
)


@dataclass(frozen=True)
class Transferred:
    """One row of Table 11: descriptors and linear classifiers on other data sets.

    Attributes
    ----------
    title : str
        The method.
    voc2007, voc2012 : float or None
        Mean average precision, %.
    caltech101, caltech256 : (float, float) or None
        Mean class recall and its standard deviation over random splits, %.
    """

    title: str
    voc2007: float | None
    voc2012: float | None
    caltech101: tuple[float, float] | None
    caltech256: tuple[float, float] | None


# Table 11 (appendix B.2). "2000 classes": pre-trained on an extension of ILSVRC.
TABLE_11 = (
    Transferred("Zeiler & Fergus", None, 79.0, (86.5, 0.5), (74.2, 0.3)),
    Transferred("Chatfield et al.", 82.4, 83.2, (88.4, 0.6), (77.6, 0.1)),
    Transferred("He et al.", 82.4, None, (93.4, 0.5), None),
    Transferred("Wei et al.", 81.5, 81.7, None, None),
    Transferred("Wei et al., 2000 classes", 85.2, 90.3, None, None),
    Transferred("VGG D", 89.3, 89.0, (91.8, 1.0), (85.0, 0.2)),
    Transferred("VGG E", 89.3, 89.0, (92.3, 0.5), (85.1, 0.3)),
    Transferred("VGG D & E", 89.7, 89.3, (92.7, 0.5), (86.2, 0.3)),
)

# Table 12: VOC-2012 action classification, mean average precision, %. "1512 classes": of pre-training.
TABLE_12 = (
    ("Oquab et al., 1512 classes", 70.2),
    ("Gkioxari et al.", 73.6),
    ("Hoai", 76.3),
    ("VGG D & E, image", 79.2),
    ("VGG D & E, image + person box", 84.0),
)
