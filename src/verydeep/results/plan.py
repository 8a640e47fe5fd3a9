"""Presets, which say what makes up a study, and its plan: runs in the order in which they depend on each other."""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from verydeep.basics.device import place
from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.protocol import Protocol
from verydeep.evaluation.views import VIEWS
from verydeep.images.rescale import rescaled_size
from verydeep.localization.evaluate import VIEWS as BOX_VIEWS
from verydeep.nets.config import NetworkConfig, Regression
from verydeep.nets.configurations import configuration
from verydeep.nets.geometry import macs, summarize
from verydeep.nets.network import VGG
from verydeep.training.recipe import Recipe, load_recipe, parse_toml

PRESETS = Path(__file__).parent / "presets"

PUBLISHED = "published"
"""Known to the command line beside the presets: it trains nothing, but tests weights that are given; see `verify`."""

# Images whose sizes are looked at for an estimate.
SIZES_LOOKED_AT = 100

# Multiply-adds of a step when speed is measured, on accelerators and on processors: a second or less.
MOST_MACS_A_STEP = (2e12, 3e10)

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


@dataclass(frozen=True)
class Run:
    """One training and its tests.

    Attributes
    ----------
    name : str
        Configuration and training scales, for example `D-s256-512`.
    configuration : str
        The paper's letter.
    recipe : Recipe
        Effective recipe.
    init_from : str or None
        Run whose weights this one starts from.
    protocols : tuple of Protocol
        How it is tested.
    regression : {"scr", "pcr"} or None
        Kind of a localizer's boxes; None for a classifier.
    least_hits : float or None
        Share of the test images whose object a localizer must find; None where nothing is expected.
    """

    name: str
    configuration: str
    recipe: Recipe
    init_from: str | None
    protocols: tuple[Protocol, ...]
    regression: Regression | None = None
    least_hits: float | None = None


def make_plan(preset: Preset, only: Iterable[str] = ()) -> list[Run]:
    """Return a preset's runs, each after the one it starts from: A first, then stage by stage.

    Parameters
    ----------
    preset : Preset
        The study.
    only : iterable of str
        Names of the runs wanted; those that they start from come along. All runs where empty.

    Raises
    ------
    UserError
        A recipe is wrong, or `only` names an unknown run.
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
class Cost:
    """Multiply-adds that are left to do of a run: its training and its tests."""

    training: int
    testing: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.training + self.testing


def cost(run: Run, data: Data, trained: bool = False, tested: Iterable[Protocol] = ()) -> Cost:
    """Return the multiply-adds of what is left of a run.

    Training: a forward pass of every image in every epoch (their greatest number), and twice that for the gradients
    of the layers that are trained. Testing: every view of every image, at the images' median size.

    Parameters
    ----------
    run : Run
        The run.
    data : Data
        Numbers and sizes of images.
    trained : bool
        Whether its training is done.
    tested : iterable of Protocol
        Tests that are done.
    """
    net, side = empty_network(run, data.classes), run.recipe.network.image_size
    layers = summarize(net, side, side)
    fc_only = run.recipe.optimizer.trained_layers == "fc"
    gradients = 2 * sum(layer.macs for layer in layers if layer.name.startswith("fc") or not fc_only)
    training = (sum(layer.macs for layer in layers) + gradients) * data.training_images * run.recipe.schedule.epochs
    done = set(tested)
    if run.regression:
        testing = sum(_box_macs(net, protocol, data) for protocol in run.protocols if protocol not in done)
    else:
        leaves_done = {leaf for protocol in done for leaf in protocol.leaves}
        left = {leaf for protocol in run.protocols for leaf in protocol.leaves} - leaves_done
        testing = testing_macs(net, left, data)
    return Cost(0 if trained else training, testing)


def _box_macs(net: VGG, protocol: Protocol, data: Data) -> int:
    """Return the multiply-adds of testing a localizer: every view once, by it and by the classifier beside it."""
    return 2 * sum(_view_macs(net, leaf, data) * BOX_VIEWS[leaf.kind] for leaf in protocol.leaves) * data.test_images


def testing_macs(net: VGG, leaves: Iterable[Protocol], data: Data) -> int:
    """Return the multiply-adds of testing a network by protocols of one kind at one scale, on all test images."""
    return sum(_view_macs(net, leaf, data) * VIEWS[leaf.kind] for leaf in leaves) * data.test_images


def empty_network(run: Run, classes: int) -> VGG:
    """Return the run's network without memory for its weights."""
    names, settings = tuple(map(str, range(classes))), run.recipe.network.model_dump()
    with torch.device("meta"):
        return VGG(NetworkConfig(configuration(run.configuration), names, **settings, regression=run.regression))


def _view_macs(net: VGG, leaf: Protocol, data: Data) -> int:
    if leaf.kind != "dense":
        return macs(net, net.image_size, net.image_size)
    return macs(net, *rescaled_size(data.height, data.width, leaf.scales[0]))


def measure_data(training: Dataset, test: Dataset) -> Data:
    """Return the figures of a data set; of some test images spread over it the size is looked at."""
    sizes = [test.size(index) for index in range(0, len(test), max(1, len(test) // SIZES_LOOKED_AT))]
    height, width = (int(statistics.median(side)) for side in zip(*sizes, strict=True))
    return Data(
        name=test.name,
        classes=len(test.classes),
        training_images=len(training),
        test_images=len(test),
        height=height,
        width=width,
    )


def measure_speed(run: Run, classes: int, device: torch.device, seconds: float = 1.0) -> float:
    """Return the multiply-adds a second of a run's network in training here: forward and backward passes.

    Parameters
    ----------
    run : Run
        The run; its batch is cut down to what takes a moment.
    classes : int
        Of the data set.
    device : torch.device
        Where to run.
    seconds : float
        How long to measure, after a first pass.
    """
    net = empty_network(run, classes).to_empty(device=device)
    place(net, device)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    side = run.recipe.network.image_size
    macs_per_image = 3 * macs(net, side, side)
    batch = max(1, min(run.recipe.optimizer.batch_size, int(MOST_MACS_A_STEP[device.type == "cpu"] / macs_per_image)))
    x = torch.rand(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    low = run.recipe.precision == "bf16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            scores = net(x)
        scores.float().square().mean().backward()
        float(scores[0, 0].detach())  # waits for the device

    step()
    begun, steps = time.monotonic(), 0
    while not steps or time.monotonic() - begun < seconds:
        step()
        steps += 1
    return steps * batch * macs_per_image / (time.monotonic() - begun)
