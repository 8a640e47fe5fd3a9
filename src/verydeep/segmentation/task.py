"""Learning a class for each pixel: what training does otherwise than for classes (Long, Shelhamer & Darrell 2015)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import Batch, ViewSampler
from verydeep.datasets.mask_folders import open_segmented
from verydeep.datasets.masks import IGNORED, SegmentedDataset
from verydeep.datasets.opening import Reading
from verydeep.inference.forward import Forward
from verydeep.nets.config import NetworkConfig, SegmentationConfig, SegmentationHead
from verydeep.nets.network import Network
from verydeep.segmentation.metrics import confusion, metrics
from verydeep.segmentation.segmenter import Segmenter, usual_factor
from verydeep.segmentation.views import MaskViews
from verydeep.training.recipe import Recipe
from verydeep.training.task import CentralCrops, Validate


@dataclass(frozen=True)
class Segmentation:
    """Learning a class for each pixel, from score maps of the strides that the head has."""

    head: SegmentationHead = "8s"

    regression = None
    loss_name = "soft-max cross-entropy of pixels"

    @property
    def metrics(self) -> Mapping[str, str]:
        """What is left to a mean IoU of 1, which chooses the epoch, that, and the share of pixels."""
        return {"iou_error": "1 - mean IoU", "mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}

    @property
    def words(self) -> dict[str, str]:
        """The options of `verydeep train` that ask for it."""
        return {"task": "segment", "head": self.head}

    def open(self, reading: Reading, data: str | Path, split: str) -> Dataset:
        """Return pictures with masks."""
        if given := reading.words:
            name = next(iter(given)).replace("_", "-")
            raise UserError(f"--{name} is for classes and boxes; leave it out for masks (docs/segmentation.md)")
        return open_segmented(data, split)

    def configured(self, config: NetworkConfig, recipe: Recipe) -> NetworkConfig:
        """Return the network with its head."""
        about = recipe.segmentation
        head = SegmentationConfig(self.head, about.padding, about.skip_scales)
        return replace(config, auxiliary=False, segmentation=head)

    def canvas(self, recipe: Recipe) -> tuple[int, int]:
        """Return the recipe's crop, which may be larger than pictures."""
        return recipe.segmentation.crop

    def check(self, recipe: Recipe) -> None:
        """Refuse what is for one class an image."""
        if recipe.data.balance != "none":
            raise UserError(f"recipe {recipe.name}: data.balance is for one class an image; leave it out")
        if recipe.regularization.mixup:
            raise UserError(f"recipe {recipe.name}: regularization.mixup is for one class an image; set it to 0")

    def examples(self, dataset: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Return all pictures."""
        return dataset, {}

    def guessing(self, classes: int, recipe: Recipe) -> float:
        """Return the loss of equal posteriors: of a view's pixels together where the loss is their sum."""
        pixels = math.prod(recipe.segmentation.crop) if recipe.segmentation.loss == "sum" else 1
        return pixels * math.log(max(classes, 2))

    def layers_to_copy(self, source: Network, network: Network) -> tuple[str, ...]:
        """Return all layers that both have, but for scores of other classes, which begin anew.

        So a run from a coarser head begins with that one's answers: the finer maps' scores are 0 at first.
        """
        same = source.task == "segment" and source.classes == network.classes
        scores = () if same else (network.config.classifier, "score_", "upscore")
        return tuple(n for n in network.weighted if n in source.weighted and not n.startswith(scores or ("\0",)))

    def sampler(self, dataset: Dataset, crop: int, recipe: Recipe) -> ViewSampler:
        """Return what draws views with a label for each pixel."""
        about = recipe.segmentation
        return MaskViews(cast(SegmentedDataset, dataset), about.crop, about.factors, recipe.images.flip)

    def loss(self, scores: Tensor, batch: Batch, part: Tensor, recipe: Recipe) -> Tensor:
        """Return the pixels' cross-entropy: summed in each picture, mean over pictures, or the mean over pixels."""
        labels = _labels(scores, batch, part)
        smoothing = recipe.regularization.label_smoothing
        total = F.cross_entropy(scores, labels, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
        counted = len(part) if recipe.segmentation.loss == "sum" else (labels != IGNORED).sum().clamp_min(1)
        return total / counted

    def counted(self, batch: Batch, part: Tensor, recipe: Recipe) -> int | Tensor:
        """Return the number of pictures, or of pixels that have a label."""
        return len(part) if recipe.segmentation.loss == "sum" else (batch.targets[part] != IGNORED).sum()

    def wrong(self, scores: Tensor, batch: Batch, part: Tensor) -> Tensor:
        """Return where the class is not the label, of the pixels that have one."""
        labels = _labels(scores, batch, part)
        wrong = (scores.argmax(1) != labels)[labels != IGNORED]
        return wrong if len(wrong) else torch.zeros(1, dtype=torch.bool, device=scores.device)

    def validation(self, images: Dataset, net: Network, recipe: Recipe) -> Validate:
        """Return what measures whole pictures."""
        return WholePictures(cast(SegmentedDataset, images), usual_factor(net))

    def measure(self, scores: Tensor, crops: CentralCrops) -> dict[str, Tensor]:
        """Do nothing: whole pictures are measured by `validation`."""
        raise NotImplementedError

    def summary(self, found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        """Do nothing, as `measure`."""
        raise NotImplementedError

    def how_to_test(self, weights: str, side: int) -> str:
        """Return the command for whole pictures."""
        return f"verydeep evaluate {weights} --task segment --data DATA --out OUT"


@dataclass(frozen=True)
class WholePictures:
    """Measures a network on whole pictures, at their own size."""

    dataset: SegmentedDataset
    factor: float

    def __call__(self, forward: Forward) -> dict[str, float]:
        """Return the mean loss of all labeled pixels, and metrics of all pictures together."""
        segmenter, classes = Segmenter(forward, self.factor), len(self.dataset.classes)
        total, loss = np.zeros((classes, classes), np.int64), 0.0
        for index in range(len(self.dataset)):
            scores, labels = segmenter.scores(self.dataset.image(index)).cpu(), self.dataset.mask(index)
            truth = torch.from_numpy(labels.astype(np.int64))[None]
            loss += float(F.cross_entropy(scores[None], truth, ignore_index=IGNORED, reduction="sum"))
            total += confusion(labels, scores.argmax(0).numpy().astype(np.uint8), classes)
        found = {name: float(value) for name, value in metrics(total).items()}
        return {
            "val_loss": loss / max(int(total.sum()), 1),
            "iou_error": 1 - found["mean_iou"],
            "mean_iou": found["mean_iou"],
            "pixel_accuracy": found["pixel_accuracy"],
        }


def _labels(scores: Tensor, batch: Batch, part: Tensor) -> Tensor:
    return batch.targets[part].long().reshape(-1, *scores.shape[2:])
