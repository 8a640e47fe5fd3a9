"""Learning which of several classes an image has, each by a sigmoid of its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import Batch, ViewSampler
from verydeep.images.view import View, draw_view
from verydeep.inference.average_precision import average_precisions, mean_average_precision
from verydeep.training.recipe import Recipe
from verydeep.training.task import BY_CLASS, CentralCrops, Classification, means


class LabeledViews:
    """The paper's views, and as their targets 1 for each class that the image has, 0 for the others."""

    def __init__(self, dataset: Dataset, crop: int, recipe: Recipe) -> None:
        self.crop, self.images = crop, recipe.images
        self.targets = (dataset.targets() > 0).astype(np.float32)
        self.numbers = self.targets.shape[1]

    def __call__(
        self, index: int, height: int, width: int, rng: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        """Return a view as `Augmentation` draws it, and the image's targets."""
        return draw_view(height, width, self.crop, self.images.scales, rng, self.images.flip), self.targets[index]


class MultiLabel(Classification):
    """Learning which classes there are: binary cross-entropy of each, summed, as of so many networks side by side.

    So a step on a class is as long as it would be alone, whatever the number of classes.
    """

    metrics: Mapping[str, str] = {"map_error": "1 - mAP", "mean_average_precision": "mAP"}
    loss_name = "binary cross-entropy, all classes"

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes

    def check(self, recipe: Recipe) -> None:
        """Refuse to balance classes, of which an image may have rare and common ones."""
        if recipe.data.balance != "none":
            raise UserError(
                f"recipe {recipe.name}: data.balance={recipe.data.balance} is for one class an image, and those of "
                "this data set have several; leave it out"
            )

    def examples(self, dataset: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Return all images, and that posteriors are of one class each; UserError where no image has a label."""
        if not any(sample.labels for sample in dataset.samples):
            raise UserError(f"{dataset.name}, {dataset.split}: none of {len(dataset)} images has a label; label some")
        return dataset, {"multi_label": True}

    def guessing(self, classes: int, recipe: Recipe) -> float:
        """Return the loss of posteriors of one half."""
        return classes * math.log(2)

    def sampler(self, dataset: Dataset, crop: int, recipe: Recipe) -> ViewSampler | None:
        """Return the paper's views with the images' classes beside them."""
        return LabeledViews(dataset, crop, recipe)

    def loss(self, scores: Tensor, batch: Batch, part: Tensor, recipe: Recipe) -> Tensor:
        """Return the cross-entropy, natural logarithm, summed over classes, mean over images."""
        smoothing = recipe.regularization.label_smoothing
        targets = batch.targets[part] * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(1).mean()

    def wrong(self, scores: Tensor, batch: Batch, part: Tensor) -> Tensor:
        """Return where a class has more than one half and is not there, or the other way round, (N, K)."""
        return (scores > 0) != (batch.targets[part] > 0.5)

    def measure(self, scores: Tensor, crops: CentralCrops) -> dict[str, Tensor]:
        """Return the cross-entropy; scores and targets, too, of which precision is computed when all are there."""
        targets = torch.zeros_like(scores)
        for row, sample in zip(targets, crops.samples, strict=True):
            row[list(sample.labels or ())] = 1
        loss = F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(1)
        return {"val_loss": loss, "scores": scores, "targets": targets}

    def summary(self, found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        """Return the mean loss, mAP as of VOC 2010, and the average precision of each class that an image has."""
        scores, targets = (torch.cat(list(found[key])).double().numpy() for key in ("scores", "targets"))
        precisions = average_precisions(np.where(targets > 0, 1, -1).astype(np.int8), scores, eleven_point=False)
        merit = mean_average_precision(precisions)
        by_class = {
            f"{BY_CLASS}{name}": p for name, p in zip(self.classes, precisions, strict=True) if not math.isnan(p)
        }
        loss = means({"val_loss": found["val_loss"]})
        return {**loss, "map_error": 1 - merit, "mean_average_precision": merit, **by_class}
