"""The figures followed during training: one central crop for each validation image."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.datasets.dataset import Dataset
from verydeep.images import crops
from verydeep.images.rescale import rescaled_crop, rescaled_size
from verydeep.nets.network import VGG
from verydeep.training.step import arithmetic, set_training
from verydeep.training.task import CentralCrops, Task

_CACHE_BYTES = 1 << 30
"""Crops are kept between epochs up to this size; beyond it they are decoded anew each time."""
_BATCH = 256


class Validation:
    """Validation images as central crops at one scale.

    The paper does not say how accuracy was followed during training; the central crop is the cheapest sound way.

    Parameters
    ----------
    dataset : Dataset
        The validation images.
    side : int
        Smallest side Q that images are rescaled to, in pixels.
    crop : int
        Side of the crop in pixels.
    interpolation : str
        As in `Preprocessing`.
    workers : int
        Threads that decode.
    task : Task
        What is measured.
    """

    def __init__(self, dataset: Dataset, side: int, crop: int, interpolation: str, workers: int, task: Task) -> None:
        self.dataset = dataset
        self.task = task
        self.side = side
        self.crop = crop
        self.interpolation = interpolation
        self.workers = workers
        self.sizes = [(0, 0)] * len(dataset)  # filled in as images are decoded
        self.keep = len(dataset) * crop * crop * 3 <= _CACHE_BYTES
        self.kept: list[torch.Tensor] = []

    @torch.inference_mode()
    def __call__(self, net: VGG, precision: str) -> dict[str, float]:
        """Return the mean over the images of `val_loss` and the task's figures; `net` is left in training mode."""
        net.eval()
        device = next(net.parameters()).device
        totals: dict[str, float] = {}
        for first, images in zip(range(0, len(self.dataset), _BATCH), self._batches(), strict=True):
            with arithmetic(device, precision):
                scores = net(net.preprocessing(images.to(device))).float().cpu()
            part = slice(first, first + _BATCH)
            crops = CentralCrops(self.dataset.samples[part], self.sizes[part], self.side, self.crop)
            for name, values in self.task.measure(scores, crops).items():
                totals[name] = totals.get(name, 0.0) + float(values.double().sum())
        set_training(net)
        return {name: total / len(self.dataset) for name, total in totals.items()}

    def _batches(self) -> Iterator[torch.Tensor]:
        if self.kept:
            yield from self.kept
            return
        fresh = []
        with ThreadPoolExecutor(self.workers) as pool:
            for indices in torch.split(torch.arange(len(self.dataset)), _BATCH):
                batch = torch.from_numpy(np.stack(list(pool.map(self._image, indices.tolist()))))
                if self.keep:
                    fresh.append(batch)
                yield batch
        self.kept = fresh

    def _image(self, index: int) -> NDArray[np.uint8]:
        crop, self.sizes[index] = central_crop(self.dataset, index, self.side, self.crop, self.interpolation)
        return crop


def central_crop(
    dataset: Dataset, index: int, side: int, crop: int, interpolation: str
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return the central `crop` x `crop` of an image of smallest side `side`, and the original's height and width."""
    image = dataset.image(index)
    height, width = rescaled_size(image.shape[0], image.shape[1], side)
    top, left = crops.center(height, width, crop)
    return rescaled_crop(image, side, top, left, crop, crop, interpolation), (image.shape[0], image.shape[1])
