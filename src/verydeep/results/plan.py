"""What a study would do, and what that costs: multiply-adds, and how long they take here."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import Reading
from verydeep.images.rescale import rescaled_size
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import VIEWS
from verydeep.localization.evaluate import VIEWS as BOX_VIEWS
from verydeep.nets.config import NetworkConfig
from verydeep.nets.configurations import configuration
from verydeep.nets.families import make_on_meta
from verydeep.nets.geometry import macs, summarize
from verydeep.nets.network import Network
from verydeep.results.study import Data, Preset, Run, StudyFolder, load_preset, make_plan

# Images whose sizes are looked at for an estimate.
SIZES_LOOKED_AT = 100

# Multiply-adds of a step when speed is measured, on accelerators and on processors: a second or less.
MOST_MACS_A_STEP = (2e12, 3e10)


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

    Training: a forward pass of every image in every pass of every epoch (their greatest number), and twice that for
    the gradients of the layers that are trained. Testing: every view of every image, at the images' median size. What
    is `trained` or `tested` is done.
    """
    net, side = empty_network(run, data.classes), run.recipe.network.image_size
    layers = summarize(net, side, side)
    fc_only = run.recipe.optimizer.trained_layers == "fc"
    gradients = 2 * sum(layer.macs for layer in layers if layer.name.startswith("fc") or not fc_only)
    passes = run.recipe.schedule.epochs * run.recipe.passes(data.training_images)
    training = (sum(layer.macs for layer in layers) + gradients) * data.training_images * passes
    done = set(tested)
    if run.regression:  # every view once, by it and by the classifier beside it
        leaves = [leaf for protocol in run.protocols if protocol not in done for leaf in protocol.leaves]
        testing = 2 * sum(_view_macs(net, leaf, data) * BOX_VIEWS[leaf.kind] for leaf in leaves) * data.test_images
    else:
        leaves_done = {leaf for protocol in done for leaf in protocol.leaves}
        left = {leaf for protocol in run.protocols for leaf in protocol.leaves} - leaves_done
        testing = testing_macs(net, left, data)
    return Cost(0 if trained else training, testing)


def testing_macs(net: Network, leaves: Iterable[Protocol], data: Data) -> int:
    """Return the multiply-adds of testing a network by protocols of one kind at one scale, on all test images."""
    return sum(_view_macs(net, leaf, data) * VIEWS[leaf.kind] for leaf in leaves) * data.test_images


def empty_network(run: Run, classes: int) -> Network:
    """Return the run's network without memory for its weights."""
    names, settings = tuple(map(str, range(classes))), run.recipe.network.model_dump()
    return make_on_meta(NetworkConfig(configuration(run.configuration), names, **settings, regression=run.regression))


def _view_macs(net: Network, leaf: Protocol, data: Data) -> int:
    if leaf.kind != "dense":
        return macs(net, net.image_size, net.image_size)
    return macs(net, *rescaled_size(data.height, data.width, leaf.scales[0]))


def measure_data(training: Dataset, test: Dataset) -> Data:
    """Return the numbers of a data set; of some test images spread over it the size is looked at."""
    sizes = [test.size(index) for index in range(0, len(test), max(1, len(test) // SIZES_LOOKED_AT))]
    height, width = (int(statistics.median(side)) for side in zip(*sizes, strict=True))
    numbers = {"classes": len(test.classes), "training_images": len(training), "test_images": len(test)}
    return Data(name=test.name, height=height, width=width, **numbers)


def measure_speed(run: Run, classes: int, device: torch.device, seconds: float = 1.0) -> float:
    """Return the multiply-adds a second of a run's network in training here: forward and backward passes.

    Its batch is cut down to what takes a moment; measured is for some `seconds` after a first pass.
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


@dataclass(frozen=True)
class Plan:
    """A study's runs in the order in which they are done, and what is left to do of each.

    `data` is what was counted with, `speed` the measured multiply-adds a second, `left_out` the names of runs for boxes
    where the data set has none.
    """

    preset: Preset
    runs: tuple[Run, ...]
    costs: tuple[Cost, ...]
    data: Data
    speed: float
    left_out: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Estimated time of all that is left."""
        return sum(left.total for left in self.costs) / self.speed


def plan_study(
    preset: str,
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    only: Iterable[str] = (),
    device: str = "auto",
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> Plan:
    """Plan what `reproduce` would do and estimate what it costs; nothing is written.

    Parameters and errors are those of `reproduce`. Without `data` the preset's own numbers are counted with; what is in
    `out` is not counted. The device's speed is measured for a second.
    """
    chosen, torch_device = load_preset(preset), pick_device(device)
    planned = runs = make_plan(chosen, only)
    counted = chosen.data
    if data is not None:
        runs = possible_runs(planned, only, data, chosen.split, reading)
        counted = measure_data(*(reading.open(data, split) for split in ("train", chosen.split)))
    folder = StudyFolder(Path(out)) if out is not None else None
    if folder:
        folder.claim(chosen, counted.name, look_only=True)
    costs = tuple(
        cost(run, counted, folder.run(run.name).card.is_file(), folder.tested(run)) if folder else cost(run, counted)
        for run in runs
    )
    heaviest = max(zip(runs, costs, strict=True), key=lambda pair: pair[1].total)[0]
    speed = measure_speed(heaviest, counted.classes, torch_device)
    return Plan(chosen, tuple(runs), costs, counted, speed, tuple(run.name for run in planned if run not in runs))


def possible_runs(planned: list[Run], only: Iterable[str], data: str | Path, split: str, reading: Reading) -> list[Run]:
    """Return the planned runs without those for boxes where images of a split that these need have none.

    UserError where `only` names one of those.
    """
    localizers = [run for run in planned if run.regression]
    for name in dict.fromkeys(("train", "val", split)) if localizers else ():
        part = reading.open(data, name, boxes=True)
        if any(sample.boxes for sample in part.samples):
            continue
        if wanted := next((run.name for run in localizers if run.name in set(only)), None):
            raise UserError(f"--only {wanted}: it learns boxes, and no {name} image of {part.name} has one")
        return [run for run in planned if not run.regression]
    return planned
