"""The training loop (paper: section 3.1)."""

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from verydeep.basics.device import pick_device, place
from verydeep.basics.errors import UserError, WorkError
from verydeep.basics.machine import cores
from verydeep.basics.progress import track
from verydeep.datasets import open_dataset
from verydeep.datasets.color import measure_color
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import Batch, TrainingLoader
from verydeep.images.color import ColorStatistics
from verydeep.nets.initialization import copy_layers
from verydeep.nets.network import VGG, create
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.weights import load, save
from verydeep.training.card import write_card
from verydeep.training.curves import draw_curves
from verydeep.training.log import RunLog, read_log
from verydeep.training.parallel import Processes
from verydeep.training.recipe import Images, Recipe, load_recipe
from verydeep.training.run_folder import RunFolder, find_weights, source_words
from verydeep.training.schedule import Schedule
from verydeep.training.state import State
from verydeep.training.step import MovingAverage, Stepper, make_optimizer, set_training
from verydeep.training.task import Classification, Task, first_figure, shown
from verydeep.training.validation import Validation

LOG_EVERY = 20
"""Steps between two lines of the log."""
SPEAK_SECONDS = 60.0
"""Time between two lines on the console within an epoch."""


class DivergedError(WorkError):
    """The loss is not a number or far above that of guessing."""


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
    net: str,
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
    quiet: bool = False,
) -> RunResult:
    """Train a network, or continue a run that was stopped, or return what a finished one left.

    Parameters
    ----------
    net : str
        Configuration: `A`, `A-LRN`, `B`, `C`, `D`, `E` or `B-5x5`.
    data : str or Path
        Data set: a folder, a tar file, or `scenes`.
    recipe : Recipe, str or Path
        A recipe, its name, or a TOML file.
    out : str or Path
        The run's folder.
    task : Task, optional
        What is learned: by default the class; `verydeep.localization.task.Localization` learns boxes.
    init_from : str or Path, optional
        Run or weights file of a classifier to start from: all layers where the configuration is the same, the
        paper's seven (section 3.1) where it is a shallower one; for boxes all but the last.
    overrides : iterable of str
        `section.key=value` on top of the recipe.
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
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides := list(overrides):
        raise UserError(f"overrides {overrides}: give them with a recipe's name, not with a finished Recipe")
    task = task or Classification()
    task.check(recipe)
    torch_device = pick_device(device)
    processes = Processes.join(torch_device)
    folder = RunFolder(Path(out))
    boxes = task.regression is not None
    (training, learned), (validation, _) = (
        task.examples(open_dataset(data, split, reader=reader, on_bad_image=on_bad_image, boxes=boxes))
        for split in ("train", "val")
    )
    words = source_words(net, data, training, validation, init_from, task.words)
    folder.check(recipe, words)
    if folder.card.is_file():
        return _result(folder, task)
    threads = workers or cores()
    color = measure_color(training, recipe.seed, threads)
    network = _prepare(net, training, recipe, color, init_from, task)
    told = {"reader": reader, "on_bad_image": None if on_bad_image == "error" else on_bad_image}
    words_of_command = {**words, **{key: v for key, v in told.items() if v}}
    network.provenance = {**_provenance(recipe, training, words_of_command), **learned}
    place(network, torch_device)
    run = _Run(recipe, folder, network, training, validation, color, processes, threads, compiled, quiet, task)
    run.checkpoint_seconds = checkpoint_minutes * 60
    if processes.first:  # only now, so that a wrong request leaves nothing behind
        folder.claim(recipe, words)
    run.go()
    return _result(folder, task)


def _prepare(
    net: str, training: Dataset, recipe: Recipe, color: ColorStatistics, init_from: str | Path | None, task: Task
) -> VGG:
    """Make the network as it is before the first step."""
    images = recipe.images
    mean = color.mean if images.mean == "measured" else images.mean
    std = color.std if images.divide_by_std else (1.0, 1.0, 1.0)
    preprocessing = Preprocessing(
        mean=mean, std=std, interpolation=images.interpolation, pool_round_up=images.pool_round_up
    )
    source = load(find_weights(init_from), "classify") if init_from is not None else None
    if source:
        if source.config.descriptor and "fc8" not in recipe.initialization.reset:
            raise UserError(
                "--init-from: its fc8 is a classifier on descriptors, which are normalized and trained no further; add "
                "--reset fc8"
            )
        if "fc8" not in recipe.initialization.reset:
            _check_classes(source.classes, training.classes)
        _check_input(source.preprocessing, preprocessing, images)
    network = create(
        net,
        training.classes,
        **recipe.network.model_dump(),
        initialization=recipe.initialization.scheme,
        seed=recipe.seed,
        # Weights that are taken over were made for their own input.
        preprocessing=source.preprocessing if source else preprocessing,
        regression=task.regression,
    )
    if source:
        _take_over(source, network, recipe, task)
    return network


def _check_classes(known: Sequence[str], wanted: Sequence[str]) -> None:
    if tuple(known) != tuple(wanted):
        raise UserError(
            f"--init-from: its network knows {len(known)} classes ({known[0]}, ...), the data set "
            f"has {len(wanted)} ({wanted[0]}, ...); they must be the same, or --reset fc8"
        )


def _check_input(source: Preprocessing, wanted: Preprocessing, images: Images) -> None:
    """Refuse a recipe that wants another input than the one that the weights taken over were made for."""
    pairs: dict[str, tuple[Any, Any]] = {
        "interpolation": (source.interpolation, wanted.interpolation),
        "pool_round_up": (source.pool_round_up, wanted.pool_round_up),
        "divide_by_std": (source.std != (1.0, 1.0, 1.0), images.divide_by_std),
        "mean": (source.mean, source.mean if images.mean == "measured" else wanted.mean),
    }
    for key, (theirs, ours) in pairs.items():
        if theirs != ours:
            word = str(theirs).lower() if isinstance(theirs, bool) else theirs
            raise UserError(
                f"--init-from: its weights were made for images.{key}={word}, the recipe has {ours}; add "
                f"--set images.{key}={word}, or start from other weights"
            )


def _take_over(source: VGG, network: VGG, recipe: Recipe, task: Task) -> None:
    layers = recipe.initialization.copy_layers
    names = task.layers_to_copy(source, network) if layers == "auto" else tuple(layers)
    copy_layers(source, network, names, without=recipe.initialization.reset)


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
    best = min(epochs, key=lambda line: float(line[first_figure(task)]))
    return RunResult(folder.weights, len(epochs), epochs[-1]["seconds"], {name: best[name] for name in task.figures})


@dataclass(frozen=True)
class _Pace:
    """Images a second of this sitting's part of the epoch, and the share of the time spent waiting for data."""

    images_per_second: float
    waiting: float


