"""Training batches: random views of a data set's images, loaded ahead by threads."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.machine import cores
from verydeep.basics.rng import generator
from verydeep.basics.threads import in_threads
from verydeep.datasets.dataset import Dataset
from verydeep.images.color import ColorForm, ColorStatistics, shift
from verydeep.images.decode import read_header
from verydeep.images.view import View, apply_view, decode_view, draw_view, place_view

AHEAD = 2  # batches in preparation beyond the one in use: all the memory the loader takes
TASK = 16  # images at most that a thread loads at a time: enough to hide the cost of a task, and soon done


@dataclass(frozen=True)
class Batch:
    """N training samples."""

    images: Tensor  # uint8, N x rows x columns x 3, RGB; both are the crop's side where nothing else is said
    labels: Tensor  # int64, N
    indices: Tensor  # int64, N; positions in the data set
    shifts: Tensor  # float32, N x 3; color shift to add to every pixel, in grey levels of R, G, B
    targets: Tensor  # float32, N x T; what the sampler says is to be answered, T = 0 without one
    rows: Tensor | None = None  # int64, N; of a process's share, each sample's place in the whole batch


@dataclass(frozen=True)
class Share:
    """What of every batch is here, of process number `rank` of `size`, where a batch is worked through in `parts`.

    Parts are the same for any number of processes; each process has its share of every part.
    """

    rank: int = 0
    size: int = 1
    parts: int = 1

    def rows(self, count: int) -> list[NDArray[np.int64]]:
        """Return which of a batch's `count` samples are here, part by part."""
        every = np.array_split(np.arange(count), self.parts)
        return [part[len(part) * self.rank // self.size : len(part) * (self.rank + 1) // self.size] for part in every]

    def check(self, count: int) -> None:
        """Raise UserError where a batch of `count` has not an image for every process in each of its parts."""
        if count // self.parts < self.size:
            of_parts = f", each in {self.parts} parts (optimizer.accumulation)" if self.parts > 1 else ""
            raise UserError(
                f"a batch of {count} images for {self.size} processes{of_parts}: expected an image for each; start "
                "fewer, or raise optimizer.batch_size"
            )


class ViewSampler(Protocol):
    """Draws the view of a sample, and says what a network is to answer when it sees it."""

    @property
    def numbers(self) -> int:
        """T, how many numbers an answer has."""

    def __call__(
        self, index: int, height: int, width: int, rng: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        """Return view and answer for sample `index`, an image of `height` x `width`; all chance is from `rng`."""


@dataclass(frozen=True)
class Augmentation:
    """How the view of a sample is made (section 3.1 of the paper).

    Attributes
    ----------
    crop : int
        Side of the crops, in pixels.
    scales : (int, int)
        Smin and Smax of the smallest image side, in pixels; equal for a fixed scale.
    flip : bool
        Whether half of the views are mirrored left to right.
    interpolation : str
        As in `verydeep.images.rescale.rescale`.
    color : ColorStatistics, optional
        Of the training set; None for no color shift.
    color_form, color_scale
        As in `verydeep.images.color.shift`.
    sampler : ViewSampler, optional
        Draws views and targets in place of `draw_view`, which gives the paper's views and no targets.
    balanced : bool
        Whether every class has the same number of views in a pass, as all images together, and not every image one.
    canvas : (int, int), optional
        Rows and columns of views that may be larger than the images; by default views are crops inside the images.
    fill : (int, int, int)
        Color of a canvas beside an image.
    """

    crop: int
    scales: tuple[int, int]
    flip: bool = True
    interpolation: str = "bilinear"
    color: ColorStatistics | None = None
    color_form: ColorForm = "sqrt"
    color_scale: float = 0.1
    sampler: ViewSampler | None = None
    balanced: bool = False
    canvas: tuple[int, int] | None = None
    fill: tuple[int, int, int] = (0, 0, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a view."""
        return self.canvas or (self.crop, self.crop)

    @property
    def numbers(self) -> int:
        """T, how many numbers an answer has."""
        return self.sampler.numbers if self.sampler else 0

    def draw(self, index: int, height: int, width: int, rng: np.random.Generator) -> tuple[View, NDArray[np.float32]]:
        """Return view and answer as a `ViewSampler` does."""
        if self.sampler:
            return self.sampler(index, height, width, rng)
        return draw_view(height, width, self.crop, self.scales, rng, self.flip), np.empty(0, np.float32)


@dataclass(frozen=True)
class _Part:
    """Some samples of a batch, loaded by one thread; with the last of them the batch is whole."""

    turn: int
    batch: Batch
    repeats: list[int]  # how many times each of the batch's images was there before in this pass
    rows: slice
    last: bool


class TrainingLoader:
    """Batches of random views (section 3.1 of the paper), every choice a function of (seed, pass, index).

    What an epoch holds depends neither on the number of threads nor on the number of processes.

    `batch_size` counts the samples of all processes together, of which `share` says what is here; an epoch
    passes `passes` times over the data set, each time in another order and with other views. `waited` are the seconds
    that the consumer has spent waiting for batches so far.
    UserError if the numbers do not fit together.
    """

    def __init__(
        self,
        dataset: Dataset,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        *,
        passes: int = 1,
        workers: int | None = None,
        share: Share = Share(),
    ) -> None:
        self.dataset, self.augmentation = dataset, augmentation
        self.batch_size, self.seed, self.passes, self.share = batch_size, seed, passes, share
        self.workers = workers or cores()
        self.waited = 0.0
        self._check()
        self._rows = np.concatenate(share.rows(self.images_per_batch))
        self._labels = np.array([sample.label for sample in dataset.samples], np.int64)
        # Only a set that makes its own pictures has no files to decode in part.
        self._has_files = type(dataset).image is Dataset.image

    @property
    def batches_per_pass(self) -> int:
        """Whole batches in the data set; 1 where it is smaller than a batch."""
        return max(1, len(self.dataset) // self.batch_size)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of all passes."""
        return self.passes * self.batches_per_pass

    @property
    def images_per_batch(self) -> int:
        """Samples that a batch really holds, over all processes together: the batch size, or the whole set."""
        return min(self.batch_size, len(self.dataset))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, in order, from batch `start` on; BadImageError if an image cannot be decoded.

        The samples left over when the set is no multiple of the batch are dropped (others each pass). The threads end
        with the iterator: at its end, when it is closed or dropped, and on any exception.
        """
        here = len(self._rows)
        ahead = AHEAD * -(-here // self._task(here))
        parts = in_threads(self._load, self._parts(epoch, start), self.workers, ahead)
        with closing(parts):
            while True:
                began = time.perf_counter()
                part = next(parts, None)
                self.waited += time.perf_counter() - began
                if part is None:
                    return
                if part.last:
                    yield part.batch

    def _parts(self, epoch: int, start: int) -> Iterator[_Part]:
        """Yield what threads are to load, batch after batch."""
        order = np.empty((2, 0), np.int64)
        for number in range(start, self.batches_per_epoch):
            turn, batch = divmod(number, self.batches_per_pass)
            turn += epoch * self.passes
            if number == start or batch == 0:
                order = self._order(turn)
            indices, repeats = self._slice(order, batch)
            count = len(indices)
            empty = Batch(
                torch.empty((count, *self.augmentation.shape, 3), dtype=torch.uint8),
                torch.from_numpy(self._labels[indices]),
                torch.from_numpy(indices.copy()),
                torch.zeros(count, 3),
                torch.empty(count, self.augmentation.numbers),
                torch.from_numpy(self._rows),
            )
            task = self._task(count)
            for first in range(0, count, task):
                yield _Part(turn, empty, repeats.tolist(), slice(first, first + task), last=first + task >= count)

    def _task(self, count: int) -> int:
        return max(1, min(TASK, count // self.workers))

    def _order(self, turn: int) -> NDArray[np.int64]:
        """Return the images of a pass in their order, and how many times each was there before: 2 x N."""
        rng, count = generator(self.seed, turn), len(self.dataset)
        if not self.augmentation.balanced:
            return np.stack([rng.permutation(count), np.zeros(count, np.int64)])
        classes = [np.flatnonzero(self._labels == label) for label in np.unique(self._labels)]
        chosen = []
        for number, members in enumerate(rng.permutation(len(classes)).tolist()):
            share = count * (number + 1) // len(classes) - count * number // len(classes)
            rounds = [rng.permutation(classes[members]) for _ in range(-(-share // len(classes[members])))]
            chosen.append(np.concatenate(rounds or [np.empty(0, np.int64)])[:share])
        order = rng.permutation(np.concatenate(chosen))
        by_image = order.argsort(kind="stable")
        first = np.searchsorted(order[by_image], order[by_image])
        repeats = np.empty(count, np.int64)
        repeats[by_image] = np.arange(count) - first
        return np.stack([order, repeats])

    def _slice(self, order: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Return the columns of a pass's batch `number` that fall to this process."""
        return order[:, number * self.batch_size : (number + 1) * self.batch_size][:, self._rows]

    def _load(self, part: _Part) -> _Part:
        """Fill in the views of some samples; runs in a thread."""
        batch, rows, how = part.batch, part.rows, self.augmentation
        images, targets = batch.images[rows].numpy(), batch.targets[rows].numpy()
        which = zip(batch.indices[rows].tolist(), part.repeats[rows], images, targets, strict=True)
        views = [self._view(part.turn, *row) for row in which]
        if how.color is not None:
            normals = [view.normals for view in views]
            batch.shifts[rows].numpy()[:] = shift(how.color, normals, how.color_form, how.color_scale)
        return part

    def _view(self, turn: int, index: int, repeat: int, pixels: NDArray[np.uint8], target: NDArray[np.float32]) -> View:
        """Draw the view of a sample and write it into `pixels`, and its target into `target`."""
        rng, how = generator(self.seed, turn, index, *([repeat] if repeat else [])), self.augmentation
        if how.canvas:
            image = self.dataset.image(index)
            view, target[:] = how.draw(index, image.shape[0], image.shape[1], rng)
            pixels[:] = place_view(image, view, how.canvas, how.fill, how.interpolation)
        elif self._has_files:
            data = self.dataset.read(index)
            header = read_header(data, self.dataset.where(index))
            view, target[:] = how.draw(index, header.height, header.width, rng)
            pixels[:] = decode_view(data, header, view, how.crop, how.interpolation)
        else:
            image = self.dataset.image(index)
            view, target[:] = how.draw(index, image.shape[0], image.shape[1], rng)
            pixels[:] = apply_view(image, view, how.crop, how.interpolation)
        return view

    def _check(self) -> None:
        if not len(self.dataset):
            raise UserError(f"{self.dataset.name} {self.dataset.split}: no images to train on")
        self.share.check(self.images_per_batch)
        crop, (smin, smax) = self.augmentation.crop, self.augmentation.scales
        if self.augmentation.canvas is None and not crop <= smin <= smax:
            raise UserError(f"scales [{smin};{smax}] with crops of {crop}: expected crop <= Smin <= Smax")
