"""What is known of how weights came to be: one value, written into weights files, posteriors, boxes and cards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from verydeep.basics.errors import UserError

VERSION = 1
"""Of what `RunInfo.to_dict` gives. Files from before there was one hold the same keys without it."""


@dataclass(frozen=True)
class RunInfo:
    """Where a network's weights come from. What is not known is None or empty.

    `split` is in words, `train_scales` the least and the greatest S in pixels, `trained_layers` `fc` or `all`,
    `engine` what ran the 3x3 convolutions in training (`native` or `torch`),
    `best_constant_box` (of localizers) the box that is right most often on the training images, four edges in [0, 1].
    `format`, `file` and `sha256` are of weights from other projects. `more` holds what no code reads, such as a
    transfer's choices.
    """

    net: str | None = None
    task: str | None = None
    regression: str | None = None
    reader: str | None = None
    on_bad_image: str | None = None
    init_from: str | None = None
    init_from_sha256: str | None = None
    data: str | None = None
    data_sha256: str | None = None
    split: str | None = None
    training_images: int | None = None
    training_boxes: int | None = None
    best_constant_box: tuple[float, ...] | None = None
    train_scales: tuple[int, int] | None = None
    recipe: str | None = None
    seed: int | None = None
    engine: str | None = None
    trained_layers: str | None = None
    untrained_layers: tuple[str, ...] = ()  # random numbers, as earlier versions filled up trunks with
    epochs: int | None = None
    multi_label: bool | None = None  # whether an image may have several classes, each with a posterior of its own
    format: str | None = None
    file: str | None = None
    sha256: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known as JSON has it, and the version of this."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "more"}
        known = {key: value for key, value in known.items() if value is not None and value != ()}
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
        return {"version": VERSION, **values, **self.more}

    @staticmethod
    def from_dict(values: Any) -> "RunInfo":
        """Read `to_dict`'s values, of this version or from before there was one; UserError where they are damaged."""
        if not isinstance(values, Mapping):
            raise UserError(f"provenance is {values!r}, expected a table")
        version = values.get("version", VERSION)
        if version != VERSION:
            raise UserError(f"provenance of version {version!r}, this version of verydeep reads {VERSION}")
        names = {f.name for f in fields(RunInfo)} - {"more"}
        known = {key: _checked(key, value) for key, value in values.items() if key in names and value is not None}
        more = {key: value for key, value in values.items() if key not in names and key != "version"}
        return RunInfo(**known, more=more)

    @staticmethod
    def of_test(metadata: Mapping[str, Any]) -> "RunInfo":
        """Return what a file of posteriors or boxes says of the network it tested.

        It stands under `run`; earlier versions wrote the few keys that tables need among the others. Of a fusion it is
        what its members have in common.
        """
        if members := [RunInfo.of_test(member) for member in metadata.get("fused") or ()]:
            first = {f.name: getattr(members[0], f.name) for f in fields(RunInfo)}
            return RunInfo(**{key: v for key, v in first.items() if all(getattr(m, key) == v for m in members)})
        earlier = ("train_scales", "recipe", "trained_layers", "best_constant_box")
        return RunInfo.from_dict(metadata.get("run", {key: metadata.get(key) for key in earlier}))


# Of fields that hold no text: how a message calls their values, how many there are (0: any number), of which types.
_LISTS: dict[str, tuple[str, int, tuple[type, ...]]] = {
    "train_scales": ("two whole numbers", 2, (int,)),
    "best_constant_box": ("four numbers", 4, (int, float)),
    "untrained_layers": ("names of layers", 0, (str,)),
}
_NUMBERS = dict.fromkeys(("training_images", "training_boxes", "seed", "epochs"), ("a whole number", int))
_SINGLE: dict[str, tuple[str, type]] = {**_NUMBERS, "multi_label": ("true or false", bool)}


def _checked(key: str, value: Any) -> Any:
    if key in _LISTS:
        words, count, types = _LISTS[key]
        if isinstance(value, list | tuple) and len(value) == (count or len(value)) and {*map(type, value)} <= {*types}:
            return tuple(value)
    else:
        words, kind = _SINGLE.get(key, ("a text", str))
        if type(value) is kind:
            return value
    raise UserError(f"{key} is {value!r}, expected {words}")
