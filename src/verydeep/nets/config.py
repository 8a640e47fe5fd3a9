"""What a network is: everything that decides its layers, their input and what its outputs mean, as one value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypedDict, get_args

from verydeep.basics.errors import UserError
from verydeep.nets.architectures import Architecture
from verydeep.nets.configurations import Configuration, configuration
from verydeep.nets.preprocessing import Preprocessing

STRIDE = 32
"""Pixels between neighboring cells of a whole network's score map: five pools of stride 2."""

Regression = Literal["scr", "pcr"]
"""What a localizer's fc8 gives (paper: appendix A.1): one box for all classes, or one for each class."""

Aggregate = Literal["mean", "stack", "max"]
Normalize = Literal["l2", "l2-scales", "l2-whole", "none"]


def check_choices(aggregate: str, normalize: str) -> None:
    """Raise UserError for a word that is no choice."""
    for name, value, choices in (
        ("aggregate", aggregate, get_args(Aggregate)),
        ("normalize", normalize, get_args(Normalize)),
    ):
        if value not in choices:
            raise UserError(f"{name} is {value!r}, expected {', '.join(choices[:-1])} or {choices[-1]}")


@dataclass(frozen=True)
class DescriptorConfig:
    """The descriptor of pictures that a network's `fc8` is a linear classifier on (paper: appendix B).

    UserError: a word that is no choice, scales that are none or not in order, or a norm that is not above 0.

    Attributes
    ----------
    scales : tuple of int
        Q, smallest sides in pixels that pictures are rescaled to, in ascending order.
    aggregate : {"mean", "stack", "max"}
        Over the scales; stacked ones have weights of their own each, one block of fc8's inputs after another.
    flip : bool
        Whether the mean over places is one over the mirror image, too.
    normalize : {"l2", "l2-scales", "l2-whole", "none"}
        What is brought to unit Euclidean norm: the descriptor (`l2` and, of one network the same, `l2-whole`), each
        scale's before they are aggregated, nothing.
    norm : float
        Mean norm of one scale's descriptor over the training pictures: what stands in for a picture's own norm
        where the picture is never seen as a whole.
    """

    scales: tuple[int, ...]
    aggregate: Aggregate = "mean"
    flip: bool = True
    normalize: Normalize = "l2"
    norm: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self.aggregate, self.normalize)
        if not self.scales or list(self.scales) != sorted({*self.scales}) or self.scales[0] < 1:
            raise UserError(f"scales {list(self.scales)}: expected one or more above 0, each once, in ascending order")
        if not 0 < self.norm < float("inf"):
            raise UserError(f"norm is {self.norm}, expected a number above 0")

    @property
    def copies(self) -> int:
        """Scales that stand one behind the other in the descriptor."""
        return len(self.scales) if self.aggregate == "stack" else 1

    @property
    def share(self) -> float:
        """Factor on each of `copies` equal descriptors of norm 1 that makes one of them, as `normalize` has it."""
        return float(self.copies**-0.5) if self.normalize in ("l2", "l2-whole") else 1.0


SegmentationHead = Literal["32s", "16s", "8s"]
Padding = Literal["image", "map"]


@dataclass(frozen=True)
class SegmentationConfig:
    """How a network's score maps become a class for each pixel (Long, Shelhamer & Darrell 2015).

    UserError: a word that is no choice, or factors that do not fit the head.

    Attributes
    ----------
    head : {"32s", "16s", "8s"}
        Which maps the scores come from: the last one alone, also the one of stride 16, also the one of stride 8.
    padding : {"image", "map"}
        What makes the first fully connected layer fit everywhere: 99 pixels of zeros around the picture, which with
        the first convolution's own are the published 100; or zeros around that layer's input, at half the time.
    skip_scales : tuple of float
        Factors on the maps of stride 16 and 8 before they are scored; the published networks that are trained at once
        have 0.01 and 0.0001, those trained in stages 1.
    """

    head: SegmentationHead
    padding: Padding = "image"
    skip_scales: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("head", self.head, get_args(SegmentationHead)),
            ("padding", self.padding, get_args(Padding)),
        ):
            if value not in choices:
                raise UserError(f"segmentation: {name} is {value!r}, expected {', '.join(choices)}")
        if len(self.skip_scales) != 2 or not all(0 < scale < float("inf") for scale in self.skip_scales):
            raise UserError(f"segmentation: skip_scales is {list(self.skip_scales)}, expected two numbers above 0")


