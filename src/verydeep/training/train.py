"""The training loop (paper: section 3.1)."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import UserError
from verydeep.basics.machine import cores
from verydeep.datasets import open_dataset
from verydeep.datasets.color import measure_color
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import check_batch_size
from verydeep.images.color import ColorStatistics
from verydeep.nets.configurations import configuration
from verydeep.nets.initialization import standard_deviation
from verydeep.nets.network import VGG, create
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.weights import load
from verydeep.training.initial_weights import check_classes, check_fits, layers_taken, recipe_from, take_over
from verydeep.training.log import best_epoch, read_log
from verydeep.training.parallel import Processes
from verydeep.training.recipe import Recipe, load_recipe
from verydeep.training.run import DivergedError as DivergedError
from verydeep.training.run import Run
from verydeep.training.run_folder import RunFolder, find_weights, source_words
from verydeep.training.step import make_optimizer
from verydeep.training.task import Classification, Task, first_figure


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
    figures : dict of str to float
        What that network's validation on a central crop gave, in [0, 1]: `top1_error` and `top5_error` of a
        classifier, `localization_error` and `mean_iou` of a localizer.
    """

    weights: Path
    epochs: int
    seconds: float
    figures: dict[str, float]


def train(
    net: str | None,
    data: str | Path,
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    task: Task | None = None,
    init_from: str | Path | None = None,
    overrides: Iterable[str] = (),
    device: str = "auto",
    workers: int | None = None,
    compiled: bool = False,
    checkpoint_minutes: float = 10.0,
    on_bad_image: Literal["error", "skip"] = "error",
    reader: str | None = None,
    announce: Callable[[Recipe], None] | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train a network, or continue a run that was stopped, or return what a finished one left.

    Parameters
    ----------
    net : str or None
        Configuration: `A`, `A-LRN`, `B`, `C`, `D`, `E` or `B-5x5`; None: that of `init_from`.
    data : str or Path
        Data set: a folder, a tar file, or `scenes`.
    recipe : Recipe, str or Path
        A recipe, its name, or a TOML file. With `init_from` and a recipe's name or file, network and input are those
        of the weights to start from, whatever the recipe says; a finished Recipe is taken as it is.
    out : str or Path
        The run's folder.
    task : Task, optional
        What is learned: by default the class; `verydeep.localization.task.Localization` learns boxes.
    init_from : str or Path, optional
        Run or weights file of a classifier to start from: all layers where the configuration is the same, the
        paper's seven (section 3.1) where it is a shallower one; for boxes all but the last.
    overrides : iterable of str
        `section.key=value` on top of the recipe, and of what comes from `init_from`.
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    workers : int, optional
        Threads that decode images; by default the number of cores. Results do not depend on it.
    compiled : bool
        Whether to use `torch.compile`.
    checkpoint_minutes : float
        Time between checkpoints inside an epoch.
    on_bad_image : {"error", "skip"}
        What a damaged image of the data set does, and, where boxes are learned, a bad box.
    reader : str, optional
        Layout of the data set, where detection is not wanted.
    announce : callable, optional
        Is given the effective recipe when nothing is left that could be refused, before anything is computed.
    quiet : bool
        Whether to print nothing.

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
    source = load(find_weights(init_from), "classify") if init_from is not None else None
    if net is None and source is None:
        raise UserError("--net: a configuration is needed (--net A, or --init-from W for a network to start from)")
    net = configuration(net or source.configuration.name).name if source or net else ""
    overrides = list(overrides)
    if isinstance(recipe, Recipe):
        if overrides:
            raise UserError(f"overrides {overrides}: give them with a recipe's name, not with a finished Recipe")
    else:
        recipe = recipe_from(source, recipe, overrides) if source else load_recipe(recipe, overrides)
    task.check(recipe)
    torch_device = pick_device(device)
    processes = Processes.join(torch_device)
    _check(net, recipe, task, source, init_from)
    check_batch_size(recipe.optimizer.batch_size, processes.size)
    folder = RunFolder(Path(out))
    boxes = task.regression is not None
    (training, learned), (validation, _) = (
        task.examples(open_dataset(data, split, reader=reader, on_bad_image=on_bad_image, boxes=boxes))
        for split in ("train", "val")
    )
    words = source_words(net, data, training, validation, init_from, task.words)
    folder.check(recipe, words)
    network = create(
        net,
        training.classes,
        **recipe.network.model_dump(),
        initialization=recipe.initialization.scheme,
        seed=recipe.seed,
        regression=task.regression,
    )
    new_layers: tuple[str, ...] = ()
    if source:
        taken = layers_taken(source, network, recipe, task)
        check_classes(source, training.classes, taken, str(init_from))
        network.preprocessing = source.preprocessing  # they were made for it
        new_layers = take_over(source, network, taken)
    if announce:
        announce(recipe)
    if folder.card.is_file():
        return _result(folder, task)
    if not (source or quiet):
        _say_if_few(training, recipe)
    threads = workers or cores()
    color = measure_color(training, recipe.seed, threads)
    if not source:
        network.preprocessing = _preprocessing(recipe, color)
    told = {"reader": reader, "on_bad_image": None if on_bad_image == "error" else on_bad_image}
    words_of_command = {**words, **{key: v for key, v in told.items() if v}}
    network.provenance = {**_provenance(recipe, training, words_of_command), **learned}
    source = None  # its memory is wanted
    place(network, torch_device)
    run = Run(
        recipe,
        folder,
        network,
        new_layers if recipe.initialization.new_layers == "fitted" else (),
        training,
        validation,
        color,
        task,
        processes,
        workers=threads,
        compiled=compiled,
        checkpoint_seconds=checkpoint_minutes * 60,
        quiet=quiet,
    )
    if processes.first:  # only now, so that a wrong request leaves nothing behind
        folder.claim(recipe, words)
    run.go()
    return _result(folder, task)


def _check(net: str, recipe: Recipe, task: Task, source: VGG | None, init_from: str | Path | None) -> None:
    """Refuse what cannot be, before the data set is opened."""
    standard_deviation(recipe.initialization.scheme, 1, 1)
    with torch.device("meta"):
        classes = source.classes if source else ("any",)
        network = VGG(configuration(net), classes, **recipe.network.model_dump(), regression=task.regression)
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


def _provenance(recipe: Recipe, training: Dataset, words: dict[str, str]) -> dict[str, Any]:
    return {
        **words,
        "data": training.name,
        "split": training.provenance,
        "training_images": len(training),
        "train_scales": list(recipe.images.scales),
        "recipe": recipe.name,
        "seed": recipe.seed,
        "trained_layers": recipe.optimizer.trained_layers,
        "epochs": 0,
    }


def _result(folder: RunFolder, task: Task) -> RunResult:
    epochs = read_log(folder.path, "epoch")
    best = best_epoch(epochs, first_figure(task))
    return RunResult(folder.weights, len(epochs), epochs[-1]["seconds"], {name: best[name] for name in task.figures})
