"""What a network is: everything that decides its layers, their input and what its outputs mean, as one value."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from verydeep.basics.errors import UserError
from verydeep.nets.configurations import Configuration, configuration
from verydeep.nets.preprocessing import Preprocessing

STRIDE = 32
"""Pixels between neighboring cells of a whole network's score map: five pools of stride 2."""

Regression = Literal["scr", "pcr"]
"""What a localizer's fc8 gives (paper: appendix A.1): one box for all classes, or one for each class."""


@dataclass(frozen=True)
class NetworkConfig:
    """A network without its weights.

    Attributes
    ----------
    configuration : Configuration
        Which convolutions there are.
    classes : tuple of str
        Class names, in the order of the scores. None at all make a trunk, which gives features and no scores.
    width : float
        Factor on the channels of every convolution; 1 is the paper's.
    batch_norm : bool
        Whether batch norm follows every convolution; the paper has none.
    image_size : int
        Side of fc6's window in pixels, a multiple of 32: 224 makes fc6 a 7x7 convolution, 64 a 2x2 one.
    fc_width : int
        Channels of fc6 and fc7; 4096 in the paper.
    dropout : float
        Rate at which outputs of fc6 and fc7 are zeroed in training.
    lrn_alpha : float
        Constant of A-LRN's normalization, in Krizhevsky's written formula.
    preprocessing : Preprocessing
        How images become the network's input.
    regression : {"scr", "pcr"}, optional
        None: fc8 gives a score for each class. ``scr``: center x, center y, width and height of one box for all
        classes; ``pcr``: of one box for each class, class after class.
    trunk : str, optional
        The layer that the network is cut behind, such as `pool5` or `conv5_3.relu`; None for the paper's whole. With
        classes a 1x1 `fc8` follows it.

    Raises
    ------
    UserError
        Sizes that make no network.
    """

    configuration: Configuration
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

    def __post_init__(self) -> None:
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise UserError(f"image_size is {self.image_size}, expected a multiple of {STRIDE}, at least {STRIDE}")
        nothing = not self.classes and self.trunk is None
        if not self.width > 0 or self.fc_width < 1 or nothing or not 0 <= self.dropout < 1:
            raise UserError(
                f"width {self.width}, fc_width {self.fc_width}, {len(self.classes)} classes, dropout {self.dropout}: "
                "expected the first three above 0 and dropout in [0, 1)"
            )

    @property
    def outputs(self) -> int:
        """Channels of fc8."""
        return {None: len(self.classes), "scr": 4, "pcr": 4 * len(self.classes)}[self.regression]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        values = {**asdict(self), "configuration": self.configuration.name, "classes": list(self.classes)}
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
        later = {key: values[key] for key in ("regression", "trunk") if key in values}
        return cls(
            configuration(values["configuration"]),
            tuple(values["classes"]),
            **{key: values[key] for key in ("width", "batch_norm", "image_size", "fc_width", "dropout", "lrn_alpha")},
            preprocessing=Preprocessing.from_dict(values["preprocessing"]),
            **later,
        )
