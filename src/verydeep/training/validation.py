"""The figures followed during training: one central crop for each validation image."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from verydeep.inference.forward import Forward
from verydeep.inference.loading import Loader
from verydeep.inference.protocol import Protocol
from verydeep.training.task import CentralCrops, Task

_CACHE_BYTES = 1 << 30
"""Crops are kept between epochs up to this size; beyond it they are decoded anew each time."""


class Validation:
    """Validation images as central crops of images rescaled to the smallest side Q, `side`, in pixels.

    The paper does not say how accuracy was followed during training; the central crop is the cheapest sound way.
    """

    def __init__(self, loader: Loader, side: int, task: Task) -> None:
        self.loader, self.side, self.task = loader, side, task
        self.crop = loader.net.image_size
        self.keep = len(loader.dataset) * self.crop * self.crop * 3 <= _CACHE_BYTES
        self.kept: list[NDArray[np.uint8]] = []

    def __call__(self, forward: Forward) -> dict[str, float]:
        """Return the images' mean `val_loss` and metrics of the task; NotFiniteError where scores are no numbers."""
        dataset, found = self.loader.dataset, dict[str, list[Tensor]]()
        first = 0
        for images in self._batches(forward.at_once(self.crop, self.crop)):
            scores = forward.score_maps(list(images)).mean(dim=(2, 3)).cpu()
            part = slice(first, first := first + len(images))
            crops = CentralCrops(dataset.samples[part], self.loader.sizes[part], self.side, self.crop)
            for name, values in self.task.measure(scores, crops).items():
                found.setdefault(name, []).append(values)
        return self.task.summary(found)

    def _batches(self, size: int) -> Iterator[NDArray[np.uint8]]:
        if self.kept:
            yield from self.kept
            return
        every = range(len(self.loader.dataset))
        indices = [every[start : start + size] for start in range(0, len(every), size)]
        fresh = []
        for pictures in self.loader.pictures(Protocol("center", (self.side,)), indices):
            batch = np.stack(pictures)
            if self.keep:
                fresh.append(batch)
            yield batch
        self.kept = fresh
