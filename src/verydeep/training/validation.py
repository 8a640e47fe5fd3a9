"""The validation error during training: one central crop an image."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from verydeep.datasets.dataset import Dataset
from verydeep.images import crops
from verydeep.images.rescale import rescaled_crop, rescaled_size
from verydeep.nets.network import VGG
from verydeep.training.step import set_training

_CACHE_BYTES = 1 << 30
"""Crops are kept between epochs up to this size; beyond it they are decoded anew each time."""
_BATCH = 256


@dataclass(frozen=True)
class ValidationResult:
    """Figures of one pass over the validation images.

    Attributes
    ----------
    loss : float
        Mean soft-max cross-entropy, natural logarithm.
    top1_error, top5_error : float
        Share of images whose label is not the first, or not among the first five classes, in [0, 1].
    """

    loss: float
    top1_error: float
    top5_error: float


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
    """

    def __init__(self, dataset: Dataset, side: int, crop: int, interpolation: str, workers: int) -> None:
        self.dataset = dataset
        self.side = side
        self.crop = crop
        self.interpolation = interpolation
        self.workers = workers
        self.labels = torch.tensor([sample.label for sample in dataset.samples])
        self.keep = len(dataset) * crop * crop * 3 <= _CACHE_BYTES
        self.kept: list[torch.Tensor] = []

    @torch.inference_mode()
    def __call__(self, net: VGG, precision: str) -> ValidationResult:
        """Test `net`, which is left in training mode."""
        net.eval()
        device = next(net.parameters()).device
        autocast = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        loss, wrong1, wrong5 = 0.0, 0, 0
        for images, labels in zip(self._batches(), torch.split(self.labels, _BATCH), strict=True):
            with autocast:
                scores = net(net.preprocessing(images.to(device))).float().cpu()
            loss += float(F.cross_entropy(scores, labels, reduction="sum"))
            best = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
            wrong1 += int((~best[:, 0]).sum())
            wrong5 += int((~best.any(1)).sum())
        set_training(net)
        count = len(self.dataset)
        return ValidationResult(loss / count, wrong1 / count, wrong5 / count)

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
        image = self.dataset.image(index)
        height, width = rescaled_size(image.shape[0], image.shape[1], self.side)
        top, left = crops.center(height, width, self.crop)
        return rescaled_crop(image, self.side, top, left, self.crop, self.crop, self.interpolation)
