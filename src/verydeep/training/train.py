"""The training loop (paper: section 3.1)."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Unpack

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer
from verydeep.basics.machine import cores
from verydeep.datasets.color import measure_color
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import Share
from verydeep.datasets.opening import Reading
from verydeep.images.color import ColorStatistics
from verydeep.nets.config import NetworkConfig
from verydeep.nets.configurations import configuration
from verydeep.nets.families import load, make_on_meta, with_random_weights
from verydeep.nets.initialization import standard_deviation
from verydeep.nets.network import Network
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.run_info import RunInfo
from verydeep.training.engine import pick_training_engine
from verydeep.training.initial_weights import check_classes, check_fits, layers_taken, recipe_from, take_over
from verydeep.training.log import best_epoch, read_log
from verydeep.training.multi_label import MultiLabel
from verydeep.training.parallel import Processes
from verydeep.training.recipe import Recipe, load_recipe
from verydeep.training.run import DivergedError as DivergedError
from verydeep.training.run import Images, Run, Sitting, SittingOptions
from verydeep.training.run_folder import RunFolder, find_weights, source_words
from verydeep.training.step import make_optimizer
from verydeep.training.task import Classification, Task, first_metric, measured

FEW_A_CLASS = 100
"""Training images a class below which a network that starts from nothing is said to have too few (docs/choices.md)."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run left.

    Attributes
    ----------
    weights : Path
        The network of the epoch with the least validation error.
    epochs : int
        Epochs trained.
    seconds : float
        Time spent training, over all sittings.
    metrics : dict of str to float
        What that network's validation on a central crop gave, in [0, 1]: `top1_error` and `top5_error` of a
        classifier, `localization_error` and `mean_iou` of a localizer; where images have several classes
        `mean_average_precision`, `map_error`, and `average_precision/CLASS` of each class that they have.
    names : dict of str to str
        What the metrics are called, but for those by class.
    """

    weights: Path
    epochs: int
    seconds: float
    metrics: dict[str, float]
    names: dict[str, str]


def train(
    net: str | None,
    data: str | Path,
    recipe: Recipe | str | Path | None,
    out: str | Path,
    *,
    task: Task | None = None,
    init_from: str | Path | None = None,
    overrides: Iterable[str] = (),
    reading: Reading = Reading(),  # noqa: B008 (frozen)
    **sitting: Unpack[SittingOptions],
) -> RunResult:
    """Train a network, or continue a run that was stopped, or return what a finished one left.

    Parameters
    ----------
    net : str or None
        Configuration: `A`, `A-LRN`, `B`, `C`, `D`, `E` or `B-5x5`, or another paper's such as `alexnet`; None: that of
        `init_from`.
    data : str or Path
        Data set: a folder, a tar file, or `scenes`.
    recipe : Recipe, str or Path, optional
        A recipe, its name, or a TOML file; by default `paper-s256`, and to start from a trunk `finetune`. With
        `init_from` and a recipe's name or file, network and input are those of the weights to start from, whatever the
        recipe says; a finished Recipe is taken as it is.
    out : str or Path
        The run's folder.
    task : Task, optional
        What is learned: by default the class, or the classes where images have several;
        `verydeep.localization.task.Localization` learns boxes.
    init_from : str or Path, optional
        Run or weights file of a classifier to start from: all layers where the configuration is the same, the
        paper's seven (section 3.1) where it is a shallower one; for boxes all but the last.
    overrides : iterable of str
        `section.key=value` on top of the recipe, and of what comes from `init_from`.
    reading : Reading
        How the data set is read; where boxes are learned, a bad box counts as a damaged image.
    **sitting
        Fields of `Sitting`: device, workers, compiled, checkpoint_minutes, announce, quiet.

    Returns
    -------
    RunResult
        Where the weights are, and the validation figures.

    Raises
    ------
    UserError
        A wrong request: recipe, data set, or a folder that holds another run.
    DivergedError
        The loss is not a number or diverges; the last good checkpoint is kept.
    KeyboardInterrupt
        Ctrl-C: the step was finished and a checkpoint written.
    """
    task = task or Classification()
    how = Sitting(**sitting)
    device = pick_device(how.device)
    processes, folder = Processes.join(device), RunFolder(Path(out))
    with processes.agreed():
        source = _source(init_from, task)
        net = _name(net, source)
        effective = _recipe(recipe, overrides, source)
        task.check(effective)
        _check(net, effective, task, source, init_from)
        Share(0, processes.size, effective.optimizer.accumulation).check(effective.optimizer.batch_size)
        opened = [task.open(reading, data, split) for split in ("train", "val")]
        if opened[0].multi_label:
            task = MultiLabel(opened[0].classes)
            task.check(effective)
        (training, learned), (validation, _) = map(task.examples, opened)
        words = source_words(net, data, training, validation, init_from, task.words)
        empty = create_empty(net, effective, task, training.classes)
        if processes.first:  # the folder is the first process's to read and write: the others are told
            effective = _settled(effective, empty, device, how.compiled, folder)
            folder.claim(effective, words, look_only=True)
        taken: tuple[str, ...] = ()
        if source:
            taken = layers_taken(source, empty, effective, task)
            check_classes(source, training.classes, taken, str(init_from))
    effective = processes.share(effective)
    if how.announce and processes.first:
        how.announce(effective)
    with processes.agreed():
        if processes.first:
            folder.check_seal()
    if processes.share(folder.card.is_file()):
        return _result(folder, task, processes)
    if not (source or how.quiet) and processes.first:
        _say_if_few(training, effective)
    color = measure_color(training, effective.seed, how.workers or cores())
    network = with_random_weights(empty.config, effective.initialization.scheme, effective.seed)
    new_layers: tuple[str, ...] = ()
    if source:
        network.preprocessing = source.preprocessing  # they were made for it
        new_layers = take_over(source, network, taken)
    else:
        network.preprocessing = _preprocessing(effective, color)
    network.provenance = _run_info(effective, training, {**words, **reading.words, **learned})
    source = None  # its memory is wanted
    place(network, device)
    fitted = new_layers if effective.initialization.new_layers == "fitted" else ()
    with ExitStack() as held:
        with processes.agreed():
            run = Run(effective, folder, network, fitted, Images(training, validation, color), task, processes, how)
            if processes.first:
                held.enter_context(sole_writer(folder.path))
            run.begin()
        if processes.first:  # only now, so that a wrong request leaves nothing behind
            folder.claim(effective, words)
        run.go()
    return _result(folder, task, processes)


def _source(init_from: str | Path | None, task: Task) -> Network | None:
    """Return the network to start from: a classifier, a trunk, or for pixels also one for pixels."""
    if init_from is None:
        return None
    path = find_weights(init_from)
    source = load(path)
    if source.task == "localize" or (source.task == "segment" and task.words.get("task") != "segment"):
        source.check_task("classify", path)
    return source


def _name(net: str | None, source: Network | None) -> str:
    if net is not None:
        return configuration(net).name
    if source is None:
        raise UserError("--net: a configuration is needed (--net A, or --init-from W for a network to start from)")
    return source.configuration.name


def _recipe(recipe: Recipe | str | Path | None, overrides: Iterable[str], source: Network | None) -> Recipe:
    overrides = list(overrides)
    if isinstance(recipe, Recipe):
        if overrides:
            raise UserError(f"overrides {overrides}: give them with a recipe's name, not with a finished Recipe")
        return recipe
    name = recipe or ("finetune" if source is not None and source.task == "describe" else "paper-s256")
    return load_recipe(name, overrides) if source is None else recipe_from(source, name, overrides)


def _settled(recipe: Recipe, net: Network, device: torch.device, compiled: bool, folder: RunFolder) -> Recipe:
    """Return the recipe with an engine in place of `auto`: that of a run in the folder, or this machine's."""
    if recipe.engine == "auto" and folder.engine:
        recipe = recipe.model_copy(update={"engine": folder.engine})
    return recipe.model_copy(update={"engine": pick_training_engine(recipe, net, device, compiled)})


