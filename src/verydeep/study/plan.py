"""The runs of a study in the order in which they depend on each other, and what they cost."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import torch

from verydeep.basics.device import place
from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.protocol import Protocol
from verydeep.evaluation.views import VIEWS
from verydeep.images.rescale import rescaled_size
from verydeep.nets.configurations import configuration
from verydeep.nets.geometry import macs, summarize
from verydeep.nets.network import VGG
from verydeep.study.preset import EARLIER, Data, Member, Preset, StageName
from verydeep.training.recipe import Recipe, load_recipe

# Images whose sizes are looked at for an estimate.
SIZES_LOOKED_AT = 100

# Multiply-adds of a step when speed is measured, on accelerators and on processors: a second or less.
MOST_MACS_A_STEP = (2e12, 3e10)

# Trained from random weights at the first stage; the paper begins every other configuration from A (section 3.1).
FROM_RANDOM = ("A", "A-LRN", "B-5x5")


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
    """

    name: str
    configuration: str
    recipe: Recipe
    init_from: str | None
    protocols: tuple[Protocol, ...]


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
    by_name = {run.name: run for run in runs}
    wanted: set[str] = set()
    for name in only:
        if name not in by_name:
            nearest = next(iter(get_close_matches(name, by_name, n=1)), runs[0].name)
            raise UserError(
                f"preset {preset.name} has no run {name!r} (did you mean {nearest}?); its runs are {', '.join(by_name)}"
            )
        source: str | None = name
        while source:
            wanted.add(source)
            source = by_name[source].init_from
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
    done = {leaf for protocol in tested for leaf in protocol.leaves}
    left = {leaf for protocol in run.protocols for leaf in protocol.leaves} - done
    return Cost(0 if trained else training, testing_macs(net, left, data))


def testing_macs(net: VGG, leaves: Iterable[Protocol], data: Data) -> int:
    """Return the multiply-adds of testing a network by protocols of one kind at one scale, on all test images."""
    return sum(_view_macs(net, leaf, data) * VIEWS[leaf.kind] for leaf in leaves) * data.test_images


def empty_network(run: Run, classes: int) -> VGG:
    """Return the run's network without memory for its weights."""
    with torch.device("meta"):
        names = [str(i) for i in range(classes)]
        return VGG(configuration(run.configuration), names, **run.recipe.network.model_dump())


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
