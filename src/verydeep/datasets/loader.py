"""Training batches: random views of a data set's images, loaded ahead by threads."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.chance import generator
from verydeep.basics.errors import UserError
from verydeep.basics.machine import cores
from verydeep.datasets.dataset import Dataset
from verydeep.images.color import ColorForm, ColorStatistics, shift
from verydeep.images.decode import read_header
from verydeep.images.view import View, apply_view, decode_view, draw_view

AHEAD = 2  # batches in preparation beyond the one in use: all the memory the loader takes
TASK = 16  # images at most that a thread loads at a time: enough to hide the cost of a task, and soon done


@dataclass(frozen=True)
class Batch:
    """N training samples.

    Parameters
    ----------
    images : Tensor
        uint8, N x crop x crop x 3, RGB.
    labels : Tensor
        int64, N.
    indices : Tensor
        int64, N; positions in the data set.
    shifts : Tensor
        float32, N x 3; color shift to add to every pixel, in grey levels of R, G, B.
    targets : Tensor
        float32, N x T; what the loader's drawer says the network is to answer, T = 0 without one.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    shifts: Tensor
    targets: Tensor


class Drawer(Protocol):
    """Draws the view of a sample, and says what a network is to answer when it sees it."""

    @property
    def numbers(self) -> int:
        """T, how many numbers an answer has."""

    def __call__(
        self, index: int, height: int, width: int, chance: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        """Return view and answer for sample `index`, an image of `height` x `width`; all chance is from `chance`."""


class TrainingLoader:
    """Batches of random views (section 3.1 of the paper), every choice a function of (seed, pass, index).

    What an epoch holds depends neither on the number of threads nor on the number of processes.

    Parameters
    ----------
    dataset : Dataset
        The training set.
    crop : int
        Side of the crops, in pixels.
    scales : (int, int)
        Smin and Smax of the smallest image side, in pixels; equal for a fixed scale.
    batch_size : int
        Samples in a batch, over all processes together.
    seed : int
        Of the run.
    color : ColorStatistics or None
        Of the training set; None for no color shift.
    color_form, color_scale
        As in `verydeep.images.color.shift`.
    flip : bool
        Whether half of the views are mirrored left to right.
    interpolation : str
        As in `verydeep.images.rescale.rescale`.
    workers : int or None
        Threads; None for one per core.
    rank, world_size : int
        This process and their number: each gets its slice of every batch.
    drawer : Drawer, optional
        Draws views and targets in place of `draw_view`, which gives the paper's views and no targets.
    passes : int
        How many times an epoch passes over the data set, each time in another order and with other views.

    Attributes
    ----------
    waited : float
        Seconds that the consumer has spent waiting for batches so far.

    Raises
    ------
    UserError
        If the numbers do not fit together.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        crop: int,
        scales: tuple[int, int],
        batch_size: int,
        seed: int,
        color: ColorStatistics | None,
        color_form: ColorForm = "sqrt",
        color_scale: float = 0.1,
        flip: bool = True,
        interpolation: str = "bilinear",
        workers: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        drawer: Drawer | None = None,
        passes: int = 1,
    ) -> None:
        self.dataset = dataset
        self.crop = crop
        self.scales = scales
        self.batch_size = batch_size
        self.seed = seed
        self.color = color
        self.color_form = color_form
        self.color_scale = color_scale
        self.flip = flip
        self.interpolation = interpolation
        self.workers = workers or cores()
        self.rank = rank
        self.world_size = world_size
        self.drawer = drawer or _Plain(crop, scales, flip)
        self.passes = passes
        self.waited = 0.0
        self._check()
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
        """Yield the batches of an epoch, in order, from batch `start` on.

        The samples left over when the set is no multiple of the batch are dropped (others each pass). The
        threads end with the iterator: at its end, when it is closed or dropped, and on any exception.

        Raises
        ------
        BadImageError
            If an image cannot be decoded.
        """
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        threads = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        order = np.empty(0, np.int64)
        try:
            for number in range(start, self.batches_per_epoch):
                turn, batch = divmod(number, self.batches_per_pass)
                turn += epoch * self.passes
                if number == start or batch == 0:
                    order = generator(self.seed, turn).permutation(len(self.dataset))
                pending.append(self._begin(threads, turn, self._slice(order, batch)))
                if len(pending) > AHEAD:
                    yield self._finish(*pending.popleft())
            while pending:
                yield self._finish(*pending.popleft())
        finally:
            threads.shutdown(cancel_futures=True)

    def _slice(self, order: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Return the indices of a pass's batch `number` that fall to this process."""
        batch = order[number * self.batch_size : (number + 1) * self.batch_size]
        share = [len(batch) * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return batch[share[0] : share[1]]

    def _begin(
        self, threads: ThreadPoolExecutor, turn: int, indices: NDArray[np.int64]
    ) -> tuple[Batch, list[Future[None]]]:
        """Start loading a batch; it is whole when the futures are done."""
        images = np.empty((len(indices), self.crop, self.crop, 3), np.uint8)
        shifts = np.zeros((len(indices), 3), np.float32)
        targets = np.empty((len(indices), self.drawer.numbers), np.float32)
        task = max(1, min(TASK, len(indices) // self.workers))
        parts = [slice(first, first + task) for first in range(0, len(indices), task)]
        futures = [
            threads.submit(self._load, turn, indices[part].tolist(), images[part], shifts[part], targets[part])
            for part in parts
        ]
        arrays = (images, self._labels[indices], indices, shifts, targets)
        return Batch(*(torch.from_numpy(array) for array in arrays)), futures

    def _finish(self, batch: Batch, futures: list[Future[None]]) -> Batch:
        began = time.perf_counter()
        for future in futures:
            future.result()
        self.waited += time.perf_counter() - began
        return batch

    def _load(
        self,
        turn: int,
        indices: list[int],
        images: NDArray[np.uint8],
        shifts: NDArray[np.float32],
        targets: NDArray[np.float32],
    ) -> None:
        """Fill `images`, `shifts` and `targets` with the views of some samples; runs in a thread."""
        views = [self._view(turn, *row) for row in zip(indices, images, targets, strict=True)]
        if self.color is not None:
            shifts[:] = shift(self.color, [view.normals for view in views], self.color_form, self.color_scale)

    def _view(self, turn: int, index: int, pixels: NDArray[np.uint8], target: NDArray[np.float32]) -> View:
        """Draw the view of a sample and write it into `pixels`, and its target into `target`."""
        chance = generator(self.seed, turn, index)
        if self._has_files:
            data = self.dataset.read(index)
            header = read_header(data, self.dataset.where(index))
            view, target[:] = self.drawer(index, header.height, header.width, chance)
            pixels[:] = decode_view(data, header, view, self.crop, self.interpolation)
        else:
            image = self.dataset.image(index)
            view, target[:] = self.drawer(index, image.shape[0], image.shape[1], chance)
            pixels[:] = apply_view(image, view, self.crop, self.interpolation)
        return view

    def _check(self) -> None:
        if not len(self.dataset):
            raise UserError(f"{self.dataset.name} {self.dataset.split}: no images to train on")
        check_batch_size(self.batch_size, self.world_size)
        if not self.crop <= self.scales[0] <= self.scales[1]:
            smin, smax = self.scales
            raise UserError(f"scales [{smin};{smax}] with crops of {self.crop}: expected crop <= Smin <= Smax")


def check_batch_size(batch_size: int, world_size: int) -> None:
    """Raise UserError where a batch cannot be shared out evenly among the processes."""
    if batch_size < 1 or batch_size % world_size:
        raise UserError(f"batch_size {batch_size}: expected a multiple of the {world_size} processes")


@dataclass(frozen=True)
class _Plain:
    """The paper's views; nothing to answer but the label."""

    crop: int
    scales: tuple[int, int]
    flip: bool
    numbers: int = 0

    def __call__(
        self, index: int, height: int, width: int, chance: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        return draw_view(height, width, self.crop, self.scales, chance, self.flip), np.empty(0, np.float32)