def create_empty(net: str, recipe: Recipe, task: Task, classes: Sequence[str]) -> Network:
    """Return the network that a recipe asks for, its weights on the meta device."""
    known, settings = configuration(net), recipe.network.model_dump()
    beside = bool(known.auxiliary)
    config = NetworkConfig(known, tuple(classes), **settings, auxiliary=beside)
    return make_on_meta(task.configured(config, recipe))


def _check(net: str, recipe: Recipe, task: Task, source: Network | None, init_from: str | Path | None) -> None:
    """Refuse what cannot be, before the data set is opened."""
    standard_deviation(recipe.initialization.scheme, 1, 1)
    network = create_empty(net, recipe, task, ("any",))
    if source:
        check_fits(source, network, recipe, task, str(init_from))
    elif recipe.optimizer.trained_layers == "fc":
        raise UserError("--tune fc leaves convolutions as they are: give the classifier to take them from, --init-from")
    make_optimizer(network, recipe.optimizer)  # for its refusals


def _preprocessing(recipe: Recipe, color: ColorStatistics) -> Preprocessing:
    images = recipe.images
    return Preprocessing(
        mean=color.mean if images.mean == "measured" else images.mean,
        std=color.std if images.divide_by_std else (1.0, 1.0, 1.0),
        interpolation=images.interpolation,
        pool_round_up=images.pool_round_up,
    )


def _run_info(recipe: Recipe, training: Dataset, words: Mapping[str, Any]) -> RunInfo:
    factors = {"factors": list(recipe.segmentation.factors)} if words.get("task") == "segment" else {}
    return replace(
        RunInfo.from_dict({**words, **factors}),
        data=training.name,
        split=training.provenance,
        training_images=len(training),
        train_scales=None if factors else recipe.images.scales,
        recipe=recipe.name,
        seed=recipe.seed,
        engine=recipe.engine,
        trained_layers=recipe.optimizer.trained_layers,
        epochs=0,
    )


def _say_if_few(training: Dataset, recipe: Recipe) -> None:
    """Say beforehand that a network which starts from nothing will hardly learn from so few images."""
    images, classes = len(training), len(training.classes)
    if images >= FEW_A_CLASS * classes or (training.samples[0].label < 0 and not training.multi_label):
        return
    steps = recipe.schedule.epochs * recipe.passes(images) * max(1, images // recipe.optimizer.batch_size)
    print(
        f"verydeep: note: {images} training images, {images / classes:.0f} a class, {steps} steps: too few to learn "
        f"much from nothing (below {FEW_A_CLASS} a class). Published weights need less: verydeep transfer --weights "
        "caffe:vgg16, or verydeep train --init-from caffe:vgg16 --reset fc8",
        file=sys.stderr,
        flush=True,
    )


def _result(folder: RunFolder, task: Task, processes: Processes) -> RunResult:
    result = _read_result(folder, task) if processes.first else None
    shared = processes.share(result)
    assert shared is not None  # the first process's
    return shared


def _read_result(folder: RunFolder, task: Task) -> RunResult:
    epochs = read_log(folder.path, "epoch")
    best = best_epoch(epochs, first_metric(task))
    return RunResult(folder.weights, len(epochs), epochs[-1]["seconds"], measured(task, best), dict(task.metrics))
