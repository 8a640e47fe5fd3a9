"""Learning boxes: what training does otherwise than for classes (paper: appendix A.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from verydeep.basics.errors import UserError
from verydeep.datasets.boxes import with_boxes
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.loader import Batch, ViewSampler
from verydeep.datasets.opening import Reading
from verydeep.localization.baselines import best_constant_box
from verydeep.localization.boxes import Frame, as_array, decode, encode, iou
from verydeep.localization.metrics import HIT
from verydeep.localization.views import ObjectViews
from verydeep.nets.config import NetworkConfig, Regression
from verydeep.nets.network import Network
from verydeep.training.recipe import Recipe
from verydeep.training.task import CentralCrops, OfCrops, means

_FIGURES = {"localization_error": "localization error", "mean_iou": "mean IoU"}


@dataclass(frozen=True)
class Localization(OfCrops):
    """Learning the box of a known class by regression.

    Parameters
    ----------
    regression : {"scr", "pcr"}
        One box for all classes, or one for each class.
    skip_bad_boxes : bool
        Whether images with a bad box are left out; else they are an error.
    """

    regression: Regression
    skip_bad_boxes: bool = False

    @property
    def metrics(self) -> Mapping[str, str]:
        """Share of images whose box overlaps by less than half given the class, and the mean overlap."""
        return _FIGURES

    @property
    def loss_name(self) -> str:
        """What the loss is."""
        return "half squared distance of boxes"

    @property
    def words(self) -> dict[str, str]:
        """The options of `verydeep train` that ask for it."""
        return {"task": "localize", "regression": self.regression}

    def open(self, reading: Reading, data: str | Path, split: str) -> Dataset:
        """Return images with one class each, and the boxes that stand in files of their own."""
        return reading.open(data, split, boxes=True)

    def configured(self, config: NetworkConfig, recipe: Recipe) -> NetworkConfig:
        """Return the network with boxes in place of scores."""
        return replace(config, regression=self.regression)

    def check(self, recipe: Recipe) -> None:
        """Refuse what is for classes: boxes cannot be mixed, and there are no labels to smooth or weigh."""
        if recipe.data.balance == "weights":
            raise UserError(f"recipe {recipe.name}: data.balance=weights is for classes; boxes take none or sampling")
        for name in ("mixup", "label_smoothing"):
            if getattr(recipe.regularization, name):
                raise UserError(f"recipe {recipe.name}: regularization.{name} is for classes; set it to 0 for boxes")

    def examples(self, dataset: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Return the images with boxes; of training images also the box that would be right most often."""
        part, sizes = with_boxes(dataset, self.skip_bad_boxes)
        if dataset.split != "train":
            return part, {}
        boxes = [as_array(s.boxes) / ([w, h] * 2) for s, (h, w) in zip(part.samples, sizes, strict=True)]
        return part, {"best_constant_box": best_constant_box(boxes).tolist(), "training_boxes": sum(map(len, boxes))}

    def guessing(self, classes: int, recipe: Recipe) -> float:
        """Return the loss of answering zeros where the object fills the window."""
        return (0.5**2 + 0.5**2 + 1 + 1) / 2

    def layers_to_copy(self, source: Network, network: Network) -> tuple[str, ...] | None:
        """Return all layers but the last one, which is trained from random weights."""
        return tuple(n for n, layer in network.named_children() if isinstance(layer, nn.Conv2d) and n != "fc8")

    def sampler(self, dataset: Dataset, crop: int, recipe: Recipe) -> ViewSampler | None:
        """Return what draws views that show an object."""
        return ObjectViews(dataset, crop, recipe.images.scales, recipe.images.flip, recipe.boxes.least_visible)

    def loss(self, scores: Tensor, batch: Batch, part: Tensor, recipe: Recipe) -> Tensor:
        """Return the Euclidean loss of the own class's box: squared distance over 2, mean over the images."""
        return (_own(scores, batch.labels[part]) - batch.targets[part]).square().sum(1).mean() / 2

    def wrong(self, scores: Tensor, batch: Batch, part: Tensor) -> Tensor:
        """Return where the box overlaps with its target by less than half."""
        answers, targets = (t.double().cpu().numpy() for t in (_own(scores, batch.labels[part]), batch.targets[part]))
        return torch.from_numpy(iou(decode(answers, 1), decode(targets, 1)) < HIT)

    def measure(self, scores: Tensor, crops: CentralCrops) -> dict[str, Tensor]:
        """Return loss, localization error given the class, and IoU with the best instance, in original pixels."""
        labels = torch.tensor([sample.label for sample in crops.samples])
        rows = []
        for answer, sample, size in zip(_own(scores, labels).double().numpy(), crops.samples, crops.sizes, strict=True):
            frame, truth = Frame.central(*size, crops.side, crops.crop), as_array(sample.boxes)
            overlaps = iou(frame.to_picture(decode(answer, crops.crop)), truth)
            squared = np.square(encode(frame.to_window(truth), crops.crop) - answer).sum(-1)
            best = int(overlaps.argmax())
            rows.append((squared[best] / 2, overlaps[best] < HIT, overlaps[best]))
        return dict(zip(("val_loss", *self.metrics), torch.tensor(rows, dtype=torch.float64).T, strict=True))

    def summary(self, found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        """Return the means."""
        return means(found)

    def how_to_test(self, weights: str, side: int) -> str:
        """Return the command for boxes merged over a dense application."""
        return f"verydeep evaluate {weights} --task localize --classifier W --data DATA --protocol dense@{side}"


def _own(scores: Tensor, labels: Tensor) -> Tensor:
    """Return of each image the four numbers that its class's box is read from, N x 4."""
    boxes = scores.reshape(len(scores), -1, 4)
    own = labels if boxes.shape[1] > 1 else torch.zeros_like(labels)
    return boxes[torch.arange(len(labels), device=scores.device), own]
