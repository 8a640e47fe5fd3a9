"""What a network learns: the parts of training that differ between tasks; the paper's first task, classes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.loader import Batch, ViewSampler
from verydeep.datasets.opening import Reading
from verydeep.images.view import View, draw_view
from verydeep.inference.forward import Forward
from verydeep.inference.ranks import ranks
from verydeep.nets.config import NetworkConfig, Regression
from verydeep.nets.initialization import COPIED_FROM_A
from verydeep.nets.network import Network
from verydeep.training.recipe import Recipe

BY_CLASS = "average_precision/"
"""What keys of figures begin with that are of one class; its name follows."""


Validate = Callable[[Forward], dict[str, float]]
"""Returns `val_loss` and the figures of all validation images; NotFiniteError where scores are no numbers."""


@dataclass(frozen=True)
class CentralCrops:
    """Validation images as a network is shown them: the central `crop` x `crop` of smallest side `side`.

    Attributes
    ----------
    samples : sequence of Sample
        Of each crop.
    sizes : sequence of (int, int)
        Height and width of the original images in pixels.
    side, crop : int
        Q and the crop's side, in pixels.
    """

    samples: Sequence[Sample]
    sizes: Sequence[tuple[int, int]]
    side: int
    crop: int


class Task(Protocol):
    """The parts of a training that depend on what is learned."""

    def open(self, reading: Reading, data: str | Path, split: str) -> Dataset:
        """Return one split of a data set, read as this task needs it."""

    def configured(self, config: NetworkConfig, recipe: Recipe) -> NetworkConfig:
        """Return what the network is that learns this task, of one that is made for classes."""

    def canvas(self, recipe: Recipe) -> tuple[int, int] | None:
        """Return rows and columns of training views that may be larger than images; None for crops inside them."""

    def validation(self, images: Dataset, net: Network, recipe: Recipe) -> Validate | None:
        """Return what measures a network between epochs where central crops will not do."""

    @property
    def words(self) -> dict[str, str]:
        """What tells its runs from others', beside recipe, network and data; also options of `verydeep train`."""

    @property
    def regression(self) -> Regression | None:
        """Kind of the network's last layer, as in `VGG`."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Keys of `measure`'s figures, and their names; the least of the first one chooses the epoch to keep."""

    @property
    def loss_name(self) -> str:
        """What people call the loss."""

    def check(self, recipe: Recipe) -> None:
        """Raise UserError where a recipe asks for what this task has not."""

    def examples(self, dataset: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Return the images that can be learned from, and what the weights file shall say of them."""

    def guessing(self, classes: int, recipe: Recipe) -> float:
        """Return the loss of a network that knows nothing."""

    def layers_to_copy(self, source: Network, network: Network) -> tuple[str, ...] | None:
        """Return the layers that `network` takes from the one it starts from; None for all."""

    def sampler(self, dataset: Dataset, crop: int, recipe: Recipe) -> ViewSampler | None:
        """Return what draws views and their targets; None for the plain views of the paper, without targets."""

    def loss(self, scores: Tensor, batch: Batch, part: Tensor, recipe: Recipe) -> Tensor:
        """Return the mean loss of the batch's images numbered `part`, from the network's outputs, float32."""

    def counted(self, batch: Batch, part: Tensor, recipe: Recipe) -> int | Tensor:
        """Return of how many images, or pixels, the images numbered `part` have the mean loss."""

    def wrong(self, scores: Tensor, batch: Batch, part: Tensor) -> Tensor:
        """Return which of the images numbered `part` the network has wrong, bool."""

    def measure(self, scores: Tensor, crops: CentralCrops) -> dict[str, Tensor]:
        """Return for each validation image what `summary` takes, from the network's outputs, float32."""

    def summary(self, found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        """Return `val_loss` and the figures of all images, from what `measure` gave of each batch of them."""

    def how_to_test(self, weights: str, side: int) -> str:
        """Return the command that tests the finished network as the paper does."""


class WeightedViews:
    """The paper's views, and as their one target the weight of the image's class: N / (K N_class), 1 on average."""

    numbers = 1

    def __init__(self, dataset: Dataset, crop: int, recipe: Recipe) -> None:
        self.crop, self.images = crop, recipe.images
        self.labels = np.array([sample.label for sample in dataset.samples], np.int64)
        counts = np.bincount(self.labels)
        self.weights = (len(self.labels) / np.count_nonzero(counts) / np.maximum(counts, 1)).astype(np.float32)

    def __call__(
        self, index: int, height: int, width: int, rng: np.random.Generator
    ) -> tuple[View, NDArray[np.float32]]:
        """Return a view as `Augmentation` draws it, and the weight."""
        view = draw_view(height, width, self.crop, self.images.scales, rng, self.images.flip)
        return view, self.weights[self.labels[index], None]


class OfCrops:
    """What tasks have in common that learn from crops inside images, and are measured on central ones."""

    def canvas(self, recipe: Recipe) -> None:
        """Return None."""

    def counted(self, batch: Batch, part: Tensor, recipe: Recipe) -> int:
        """Return the number of images."""
        return len(part)

    def validation(self, images: Dataset, net: Network, recipe: Recipe) -> None:
        """Return None."""


class Classification(OfCrops):
    """Learning the class: soft-max cross-entropy (paper: section 3.1)."""

    words: dict[str, str] = {}  # noqa: RUF012 (empty)
    regression = None
    metrics: Mapping[str, str] = {"top1_error": "top-1 error", "top5_error": "top-5 error"}
    loss_name = "soft-max cross-entropy"

    def open(self, reading: Reading, data: str | Path, split: str) -> Dataset:
        """Return images with one class each, or several."""
        return reading.open(data, split, several=True)

    def configured(self, config: NetworkConfig, recipe: Recipe) -> NetworkConfig:
        """Return the network as it is."""
        return config

    def check(self, recipe: Recipe) -> None:
        """Accept any recipe."""

    def examples(self, dataset: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Return all images."""
        return dataset, {}

    def guessing(self, classes: int, recipe: Recipe) -> float:
        """Return the cross-entropy of equal posteriors."""
        return math.log(classes)

    def layers_to_copy(self, source: Network, network: Network) -> tuple[str, ...] | None:
        """Return None, all layers, for the same configuration, and the paper's seven for a deeper one."""
        return None if source.configuration == network.configuration else COPIED_FROM_A

    def sampler(self, dataset: Dataset, crop: int, recipe: Recipe) -> ViewSampler | None:
        """Return None for the paper's views; with weights for the classes these, beside the same views."""
        return WeightedViews(dataset, crop, recipe) if recipe.data.balance == "weights" else None

    def loss(self, scores: Tensor, batch: Batch, part: Tensor, recipe: Recipe) -> Tensor:
        """Return the mean cross-entropy, natural logarithm, weighted where classes have weights."""
        labels, smoothing = batch.labels[part], recipe.regularization.label_smoothing
        if recipe.data.balance != "weights":
            return F.cross_entropy(scores, labels, label_smoothing=smoothing)
        return (
            F.cross_entropy(scores, labels, label_smoothing=smoothing, reduction="none") * batch.targets[part, 0]
        ).mean()

    def wrong(self, scores: Tensor, batch: Batch, part: Tensor) -> Tensor:
        """Return where the highest score is not the label's."""
        return scores.argmax(1) != batch.labels[part]

    def measure(self, scores: Tensor, crops: CentralCrops) -> dict[str, Tensor]:
        """Return cross-entropy, and where the label is not the first or not among the first five classes."""
        labels = torch.tensor([sample.label for sample in crops.samples])
        before = torch.from_numpy(ranks(scores.numpy(), labels.numpy()))
        loss = F.cross_entropy(scores, labels, reduction="none")
        return {"val_loss": loss, "top1_error": before >= 1, "top5_error": before >= 5}

    def summary(self, found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        """Return the means."""
        return means(found)

    def how_to_test(self, weights: str, side: int) -> str:
        """Return the command for dense evaluation."""
        return f"verydeep evaluate {weights} --data DATA --protocol dense@{side}"


def means(found: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Return the mean over all images of each figure that is given batch by batch."""
    return {
        name: sum((float(values.double().sum()) for values in batches), 0.0) / sum(map(len, batches))
        for name, batches in found.items()
    }


def measured(task: Task, figures: Mapping[str, float]) -> dict[str, float]:
    """Return the task's metrics among an epoch's figures, and those by class."""
    return {name: value for name, value in figures.items() if name in task.metrics or name.startswith(BY_CLASS)}


def first_metric(task: Task) -> str:
    """Return the key of the figure whose least value chooses the epoch to keep."""
    return next(iter(task.metrics))


def shown(task: Task, classes: int) -> dict[str, str]:
    """Return the figures that say something: of five classes or fewer none has a top-5 error."""
    return {key: name for key, name in task.metrics.items() if key != "top5_error" or classes > 5}