class _Run:
    """One sitting of a run: from its checkpoint, or its beginning, to its end or Ctrl-C."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        net: VGG,
        training: Dataset,
        validation: Dataset,
        color: ColorStatistics,
        processes: Processes,
        workers: int,
        compiled: bool,
        quiet: bool,
        task: Task,
    ) -> None:
        images = recipe.images
        self.recipe, self.folder, self.net, self.processes, self.task = recipe, folder, net, processes, task
        self.quiet = quiet or not processes.first
        self.loader = TrainingLoader(
            training,
            crop=net.image_size,
            scales=images.scales,
            batch_size=recipe.optimizer.batch_size,
            seed=recipe.seed,
            color=color,
            color_form=images.color_shift,
            color_scale=images.color_scale,
            flip=images.flip,
            interpolation=net.preprocessing.interpolation,
            workers=workers,
            rank=processes.rank,
            world_size=processes.size,
            drawer=task.drawer(training, net.image_size, recipe),
        )
        side = round(sum(images.scales) / 2)  # the paper's Q = 0.5 (Smin + Smax)
        self.validation = Validation(validation, side, net.image_size, net.preprocessing.interpolation, workers, task)
        decay = recipe.regularization.ema
        self.state = State(
            net,
            make_optimizer(net, recipe.optimizer),
            Schedule(recipe.schedule),
            MovingAverage(net, decay) if decay else None,
        )
        self.stepper = Stepper(net, self.state.optimizer, recipe, processes, compiled, task)
        self.checkpoint_seconds = 600.0
        self.recent: list[float] = []

    def go(self) -> None:
        """Train to the end."""
        if self.folder.checkpoint.is_file():
            self.state.load(self.folder.checkpoint)
        progress = self.state.progress
        self.log = RunLog(self.folder.path, progress.log_position, progress.steps, self.quiet, self.processes.first)
        if progress.steps:
            self.log.say(f"continuing at epoch {progress.epoch + 1}, step {progress.step}")
        set_training(self.net)
        try:
            with _stop_requested() as stop:
                while not self.state.schedule.finished(self.state.progress.epoch):
                    self._epoch(stop)
        finally:
            self.log.close()
        if self.processes.first:
            draw_curves(self.folder.path, self.task)
            write_card(self.folder, self.recipe, self.net, self.task)

    def _epoch(self, stop: threading.Event) -> None:
        progress, number = self.state.progress, self.state.progress.epoch
        count, size = self.loader.batches_per_epoch, self.recipe.optimizer.batch_size
        first, begun, waited, before = progress.step, time.monotonic(), self.loader.waited, progress.seconds
        saved = spoken = begun
        pace = _Pace(0.0, 0.0)  # stays so where the run was stopped between an epoch's last step and its validation
        batches = self.loader.epoch(number, first)
        for batch in track(batches, (count - first) * size, f"epoch {number + 1}", "images", size, quiet=self.quiet):
            self._step(batch, number, count)
            now = time.monotonic()
            progress.seconds = before + now - begun
            done = (progress.step - first) * size
            pace = _Pace(done / (now - begun), (self.loader.waited - waited) / (now - begun))
            if now - spoken > SPEAK_SECONDS:
                self.log.say(self._step_line(count, pace))
                spoken = now
            if stop.is_set() or now - saved > self.checkpoint_seconds:
                self._save()
                saved = now
            if stop.is_set():
                raise KeyboardInterrupt
        self._finish_epoch(count, pace)

    def _step(self, batch: Batch, number: int, count: int) -> None:
        """Do one step of epoch `number` and take it into account."""
        progress = self.state.progress
        factor = self.state.schedule.factor(number + progress.step / count, 1 / count)
        result = self.stepper(batch, number, progress.step, factor)
        if self.state.average:
            self.state.average.update(self.net)
        loss = float(result.loss)
        progress.step += 1
        progress.steps += 1
        self.recent = [*self.recent[-19:], loss]
        self._check(loss, factor, "loss")
        if len(self.recent) == 20:
            self._check(sum(self.recent) / 20, factor, "mean loss of 20 steps")
        progress.loss_sum += loss
        progress.wrong_sum += float(result.wrong)
        if progress.steps % LOG_EVERY == 0:
            self.log.write("train", progress.steps, {"loss": loss, "learning_rate": self._rate(factor)})

    def _step_line(self, count: int, pace: "_Pace") -> str:
        """Return what the person who watches reads within a long epoch."""
        progress = self.state.progress
        left = (count - progress.step) * self.recipe.optimizer.batch_size / pace.images_per_second
        loss, wrong = progress.loss_sum / progress.step, progress.wrong_sum / progress.step
        return (
            f"epoch {progress.epoch + 1:3d}, step {progress.step}/{count}  loss {loss:.3f}  error {wrong:6.1%}  "
            f"{pace.images_per_second:.0f} images/s  waiting {pace.waiting:.0%}  {left / 60:.0f} min left of the epoch"
        )

    def _finish_epoch(self, count: int, pace: "_Pace") -> None:
        progress, schedule = self.state.progress, self.state.schedule
        begun = time.monotonic()
        rate = self._rate(schedule.factor(progress.epoch + 1 - 1 / count))
        self.processes.average(tensor for tensor in self.net.buffers())
        result = self._validate()
        self._check(result["val_loss"], schedule.factor(progress.epoch), "validation loss")
        progress.seconds += time.monotonic() - begun
        progress.epoch, progress.step = progress.epoch + 1, 0
        values = {
            "epoch": progress.epoch,
            "train_loss": progress.loss_sum / count,
            "train_error": progress.wrong_sum / count,
            **result,
            "learning_rate": rate,
            "images_per_second": pace.images_per_second,
            "waiting": pace.waiting,
            "seconds": progress.seconds,
        }
        self.log.write("epoch", progress.steps, values)
        self.log.say(_line(values, self.recipe.schedule.epochs, shown(self.task, len(self.net.classes))))
        progress.loss_sum = progress.wrong_sum = 0.0
        if schedule.record(result[first_figure(self.task)]) and self.processes.first:
            self.net.provenance["epochs"] = progress.epoch
            save(self._tested(), self.folder.weights)
        self._save()

    def _validate(self) -> dict[str, float]:
        if self.processes.first:
            result = self.validation(self._tested(), self.recipe.precision)
        else:
            result = dict.fromkeys(("val_loss", *self.task.figures), 0.0)
        return {name: self.processes.share(figure) for name, figure in result.items()}

    def _tested(self) -> VGG:
        """Return the network that is tested and saved: the moving average where there is one."""
        if not self.state.average:
            return self.net
        averaged = copy.deepcopy(self.net)
        averaged.load_state_dict(self.state.average.average)
        return averaged

    def _rate(self, factor: float) -> float:
        return self.recipe.optimizer.learning_rate * factor

    def _check(self, loss: float, factor: float, what: str) -> None:
        """Stop a run whose loss is not a number or, but for a single batch's, ten times that of guessing."""
        lost = not math.isfinite(loss)
        if not lost and (what == "loss" or loss <= 10 * self.task.guessing(len(self.net.classes))):
            return
        there = self.folder.checkpoint.is_file()
        kept = f"{self.folder.checkpoint} of before is kept" if there else "there is no checkpoint yet"
        raise DivergedError(
            f"{what} {'is not a number' if lost else 'diverges'} at step {self.state.progress.steps} (epoch "
            f"{self.state.progress.epoch + 1}, learning rate {self._rate(factor):g}); {kept}; try, with another --out, "
            "a lower optimizer.learning_rate, schedule.warmup_epochs, or initialization.scheme=glorot with "
            "images.divide_by_std=true"
        )

    def _save(self) -> None:
        """Write the checkpoint, unless the last step has spoiled the weights: the next one will say so."""
        if self.processes.first and all(bool(weight.isfinite().all()) for weight in self.net.parameters()):
            self.state.progress.log_position = self.log.position
            self.state.save(self.folder.checkpoint)


def _line(values: dict[str, Any], epochs: int, names: Mapping[str, str]) -> str:
    """Return what the person who watches reads after an epoch."""
    figures = "  ".join(f"{name} {values[key]:6.1%}" for key, name in names.items())
    left = values["seconds"] / values["epoch"] * (epochs - values["epoch"])
    return (
        f"epoch {values['epoch']:3d}/{epochs}  loss {values['train_loss']:.3f}  error {values['train_error']:6.1%}  "
        f"val {figures}  lr {values['learning_rate']:.2g}  "
        f"{values['images_per_second']:.0f} images/s  waiting {values['waiting']:.0%}  "
        f"at most {left / 60:.0f} min left"
    )


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or a polite kill sets, so that the step under way is finished first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("stopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
