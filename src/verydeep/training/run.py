"""One sitting of a run: its epochs, from the last checkpoint to the end or to Ctrl-C."""

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from types import FrameType
from typing import Any, TypedDict

import numpy as np
import torch

from verydeep.basics.errors import NotFiniteError, WorkError
from verydeep.basics.files import write_text
from verydeep.basics.progress import track
from verydeep.basics.rng import generator
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import Augmentation, Batch, Share, TrainingLoader
from verydeep.images.color import ColorStatistics
from verydeep.inference.forward import Forward
from verydeep.inference.loading import Loader
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import prepare
from verydeep.nets.network import Network
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.weights import save
from verydeep.training.batch_norm import measure_statistics, trained_batch_norm
from verydeep.training.card import write_card
from verydeep.training.curves import draw_curves
from verydeep.training.initial_weights import fit_new_layers
from verydeep.training.log import RunLog
from verydeep.training.parallel import Processes
from verydeep.training.recipe import Recipe
from verydeep.training.run_folder import RunFolder
from verydeep.training.schedule import Schedule
from verydeep.training.state import State
from verydeep.training.step import MovingAverage, Stepper, StepResult, make_optimizer, set_training
from verydeep.training.task import Task, first_metric, shown
from verydeep.training.validation import Validation

LOG_EVERY = 20
"""Steps between two lines of the log, and in each of the means by which divergence is found."""
SPEAK_SECONDS = 60.0
"""Time between two lines on the console within an epoch."""
STATISTICS_IMAGES = 1024
"""Training views, at most an epoch's, that batch norm's statistics are measured on before each validation."""
FIT_IMAGES = 32
"""Training images that new layers are fitted to."""


class DivergedError(WorkError):
    """The loss is not a number, or stays far above that of guessing."""


@dataclass(frozen=True)
class _Pace:
    """Images a second of this sitting's part of the epoch, and the share of the time spent waiting for data."""

    images_per_second: float
    waiting: float


@dataclass(frozen=True)
class Sitting:
    """How a run is worked on; nothing of it changes what is learned.

    Attributes
    ----------
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    workers : int, optional
        Threads that decode images; by default the number of cores.
    compiled : bool
        Whether the forward pass goes through `torch.compile`.
    checkpoint_minutes : float
        Time between checkpoints inside an epoch.
    announce : callable, optional
        Is given the effective recipe when nothing is left that could be refused, before anything is computed.
    quiet : bool
        Whether to print nothing.
    """

    device: str = "auto"
    workers: int | None = None
    compiled: bool = False
    checkpoint_minutes: float = 10.0
    announce: Callable[[Recipe], None] | None = None
    quiet: bool = False


class SittingOptions(TypedDict, total=False):
    """The fields of `Sitting` as keywords of functions for users."""

    device: str
    workers: int | None
    compiled: bool
    checkpoint_minutes: float
    announce: Callable[[Recipe], None] | None
    quiet: bool


@dataclass(frozen=True)
class Images:
    """What is learned from, what is tested on after each epoch, and the colors of the former."""

    training: Dataset
    validation: Dataset
    color: ColorStatistics


