"""What may be chosen about a test beside its protocol, and is recorded with its result."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from verydeep.basics.errors import UserError

Softmax = Literal["image", "location"]
Pool = Literal["mean", "max"]
PoolRounding = Literal["up", "down"]
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "softmax": get_args(Softmax),
    "pool": get_args(Pool),
    "pool_rounding": (None, *get_args(PoolRounding)),
}


@dataclass(frozen=True)
class Options:
    """How the score map of a view becomes its posterior; the defaults are the reading of the paper followed here.

    A crop as large as the network's window has one score, for which none of them matters. UserError for a value that
    is not named here.

    Parameters
    ----------
    softmax : {"image", "location"}
        ``image``: soft-max of the spatially pooled scores (paper section 3.2); ``location``: soft-max at every
        location of the score map, then their mean.
    pool : {"mean", "max"}
        Spatial pooling of the scores; ``max`` of each class is OverFeat's. Not together with
        ``softmax="location"``, for the greatest posteriors of the classes are no distribution.
    pool_rounding : {"up", "down"}, optional
        How the max-pools' output sizes are rounded, in place of the network's own way.
    """

    softmax: Softmax = "image"
    pool: Pool = "mean"
    pool_rounding: PoolRounding | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                allowed = " or ".join(choice for choice in choices if choice)
                raise UserError(f"option {name.replace('_', '-')} is {getattr(self, name)!r}, expected {allowed}")
        if self.softmax == "location" and self.pool == "max":
            raise UserError("softmax at each location cannot be pooled by max: no distribution comes out; choose one")

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as JSON-able values."""
        return asdict(self)
