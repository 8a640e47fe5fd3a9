"""Presets: which networks, trained and tested how, make up a study; validated TOML."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from verydeep.basics.errors import UserError
from verydeep.evaluation.protocol import Protocol
from verydeep.training.recipe import parse_toml

PRESETS = Path(__file__).parent / "presets"

PUBLISHED = "published"
"""Known to the command line beside the presets: it trains nothing, but tests weights that are given; see `verify`."""

# "small", "large" and "jitter" stand for the paper's S = 256, S = 384 and S in [256; 512] (section 3.1); "jitter-fc"
# is the submission's jitter training of the fully connected layers alone. The paper has neither "modern" nor "wide", a
# network of larger windows than the others, for boxes where theirs are too coarse.
StageName = Literal["small", "large", "jitter", "jitter-fc", "modern", "wide"]

# What a network's training starts from: its own latest of these stages, else, in "small", configuration A.
EARLIER: dict[str, tuple[StageName, ...]] = {
    "large": ("small",),
    "jitter": ("large", "small"),
    "jitter-fc": ("large", "small"),
    "wide": ("small",),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Section):
    """One kind of training, and the scales its networks are tested at (section 3.2)."""

    recipe: str
    # `section.key=value` on top of the recipe, as for `verydeep train --set`.
    overrides: tuple[str, ...] = ()
    single: int
    multi: tuple[int, ...]


class Member(_Section):
    """One configuration, and the stages it goes through."""

    name: str
    stages: tuple[StageName, ...]
    # Stages that are also tested on 5x5 grids of crops, and on one central crop.
    crops: tuple[StageName, ...] = ()
    center: tuple[StageName, ...] = ()


class Localizer(_Section):
    """One training for boxes, and its tests (appendix A)."""

    network: str
    # The classifier that it starts from, and whose scores rate its boxes: this network after this stage.
    stage: StageName
    recipe: str
    overrides: tuple[str, ...] = ()
    regression: Literal["scr", "pcr"]
    tune: Literal["fc", "all"]
    # For example center@384, dense@384, dense@352,384.
    protocols: Annotated[tuple[str, ...], Field(min_length=1)]
    # Share of the test images whose object it must find, given the class, by the first of these; `verydeep reproduce`
    # says so where it does not, and fails.
    least_hits: Annotated[float, Field(ge=0, le=1)] | None = None


class Data(_Section):
    """What of a data set decides a study's cost; height and width are its images' median, in pixels."""

    name: str
    classes: int
    training_images: int
    test_images: int
    height: int
    width: int


class Preset(_Section):
    """A whole study."""

    name: str
    title: str
    # The data it is made for; what a plan counts with where no data set is given.
    data: Data
    # The paper tests on the validation images, because those of the test set have no public labels.
    split: Literal["val", "test"] = "test"
    stages: dict[StageName, Stage]
    networks: Annotated[tuple[Member, ...], Field(min_length=1)]
    localizers: tuple[Localizer, ...] = ()
    # Runs whose posteriors by several scales, averaged, name the classes that are localized ("the best-performing
    # classification system"); by default the classifier's own that the localizer starts from.
    labels: tuple[str, ...] = ()
    # Tests of localizers whose boxes are merged together, each as "RUN PROTOCOL".
    unions: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = ()

    @model_validator(mode="after")
    def _stages_are_there(self) -> "Preset":
        if self.networks[0].name != "A" or self.networks[0].stages[:1] != ("small",):
            raise ValueError("networks: the first is A with stage small, because the others start from it")
        for member in self.networks:
            for stage in (*member.stages, *member.crops, *member.center):
                if stage not in self.stages:
                    raise ValueError(f"networks: {member.name} has stage {stage}, which [stages] does not define")
            if member.stages[0] not in ("small", "modern"):
                raise ValueError(f"networks: {member.name} begins with {member.stages[0]}; it must begin with small")
        there = {(member.name, stage) for member in self.networks for stage in member.stages}
        for localizer in self.localizers:
            if (localizer.network, localizer.stage) not in there:
                raise ValueError(f"localizers: no network {localizer.network} has stage {localizer.stage}")
        return self

    def protocols(self, member: Member, stage: StageName) -> Iterator[Protocol]:
        """Yield how a network of this stage is tested, in the order of the paper's tables."""
        at = self.stages[stage]
        if stage in member.center:
            yield Protocol("center", (at.single,))
        yield Protocol("dense", (at.single,))
        yield Protocol("dense", at.multi)
        if stage in member.crops:
            yield Protocol("crops", at.multi)
            yield Protocol("dense+crops", at.multi)


def known_presets() -> list[str]:
    """Return the names of the presets that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_preset(source: str) -> Preset:
    """Read a preset by name, or from a TOML file.

    Raises
    ------
    UserError
        No such preset (the nearest is named), or no valid one.

    Examples
    --------
    >>> load_preset("paper").networks[0].name
    'A'
    """
    path = Path(source) if source.endswith(".toml") else PRESETS / f"{source}.toml"
    if not path.is_file():
        nearest = next(iter(get_close_matches(source, known_presets(), n=1)), "demo")
        raise UserError(
            f"no preset {source!r}: known are {', '.join(known_presets())} (did you mean {nearest}?), and {PUBLISHED} "
            "with --weights-d and --weights-e; or give the path of a .toml file"
        )
    values = parse_toml(path.read_text(encoding="utf-8"), str(path))
    try:
        return Preset.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {place + ': ' if place else ''}{message}") from None