class Run:
    """One sitting of a run: the network, on its device, goes from the first step or the last checkpoint to the end.

    `new_layers` are the fully connected ones that are to be fitted to the layers below them; the folder is claimed
    before `go`.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        net: Network,
        new_layers: Sequence[str],
        images: Images,
        task: Task,
        processes: Processes,
        sitting: Sitting,
    ) -> None:
        self.recipe, self.folder, self.net, self.processes, self.task = recipe, folder, net, processes, task
        self.new_layers, self.sitting = new_layers, sitting
        self.quiet = sitting.quiet or not processes.first
        self.measured: list[tuple[float, StepResult]] = []  # of steps whose figures are still on the device
        augmentation = Augmentation(
            net.image_size,
            recipe.images.scales,
            recipe.images.flip,
            net.preprocessing.interpolation,
            images.color,
            recipe.images.color_shift,
            recipe.images.color_scale,
            task.sampler(images.training, net.image_size, recipe),
            recipe.data.balance == "sampling",
            task.canvas(recipe),
            grey_levels(net.preprocessing),
        )
        self.loader = TrainingLoader(
            images.training,
            augmentation,
            recipe.optimizer.batch_size,
            recipe.seed,
            passes=recipe.passes(len(images.training)),
            workers=sitting.workers,
            share=Share(processes.rank, processes.size, recipe.optimizer.accumulation),
        )
        own = task.validation(images.validation, net, recipe)
        self.validation = own or self._central_crops(images)

    def _central_crops(self, images: "Images") -> Validation:
        pictures = Loader(images.validation, self.net, Runtime().memory, self.sitting.workers)
        return Validation(pictures, self._side, self.task)

    @property
    def _side(self) -> int:
        return round(sum(self.recipe.images.scales) / 2)  # the paper's Q = 0.5 (Smin + Smax)

    def go(self) -> None:
        """Train to the end.

        A DivergedError leaves word of it in the folder; at Ctrl-C the step is finished and a checkpoint written before
        KeyboardInterrupt goes on.
        """
        if self.processes.first:
            self.folder.failed.unlink(missing_ok=True)
        progress = self.state.progress
        self.log = RunLog(self.folder.path, progress.log_position, progress.steps, self.quiet, self.processes.first)
        if progress.steps:
            self.log.say(f"continuing at epoch {progress.epoch + 1}, step {progress.step}")
        set_training(self.net)
        try:
            with _stop_requested(self.processes.first) as stop:
                while not self.state.schedule.finished(self.state.progress.epoch):
                    self._epoch(stop)
        except DivergedError as error:
            if self.processes.first:
                write_text(self.folder.failed, f"{error}\n")
            raise
        finally:
            self.log.close()
        if self.processes.first:
            draw_curves(self.folder.path, self.task)
            self.folder.seal()
            write_card(self.folder, self.recipe, self.net, self.task)

    def begin(self) -> None:
        """Make the state, from the checkpoint where there is one."""
        there = self.folder.checkpoint.is_file()
        if self.new_layers and not there:
            fit_new_layers(self.net, self.new_layers, self._images_to_fit(), self.processes.share)
        decay = self.recipe.regularization.ema
        self.state = State(
            self.net,
            make_optimizer(self.net, self.recipe.optimizer),
            Schedule(self.recipe.schedule),
            MovingAverage(self.net, decay) if decay else None,
        )
        if there:
            self.state.load(self.folder.checkpoint)
        self.stepper = Stepper(
            self.net, self.state.optimizer, self.recipe, self.processes, self.sitting.compiled, self.task
        )

    def _images_to_fit(self) -> torch.Tensor:
        """Return central crops of some training images, the same ones in every process."""
        net, dataset = self.net, self.loader.dataset
        chosen = generator(self.recipe.seed).permutation(len(dataset))[:FIT_IMAGES].tolist()
        center = Protocol("center", (self._side,))
        crops = np.stack([prepare(center, net, dataset.image(index)) for index in chosen])
        return torch.from_numpy(crops).to(next(net.parameters()).device)

    def _epoch(self, stop: threading.Event) -> None:
        progress, number = self.state.progress, self.state.progress.epoch
        count, size = self.loader.batches_per_epoch, self.loader.images_per_batch
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
            # Agreed on, since the others have to be there when figures are averaged.
            stopping, speaking, saving = self.processes.any(
                stop.is_set(), now - spoken > SPEAK_SECONDS, now - saved > 60 * self.sitting.checkpoint_minutes
            )
            if speaking:
                self._read()
                self.log.say(self._step_line(count, pace))
                spoken = now
            if stopping or saving:
                self._save()
                saved = now
            if stopping:
                raise KeyboardInterrupt
        self._finish_epoch(count, pace)

    def _step(self, batch: Batch, number: int, count: int) -> None:
        progress = self.state.progress
        factor = self.state.schedule.factor(number + progress.step / count, 1 / count)
        self.measured.append((factor, self.stepper(batch, number, progress.step, factor)))
        if self.state.average:
            self.state.average.update(self.net)
        progress.step += 1
        progress.steps += 1
        if progress.steps % LOG_EVERY == 0:
            self._read()

    def _read(self) -> None:
        """Read what the steps since the last reading measured, and take it into account: the device is waited for."""
        if not self.measured:
            return
        factors, results = zip(*self.measured, strict=True)
        self.measured.clear()
        pairs = torch.stack([torch.stack([result.loss, result.wrong.to(result.loss)]) for result in results]).tolist()
        losses, wrongs = (self.processes.mean(*values) for values in zip(*pairs, strict=True))
        progress = self.state.progress
        first = progress.steps - len(results) + 1
        for step, (loss, wrong, factor) in enumerate(zip(losses, wrongs, factors, strict=True), start=first):
            self._watch(step, loss, factor)
            progress.loss_sum += loss
            progress.wrong_sum += wrong
            if step % LOG_EVERY == 0:
                self.log.write("train", step, {"loss": loss, "learning_rate": self._rate(factor)})

    def _watch(self, step: int, loss: float, factor: float) -> None:
        """Stop where the loss is not a number, or its mean over 20 steps ten times that of guessing and not falling."""
        if not math.isfinite(loss):
            raise self._diverged("loss is not a number", step, factor)
        progress = self.state.progress
        if step == 1:
            progress.before = loss  # a network that begins far off has not diverged as long as it gets nearer
        progress.recent_sum += loss
        if step % LOG_EVERY == 0:
            mean, progress.recent_sum = progress.recent_sum / LOG_EVERY, 0.0
            if mean > 10 * self.task.guessing(len(self.net.classes), self.recipe) and mean >= progress.before:
                raise self._diverged(f"mean loss of {LOG_EVERY} steps, {mean:.3g}, diverges", step, factor)
            progress.before = mean

    def _step_line(self, count: int, pace: "_Pace") -> str:
        """Return what the person who watches reads within a long epoch."""
        progress = self.state.progress
        left = (count - progress.step) * self.loader.images_per_batch / pace.images_per_second
        loss, wrong = progress.loss_sum / progress.step, progress.wrong_sum / progress.step
        return (
            f"epoch {progress.epoch + 1:3d}, step {progress.step}/{count}  loss {loss:.3f}  error {wrong:6.1%}  "
            f"{pace.images_per_second:.0f} images/s  waiting {pace.waiting:.0%}  {left / 60:.0f} min left of the epoch"
        )

    def _finish_epoch(self, count: int, pace: "_Pace") -> None:
        self._read()
        progress, schedule = self.state.progress, self.state.schedule
        begun = time.monotonic()
        factor = schedule.factor(progress.epoch + 1 - 1 / count, 1 / count)
        tested = self._tested()
        result = self._validate(tested)
        if not math.isfinite(result["val_loss"]):
            raise self._diverged("validation loss is not a number", progress.steps, factor)
        progress.seconds += time.monotonic() - begun
        progress.epoch, progress.step = progress.epoch + 1, 0
        values = {
            "epoch": progress.epoch,
            "train_loss": progress.loss_sum / count,
            "train_error": progress.wrong_sum / count,
            **result,
            "learning_rate": self._rate(factor),
            "images_per_second": pace.images_per_second,
            "waiting": pace.waiting,
            "seconds": progress.seconds,
        }
        self.log.write("epoch", progress.steps, values)
        self.log.say(_line(values, self.recipe.schedule.epochs, shown(self.task, len(self.net.classes))))
        progress.loss_sum = progress.wrong_sum = 0.0
        if schedule.record(result[first_metric(self.task)], result["val_loss"]) and self.processes.first:
            tested.provenance = replace(tested.provenance, epochs=progress.epoch)
            save(tested, self.folder.weights)
        self._save()

    def _validate(self, tested: Network) -> dict[str, float]:
        result = dict.fromkeys(("val_loss", *self.task.metrics), math.nan)
        if self.processes.first:
            device = str(next(tested.parameters()).device)
            forward = Forward(tested, Options(), Runtime(device, "torch", precision=self.recipe.precision))
            with suppress(NotFiniteError):
                result = self.validation(forward)
            set_training(tested)
        return self.processes.share(result)

    def _tested(self) -> Network:
        """Return the network that is tested and saved: the average where there is one, with statistics of its own."""
        measured = bool(trained_batch_norm(self.net))
        if not (self.state.average or measured):
            return self.net
        self.state.optimizer.zero_grad(set_to_none=True)  # lest gradients are copied, too
        tested = copy.deepcopy(self.net)
        if self.state.average:
            tested.load_state_dict(self.state.average.average)
        if measured:
            batches = self.loader.epoch(self.state.progress.epoch)
            number = max(1, min(STATISTICS_IMAGES // self.loader.images_per_batch, self.loader.batches_per_epoch))
            measure_statistics(tested, islice(batches, number), self.stepper.parts, self.recipe.precision)
        return tested

    def _rate(self, factor: float) -> float:
        return self.recipe.optimizer.learning_rate * factor

    def _diverged(self, what: str, step: int, factor: float) -> DivergedError:
        there = self.folder.checkpoint.is_file()
        kept = f"{self.folder.checkpoint} of before is kept" if there else "there is no checkpoint yet"
        return DivergedError(
            f"{what} at step {step} (epoch {self.state.progress.epoch + 1}, learning rate "
            f"{self._rate(factor):g}); {kept}; try, with another --out, a lower optimizer.learning_rate, "
            "schedule.warmup_epochs, or initialization.scheme=glorot with images.divide_by_std=true"
        )

    def _save(self) -> None:
        """Write the checkpoint, unless the last step has spoiled the weights: the next one will say so."""
        self._read()
        if self.processes.first and all(bool(weight.isfinite().all()) for weight in self.net.parameters()):
            self.state.progress.log_position = self.log.position
            self.state.save(self.folder.checkpoint)


def grey_levels(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return the mean color that a network's input is centered on, as R, G, B of 0 to 255."""
    red, green, blue = (round(255 / preprocessing.value_range * value) for value in preprocessing.mean)
    return red, green, blue


def _line(values: dict[str, Any], epochs: int, names: Mapping[str, str]) -> str:
    """Return what the person who watches reads after an epoch."""
    metrics = "  ".join(f"{name} {values[key]:6.1%}" for key, name in names.items())
    left = values["seconds"] / values["epoch"] * (epochs - values["epoch"])
    return (
        f"epoch {values['epoch']:3d}/{epochs}  loss {values['train_loss']:.3f}  error {values['train_error']:6.1%}  "
        f"val {metrics}  lr {values['learning_rate']:.2g}  "
        f"{values['images_per_second']:.0f} images/s  waiting {values['waiting']:.0%}  "
        f"at most {left / 60:.0f} min left"
    )


@contextmanager
def _stop_requested(speaks: bool) -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or a polite kill sets, so that the step under way is finished first."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        if speaks:
            print("stopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
