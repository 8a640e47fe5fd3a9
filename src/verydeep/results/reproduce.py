"""A whole study: what it costs; train what is missing, test what is missing, write the report."""

import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer
from verydeep.datasets import open_dataset
from verydeep.datasets.boxes import with_boxes
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import Reading
from verydeep.evaluation.evaluate import Evaluator
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.parquet import read_metadata
from verydeep.evaluation.posteriors import Posteriors
from verydeep.images.rescale import rescaled_size
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import VIEWS
from verydeep.localization.detections import Detections
from verydeep.localization.evaluate import VIEWS as BOX_VIEWS
from verydeep.localization.evaluate import BoxEvaluator
from verydeep.localization.localize import DEFAULT_RULE
from verydeep.localization.merging import MergeRule
from verydeep.localization.scoring import merge_detections
from verydeep.localization.task import Localization
from verydeep.localization.tuning import tune
from verydeep.nets.config import NetworkConfig
from verydeep.nets.configurations import configuration
from verydeep.nets.geometry import macs, summarize
from verydeep.nets.vgg import VGG
from verydeep.results.report import HitCheck, check_hits, write_report
from verydeep.results.result import read_results
from verydeep.results.study import Data, Preset, Run, StudyFolder, load_preset, make_plan
from verydeep.results.table import Table
from verydeep.results.tables import make_tables
from verydeep.training.train import train

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
    on_bad_image: Literal["error", "skip"] = "error",
) -> Plan:
    """Plan what `reproduce` would do and estimate what it costs; nothing is written.

    Parameters are those of `reproduce`. Without `data` the preset's own numbers are counted with; what is in `out` is
    not counted. The device's speed is measured for a second. UserError: a preset or data set that cannot be read, an
    unknown run, or a folder that holds another study.
    """
    chosen, torch_device = load_preset(preset), pick_device(device)
    planned = runs = make_plan(chosen, only)
    counted = chosen.data
    if data is not None:
        runs = _possible(planned, only, data, chosen.split, on_bad_image)
        training, testing = (open_dataset(data, split, on_bad_image=on_bad_image) for split in ("train", chosen.split))
        counted = measure_data(training, testing)
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


def _possible(
    planned: list[Run],
    only: Iterable[str],
    data: str | Path,
    split: str,
    on_bad_image: Literal["error", "skip"],
) -> list[Run]:
    """Return the planned runs without those for boxes where images of a split that these need have none.

    UserError: `only` names one of those.
    """
    localizers = [run for run in planned if run.regression]
    for name in dict.fromkeys(("train", "val", split)) if localizers else ():
        part = open_dataset(data, name, on_bad_image=on_bad_image, boxes=True)
        if any(sample.boxes for sample in part.samples):
            continue
        if wanted := next((run.name for run in localizers if run.name in set(only)), None):
            raise UserError(f"--only {wanted}: it learns boxes, and no {name} image of {part.name} has one")
        return [run for run in planned if not run.regression]
    return planned


@dataclass(frozen=True)
class Outcome:
    """What a study has come to: its tables, whether its localizers find enough, and the report."""

    tables: tuple[Table, ...]
    checks: tuple[HitCheck, ...]
    report: Path


def reproduce(
    preset: str,
    data: str | Path,
    out: str | Path,
    *,
    only: Iterable[str] = (),
    device: str = "auto",
    on_bad_image: Literal["error", "skip"] = "error",
    quiet: bool = False,
) -> Outcome:
    """Do a study: train and test the runs of a preset, and write the report.

    What is already there is not done again, so a stopped study continues with the same call. Runs for boxes are left
    out where the images of a split have none. UserError: a wrong request; `out` holds another study, or a run of other
    settings; `only` names a run for boxes that the data set does not have. KeyboardInterrupt: ctrl-C: what has been
    done so far is kept.

    Parameters
    ----------
    preset : str
        A preset's name or TOML file.
    data : str or Path
        Data set: a folder, a tar file, or `scenes`.
    out : str or Path
        The study's folder; it gets `runs/`, `posteriors/`, `boxes/` and `report.html`.
    only : iterable of str
        Runs that are wanted, with those that they start from; all of them where empty.
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    on_bad_image : {"error", "skip"}
        What a damaged image of the data set does, and in localization a bad box.
    quiet : bool
        Whether to print nothing on the way.

    Returns
    -------
    Outcome
        Of all that the folder holds; the checks of the wanted runs.
    """
    chosen, folder = load_preset(preset), StudyFolder(Path(out))
    runs = _possible(make_plan(chosen, only), only, data, chosen.split, on_bad_image)
    localizes = any(run.regression for run in runs)
    testing = open_dataset(data, chosen.split, on_bad_image=on_bad_image, boxes=localizes)
    with sole_writer(folder.path):
        folder.claim(chosen, testing.name)
        for number, run in enumerate(runs, start=1):
            if not quiet:
                start = f"from {run.init_from}" if run.init_from else "from random weights"
                print(f"[{number}/{len(runs)}] {run.name}, {start}", file=sys.stderr, flush=True)
            train(
                run.configuration,
                data,
                run.recipe,
                folder.run(run.name).path,
                task=Localization(run.regression, on_bad_image == "skip") if run.regression else None,
                init_from=folder.run(run.init_from).path if run.init_from else None,
                device=device,
                reading=Reading(on_bad_image=on_bad_image),
                quiet=quiet,
            )
            if missing := _missing(folder, run):
                begun = time.monotonic()
                try:
                    if run.regression:
                        _test_boxes(folder, run, missing, chosen.labels, testing, device, on_bad_image == "skip")
                    else:
                        _test(folder, run, missing, testing, device)
                finally:
                    folder.add_testing_seconds(run.name, time.monotonic() - begun)
        _merge_unions(folder, chosen.unions)
        results = read_results(folder.path)
        tables = make_tables(results)
        write_report(folder, chosen, make_plan(chosen), testing, str(data), results, tables, device)
        return Outcome(tuple(tables), tuple(check_hits(folder, runs, results)), folder.report)


