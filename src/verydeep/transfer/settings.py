"""What may be chosen about a transfer, checked once, recorded with its result."""

from dataclasses import asdict, dataclass
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.nets.config import check_choices
from verydeep.transfer.baselines import BASELINES
from verydeep.transfer.linear import Kind


@dataclass(frozen=True)
class Settings:
    """Choices beside network, data and protocol; None is the protocol's own.

    Attributes
    ----------
    layer : str, optional
        One of the network's `layer_names`; by default `usual_layer`'s.
    scales : tuple of int, optional
        Q in pixels.
    aggregate : {"mean", "stack", "max"}, optional
        Over the scales.
    flip : bool
        Whether descriptors are averaged over the mirror image.
    normalize : {"l2", "l2-scales", "l2-whole", "none"}
        See `combine`.
    classifier : {"svm", "logistic"}
        liblinear's SVM or logistic regression.
    balanced : bool
        Whether classes count the same, whatever their number of images.
    baseline : {"random", "pixels", "hog"}, optional
        In place of the network's descriptor.
    folds : int, optional
        For a folder: so many stratified folds in place of the hold-out.
    seed : int
        Of the random splits.
    """

    layer: str | None = None
    scales: tuple[int, ...] | None = None
    aggregate: str | None = None
    flip: bool = True
    normalize: str = "l2"
    classifier: Kind = "svm"
    balanced: bool = True
    baseline: str | None = None
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self.aggregate or "mean", self.normalize)
        if self.classifier not in ("svm", "logistic"):
            raise UserError(f"classifier {self.classifier!r}: expected svm or logistic")
        if self.baseline is not None and self.baseline not in BASELINES:
            raise UserError(f"baseline {self.baseline!r}: expected one of {', '.join(BASELINES)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as JSON-able values."""
        return {**asdict(self), "scales": list(self.scales) if self.scales else None}


def parse_scales(text: str) -> tuple[int, ...]:
    """Read scales such as ``256,384,512``; UserError where the text is none."""
    try:
        scales = tuple(int(word) for word in text.split(","))
    except ValueError:
        scales = ()
    if not scales or min(scales) < 1 or len(set(scales)) < len(scales):
        raise UserError(f"--scales {text}: expected whole numbers with commas between, each once, such as 256,384,512")
    return scales
