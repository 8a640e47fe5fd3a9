"""What a study is: its preset, its runs in the order in which they depend on each other, and its folder."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from verydeep.basics.errors import UserError
from verydeep.basics.files import claim, read_text, write_text
from verydeep.evaluation.parquet import read_metadata
from verydeep.inference.protocol import Protocol
from verydeep.nets.config import Regression
from verydeep.nets.configurations import configuration
from verydeep.nets.weights import weights_hash
from verydeep.training.recipe import Recipe, load_recipe, parse_toml
from verydeep.training.run_folder import RunFolder

PRESETS = Path(__file__).parent / "presets"

PUBLISHED = "published"
"""Known to the command line beside the presets: it trains nothing, but tests weights that are given; see `verify`."""

# Trained from random weights at the first stage; the paper begins every other configuration from A (section 3.1).
FROM_RANDOM = ("A", "A-LRN", "B-5x5")

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
    overrides: tuple[str, ...] = ()  # `section.key=value` on top of the recipe, as for `verydeep train --set`
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

    network: str  # the classifier that it starts from, and whose scores rate its boxes:
    stage: StageName  # this network after this stage
    recipe: str
    overrides: tuple[str, ...] = ()
    regression: Literal["scr", "pcr"]
    tune: Literal["fc", "all"]
    protocols: Annotated[tuple[str, ...], Field(min_length=1)]  # for example center@384, dense@352,384
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

    UserError: no such preset (the nearest is named), or no valid one.

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
    values = parse_toml(read_text(path), str(path))
    try:
        return Preset.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {place + ': ' if place else ''}{message}") from None


@dataclass(frozen=True)
class Run:
    """One training and its tests."""

    name: str  # configuration and training scales, for example `D-s256-512`
    configuration: str
    recipe: Recipe
    init_from: str | None  # the run whose weights this one starts from
    protocols: tuple[Protocol, ...]
    regression: Regression | None = None  # of localizers: the kind of boxes,
    least_hits: float | None = None  # and the share of the test images whose object it must find


def make_plan(preset: Preset, only: Iterable[str] = ()) -> list[Run]:
    """Return a preset's runs, each after the one it starts from: A first, then stage by stage.

    Runs that those named in `only` start from come along. UserError where a recipe is wrong, or a run unknown.
    """
    runs = [
        _run(preset, member, stage) for stage in preset.stages for member in preset.networks if stage in member.stages
    ]
    runs += [_localizer(preset, localizer) for localizer in preset.localizers]
    by_name = {run.name: run for run in runs}
    _check_names(preset, by_name)
    wanted: set[str] = set()
    for name in only:
        if name not in by_name:
            nearest = next(iter(get_close_matches(name, by_name, n=1)), runs[0].name)
            raise UserError(
                f"preset {preset.name} has no run {name!r} (did you mean {nearest}?); its runs are {', '.join(by_name)}"
            )
        sources = [name, *(preset.labels if by_name[name].regression else ())]
        while sources:
            source = sources.pop()
            wanted.add(source)
            sources += [before] if (before := by_name[source].init_from) else []
    return [run for run in runs if run.name in wanted or not wanted]


def _run(preset: Preset, member: Member, stage: StageName) -> Run:
    earlier = next((before for before in EARLIER.get(stage, ()) if before in member.stages), None)
    source = _name(preset, member.name, earlier) if earlier else None
    if stage == "small" and member.name not in FROM_RANDOM:
        source = _name(preset, "A", "small")
    return Run(
        _name(preset, member.name, stage),
        configuration(member.name).name,
        _recipe(preset, stage),
        source,
        tuple(preset.protocols(member, stage)),
    )


def _localizer(preset: Preset, localizer: Localizer) -> Run:
    source = _name(preset, localizer.network, localizer.stage)
    tuned = f"optimizer.trained_layers={localizer.tune}"
    recipe = load_recipe(localizer.recipe, [*localizer.overrides, tuned])
    return Run(
        f"{source}-{localizer.regression}-{localizer.tune}",
        configuration(localizer.network).name,
        recipe,
        source,
        tuple(Protocol.parse(text) for text in localizer.protocols),
        localizer.regression,
        localizer.least_hits,
    )


def _check_names(preset: Preset, runs: Mapping[str, Run]) -> None:
    """Raise UserError where a preset's labels or unions name what it does not plan."""
    for name in preset.labels:
        if name not in runs or runs[name].regression:
            raise UserError(f"preset {preset.name}: labels: it plans no classifier {name!r}")
    for text in (text for union in preset.unions for text in union):
        name, _, protocol = text.partition(" ")
        if name not in runs or not runs[name].regression or protocol not in map(str, runs[name].protocols):
            raise UserError(f"preset {preset.name}: unions: it plans no localizer's test {text!r}")