def _missing(folder: StudyFolder, run: Run) -> list[Protocol]:
    tested = folder.tested(run)
    return [protocol for protocol in run.protocols if protocol not in tested]


def _test(folder: StudyFolder, run: Run, protocols: Iterable[Protocol], testing: Dataset, device: str) -> None:
    evaluator = Evaluator(
        folder.run(run.name).weights,
        testing,
        options=Options(precision=run.recipe.precision),  # tested in the arithmetic it was trained in
        runtime=Runtime(device),
        cache=folder.posteriors(run.name),
    )
    for protocol in protocols:
        evaluator.posteriors(protocol)


def _test_boxes(
    folder: StudyFolder,
    run: Run,
    protocols: Iterable[Protocol],
    labels: Sequence[str],
    testing: Dataset,
    device: str,
    skip_bad_boxes: bool,
) -> None:
    """Test a localizer, its boxes rated by the classifier that it was made from.

    The mean of the runs `labels` names the classes, the classifier alone where there are none. Where a picture has
    several windows, the threshold of merging is the best one on a held-out part of the pictures.
    """
    assert run.init_from is not None
    # Each classifier by the dense test with the most scales that it has.
    every = [folder.posteriors(name).glob("dense@*.parquet") for name in labels or [run.init_from]]
    best = [max(files, key=lambda file: (len(Protocol.parse(file.stem).scales), file.stem)) for files in every]
    evaluator = BoxEvaluator(
        folder.run(run.init_from).weights,
        folder.run(run.name).weights,
        with_boxes(testing, skip_bad_boxes)[0],
        posteriors=fuse([Posteriors.read(file) for file in best], list(map(str, best))),
        precision=run.recipe.precision,
        runtime=Runtime(device),
        cache=folder.boxes(run.name),
    )
    for protocol in protocols:
        evaluator.detections(protocol, _rule([evaluator.detections(protocol, None)]))


def _rule(parts: Sequence[Detections]) -> MergeRule:
    """Return how boxes are merged: as is best on held-out pictures, where there is anything to merge."""
    if sum(max(map(len, part.windows)) for part in parts) == 1:
        return DEFAULT_RULE
    tuned = tune(parts)
    return tuned.rule_for(tuned.data, tuned.split)


def _merge_unions(folder: StudyFolder, unions: Iterable[Sequence[str]]) -> None:
    """Merge the boxes of several tests together, each named as "RUN PROTOCOL", where all of these are there."""
    for members in unions:
        names = [member.partition(" ") for member in members]
        files = [folder.boxes(run) / f"{protocol}.parquet" for run, _, protocol in names]
        if not all(file.is_file() for file in files):
            continue
        parts, out = [Detections.read(file) for file in files], folder.union(members)
        if not out.is_file() or read_metadata(out).get("fused") != [part.metadata for part in parts]:
            merge_detections(parts, _rule(parts), [str(file) for file in files]).write(out)


def check_request(data: str | None, out: Path | None) -> tuple[str, Path]:
    """Return data set and folder; UserError where one is missing."""
    if data is None or out is None:
        raise UserError("reproduce needs --data (a folder, a .tar or scenes) and --out; only --dry-run does without")
    return data, out