MOST_WIDTH, MOST_FC_WIDTH = 64, 1 << 20
"""Far beyond what anybody trains; a file that claims more is damaged."""


@dataclass(frozen=True)
class NetworkConfig:
    """A network without its weights.

    Attributes
    ----------
    configuration : Configuration or Architecture
        Which layers there are: one of the paper's networks, or of those that it compares with.
    classes : tuple of str
        Class names, in the order of the scores. None at all make a trunk, which gives features and no scores.
    width : float
        Factor on the channels of every convolution; 1 is the paper's. Of grouped convolutions each group has as many.
    batch_norm : bool
        Whether batch norm follows every convolution; the paper has none.
    image_size : int
        Side of the network's window in pixels, of the paper's a multiple of 32: 224 makes fc6 a 7x7 convolution, 64 a
        2x2 one.
    fc_width : int
        Channels of fc6 and fc7; 4096 in the paper. Of networks whose layers differ they are in proportion.
    dropout : float
        Rate at which outputs of fc6 and fc7, or what a network has in their place, are zeroed in training.
    lrn_alpha : float
        Constant of local response normalization, in Krizhevsky's written formula.
    preprocessing : Preprocessing
        How images become the network's input. Networks of other papers round their pools as these say, whatever is
        given here.
    regression : {"scr", "pcr"}, optional
        None: fc8 gives a score for each class. ``scr``: center x, center y, width and height of one box for all
        classes; ``pcr``: of one box for each class, class after class.
    trunk : str, optional
        The layer that the network is cut behind, such as `pool5` or `conv5_3.relu`; None for the paper's whole. With
        classes a 1x1 `fc8` follows it.
    descriptor : DescriptorConfig, optional
        What `fc8` classifies where that is no map but a descriptor made of maps.
    head : tuple of int, optional
        Channels of the fully connected layers before `fc8`, of any number, as in networks fine-tuned elsewhere; None
        for the paper's two of `fc_width`.
    auxiliary : bool
        Whether GoogLeNet has the classifiers beside it that help to train it; a network that is cut has none.
    segmentation : SegmentationConfig, optional
        How the scores become a class for each pixel; None for networks that answer for whole windows.

    Raises
    ------
    UserError
        Sizes that make no network, or a descriptor and no classes for it.
    """

    configuration: Configuration | Architecture
    classes: tuple[str, ...]
    width: float = 1.0
    batch_norm: bool = False
    image_size: int = 224
    fc_width: int = 4096
    dropout: float = 0.5
    lrn_alpha: float = 1e-4
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    regression: Regression | None = None
    trunk: str | None = None
    descriptor: DescriptorConfig | None = None
    head: tuple[int, ...] | None = None
    auxiliary: bool = False
    segmentation: SegmentationConfig | None = None

    def __post_init__(self) -> None:
        if self.head is not None and not all(0 < size <= MOST_FC_WIDTH for size in self.head):
            raise UserError(f"head is {list(self.head)}, expected sizes from 1 to {MOST_FC_WIDTH:,}")
        if isinstance(self.configuration, Architecture):
            self._check_others(self.configuration)
        elif self.image_size < STRIDE or self.image_size % STRIDE:
            raise UserError(f"image_size is {self.image_size}, expected a multiple of {STRIDE}, at least {STRIDE}")
        if self.auxiliary and not self.configuration.auxiliary:
            raise UserError(f"{self.configuration.name}: has no auxiliary classifiers; googlenet has")
        object.__setattr__(self, "auxiliary", self.auxiliary and self.trunk is None)
        nothing = not self.classes and self.trunk is None
        sizes = 0 < self.width <= MOST_WIDTH and 0 < self.fc_width <= MOST_FC_WIDTH
        if not sizes or nothing or not 0 <= self.dropout < 1:
            raise UserError(
                f"width {self.width}, fc_width {self.fc_width}, {len(self.classes)} classes, dropout {self.dropout}: "
                f"expected the first three above 0, width up to {MOST_WIDTH}, fc_width up to {MOST_FC_WIDTH:,}, and "
                "dropout in [0, 1)"
            )
        if self.descriptor and (not self.classes or self.regression):
            raise UserError("a descriptor is for a classifier's fc8; this network has none")
        if self.segmentation and (not self.classes or self.regression or self.descriptor):
            raise UserError("segmentation: needs classes, and neither boxes nor descriptors")

    def _check_others(self, architecture: Architecture) -> None:
        """Refuse what the paper's networks alone have, and let pools round as the network has it."""
        if self.regression or self.head is not None:
            what = "learns no boxes" if self.regression else "has no other head"
            raise UserError(f"{architecture.name}: {what}; the paper's networks do (A, A-LRN, B, C, D, E)")
        if self.image_size < 1:
            raise UserError(
                f"image_size is {self.image_size}, expected {architecture.image_size}, or some other above 0"
            )
        rounded = replace(self.preprocessing, pool_round_up=architecture.round_up)
        object.__setattr__(self, "preprocessing", rounded)

    @property
    def classifier(self) -> str:
        """Name of the layer whose outputs are the classes."""
        return self.configuration.classifier

    @property
    def outputs(self) -> int:
        """Channels of the classifier."""
        return {None: len(self.classes), "scr": 4, "pcr": 4 * len(self.classes)}[self.regression]

    @property
    def hidden(self) -> dict[str, int]:
        """Channels of the fully connected layers before `fc8`: `fc6`, `fc7`, and of longer heads `fc7_2` and so on."""
        sizes = (self.fc_width, self.fc_width) if self.head is None else self.head
        names = ["fc6", "fc7", *(f"fc7_{number}" for number in range(2, len(sizes)))]
        return dict(zip(names, sizes, strict=False))

    @property
    def described(self) -> str:
        """The layer that the classifier sees."""
        return self.trunk or self.configuration.described

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        values = {**asdict(self), "configuration": self.configuration.name, "classes": list(self.classes)}
        if self.descriptor:
            values["descriptor"]["scales"] = list(self.descriptor.scales)
        values["head"] = None if self.head is None else list(self.head)
        if self.segmentation:
            values["segmentation"]["skip_scales"] = list(self.segmentation.skip_scales)
        for key in ("head", "auxiliary", "segmentation"):  # which earlier versions do not know
            if not values[key] and values[key] != []:
                del values[key]
        return {**values, "preprocessing": self.preprocessing.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NetworkConfig":
        """Make the object from `to_dict`'s values; keys that came later may be missing.

        Raises
        ------
        KeyError, TypeError
            Values that `to_dict` does not give.
        UserError
            Unknown configuration, or sizes that make no network.
        """
        later = {key: values[key] for key in ("regression", "trunk", "auxiliary") if key in values}
        if values.get("descriptor") is not None:
            about = values["descriptor"]
            later["descriptor"] = DescriptorConfig(**{**about, "scales": tuple(about["scales"])})
        if values.get("head") is not None:
            later["head"] = tuple(values["head"])
        if values.get("segmentation") is not None:
            about = values["segmentation"]
            later["segmentation"] = SegmentationConfig(**{**about, "skip_scales": tuple(about["skip_scales"])})
        return cls(
            configuration(values["configuration"]),
            tuple(values["classes"]),
            **{key: values[key] for key in ("width", "batch_norm", "image_size", "fc_width", "dropout", "lrn_alpha")},
            preprocessing=Preprocessing.from_dict(values["preprocessing"]),
            **later,
        )


class NetworkOptions(TypedDict, total=False):
    """Fields of `NetworkConfig` as keywords of functions for users."""

    width: float
    batch_norm: bool
    image_size: int
    fc_width: int
    dropout: float
    lrn_alpha: float
    preprocessing: Preprocessing
    regression: Regression | None
    trunk: str | None
    head: tuple[int, ...] | None
    auxiliary: bool
    segmentation: SegmentationConfig | None