def _recipe(preset: Preset, stage: StageName) -> Recipe:
    return load_recipe(preset.stages[stage].recipe, preset.stages[stage].overrides)


def _name(preset: Preset, network: str, stage: StageName) -> str:
    if stage == "modern":
        return f"{network}-modern"
    least, most = _recipe(preset, stage).images.scales
    scales = str(least) if least == most else f"{least}-{most}"
    return f"{network}-s{scales}" + ("-fc" if stage == "jitter-fc" else "")


@dataclass(frozen=True)
class StudyFolder:
    """Paths of a study's files."""

    path: Path

    @property
    def times(self) -> Path:
        """Seconds spent on testing each run, over all sittings."""
        return self.path / "testing-seconds.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def run(self, name: str) -> RunFolder:
        """Return the folder of a training run."""
        return RunFolder(self.path / "runs" / name)

    def posteriors(self, name: str) -> Path:
        """Return the folder of a run's posteriors."""
        return self.path / "posteriors" / name

    def boxes(self, name: str) -> Path:
        """Return the folder of a localizer's boxes."""
        return self.path / "boxes" / name

    def test(self, run: Run, protocol: Protocol) -> Path:
        """Return the file of a run's posteriors by a protocol, or of a localizer's boxes."""
        return (self.boxes if run.regression else self.posteriors)(run.name) / f"{protocol}.parquet"

    def union(self, members: Sequence[str]) -> Path:
        """Return the file of boxes that several tests give together, each named as "RUN PROTOCOL"."""
        return self.path / "boxes" / "unions" / f"{'+'.join(members).replace(' ', '-')}.parquet"

    def tested(self, run: Run) -> list[Protocol]:
        """Return the protocols that the run has been tested by, of those planned and their parts.

        UserError: a file holds the posteriors or boxes of other weights than the run's.
        """
        leaves = [] if run.regression else [leaf for protocol in run.protocols for leaf in protocol.leaves]
        files = {protocol: self.test(run, protocol) for protocol in dict.fromkeys([*run.protocols, *leaves])}
        about = {protocol: read_metadata(file) for protocol, file in files.items() if file.is_file()}
        what, key = ("boxes", "localizer_hash") if run.regression else ("posteriors", "weights_hash")
        weights = self.run(run.name).weights
        own = weights_hash(weights) if about and weights.is_file() else None
        for protocol, values in about.items():
            if values.get(key) != own:
                file = files[protocol]
                raise UserError(f"{file}: {what} of other weights than {weights}; remove {file.parent} to test anew")
        # Boxes without a rule of merging are the windows', which a stopped study has not merged yet.
        return [protocol for protocol, values in about.items() if not run.regression or values.get("merging")]

    def testing_seconds(self) -> dict[str, float]:
        """Return the seconds spent on testing each run."""
        if not self.times.is_file():
            return {}
        times: dict[str, float] = json.loads(self.times.read_text(encoding="utf-8"))
        return times

    def add_testing_seconds(self, name: str, seconds: float) -> None:
        """Count time spent on testing a run."""
        times = self.testing_seconds()
        write_text(self.times, json.dumps({**times, name: times.get(name, 0.0) + seconds}, indent=2))

    def claim(self, preset: Preset, data: str, look_only: bool = False) -> None:
        """Make the folder that of a preset on a data set, or find that it already is; UserError where it is not."""
        wanted = {"data": data, "preset": preset.model_dump(mode="json", exclude_none=True)}
        # Runs that were trained by themselves are taken over.
        claim(self.path, wanted, "study.toml", "study", difference=_difference, taken_over="runs", look_only=look_only)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if there == here:
        return ""
    before, now = ((study.get("preset", {}).get("name"), study.get("data")) for study in (there, here))
    if before == now:
        return f"preset {now[0]} with other settings"
    return f"preset {before[0]} on {before[1]}, here it is {now[0]} on {now[1]}"
