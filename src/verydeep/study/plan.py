"""The runs of a study in the order in which they depend on each other, and what they cost."""

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from verydeep.basics.device import pick_device
from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.protocol import Protocol
from verydeep.evaluation.views import VIEWS
from verydeep.images.rescale import rescaled_size
from verydeep.nets.configurations import configuration
from verydeep.nets.geometry import macs, summarize
from verydeep.nets.network import VGG, create
from verydeep.study.preset import EARLIER, Member, Preset, StageName
from verydeep.training.recipe import Recipe, load_recipe

# Images whose sizes are looked at for an estimate: their headers alone are read.
SIZES_LOOKED_AT = 100
RATE_MACS = 4 * 10**9  # of one batch when speed is measured

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

    @property
    def leaves(self) -> tuple[Protocol, ...]:
        """The protocols of one kind at one scale that the network itself is run for, each once."""
        return tuple(dict.fromkeys(leaf for protocol in self.protocols for leaf in protocol.leaves))


def make_plan(preset: Preset) -> list[Run]:
    """Return a preset's runs, each after the one it starts from: A first, then stage by stage.

    Raises
    ------
    UserError
        A recipe is wrong, or a fusion names an unknown run.
    """
    runs = [
        _run(preset, member, stage) for stage in preset.stages for member in preset.networks if stage in member.stages
    ]
    names = [run.name for run in runs]
    for fusion in preset.fusions:
        if missing := [name for name in fusion.runs if name not in names]:
            raise UserError(f"preset {preset.name}: fusion of {missing[0]!r}, but its runs are {', '.join(names)}")
    return runs


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
    """Multiply-adds of a run's training and of its tests."""

    training: int
    testing: int


@dataclass(frozen=True)
class Figures:
    """What a plan must know of a data set.

    Attributes
    ----------
    classes, training_images, test_images : int
        Numbers of them.
    sizes : mapping of (height, width) to int
        How often each size of image occurs among those looked at.
    """

    classes: int
    training_images: int
    test_images: int
    sizes: Mapping[tuple[int, int], int]


def measure_figures(training: Dataset, testing: Dataset) -> Figures:
    """Return a data set's figures, its sizes from the headers of some test images spread over it."""
    sizes = Counter(testing.size(index) for index in range(0, len(testing), max(1, len(testing) // SIZES_LOOKED_AT)))
    return Figures(len(training.classes), len(training), len(testing), sizes)


def cost(run: Run, figures: Figures, trained: bool = False, tested: Iterable[Protocol] = ()) -> Cost:
    """Return the multiply-adds of what is left to do of a run.

    Training: a forward pass of every image and epoch (of the recipe's greatest number of epochs), and twice that
    for the gradients of the layers that are trained. Testing: every view of every image.

    Parameters
    ----------
    run : Run
        The run.
    figures : Figures
        Of the data set.
    trained : bool
        Whether its network is there already.
    tested : iterable of Protocol
        By which protocols it is tested already.
    """
    net, side = empty_network(run, figures.classes), run.recipe.network.image_size
    layers = summarize(net, side, side)
    forward = sum(layer.macs for layer in layers)
    fc_only = run.recipe.optimizer.trained_layers == "fc"
    changed = sum(layer.macs for layer in layers if layer.name.startswith("fc") or not fc_only)
    training = (forward + 2 * changed) * figures.training_images * run.recipe.schedule.epochs
    done = {leaf for protocol in tested for leaf in protocol.leaves}
    left = [leaf for leaf in run.leaves if leaf not in done]
    testing = sum(_mean_macs(net, leaf, figures.sizes) * VIEWS[leaf.kind] for leaf in left) * figures.test_images
    return Cost(0 if trained else training, round(testing))


def empty_network(run: Run, classes: int) -> VGG:
    """Return the run's network without memory for its weights."""
    with torch.device("meta"):
        return VGG(
            configuration(run.configuration),
            [str(i) for i in range(classes)],
            **run.recipe.network.model_dump(),
        )


def _mean_macs(net: VGG, leaf: Protocol, sizes: Mapping[tuple[int, int], int]) -> float:
    """Return the multiply-adds of one view, on average over the sizes of images."""
    if leaf.kind != "dense":
        return macs(net, net.image_size, net.image_size)
    total = sum(count * macs(net, *rescaled_size(*size, leaf.scales[0])) for size, count in sizes.items())
    return total / sum(sizes.values())


def measure_rate(run: Run, classes: int, device: str = "auto", seconds: float = 0.5) -> float:
    """Return multiply-adds a second on this machine, as the median of forward passes of a run's network.

    An estimate of what a study will get: gradients, loading and small layers run slower, larger batches faster.
    """
    target = pick_device(device)
    net = create(run.configuration, classes, seed=0, **run.recipe.network.model_dump()).eval()
    net = net.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = net.image_size
    one = macs(net, side, side)
    count = max(1, min(64, RATE_MACS // one))
    images = torch.zeros(count, 3, side, side, device=target).contiguous(memory_format=torch.channels_last)
    rates: list[float] = []
    begun = time.perf_counter()
    with torch.inference_mode(), torch.autocast(target.type, torch.bfloat16, enabled=run.recipe.precision == "bf16"):
        while len(rates) < 3 or time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            float(net(images).sum())  # reading the sum waits for the device
            rates.append(count * one / (time.perf_counter() - start))
    return statistics.median(rates)
