"""Distances as torchmetrics has metrics: gathered over batches and processes."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from verydeep.basics.extras import need
from verydeep.perceptual.comparison import Comparison


def as_torchmetric(comparison: Comparison) -> Any:
    """Return a `torchmetrics.Metric` whose value is the mean distance of all pairs that it was given.

    Parameters
    ----------
    comparison : LPIPS, DISTS, ContentLoss, StyleLoss or PerceptualLoss
        What is measured: `update` and calls take what it takes.

    Returns
    -------
    torchmetrics.Metric
        For `MetricCollection`, Lightning and the like; lower is better, and a call's value has gradients.

    Raises
    ------
    UserError
        torchmetrics is not installed.
    """
    return _metric_class()(comparison)


@cache
def _metric_class() -> Any:
    metric: Any = need("torchmetrics", "metrics").Metric

    class MeanDistance(metric):  # type: ignore[misc]
        """The mean of a comparison's distances."""

        is_differentiable = True
        higher_is_better = False
        full_state_update = False

        def __init__(self, comparison: Comparison) -> None:
            super().__init__()
            self.total: Tensor
            self.pairs: Tensor
            self.comparison = comparison
            self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
            self.add_state("pairs", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

        def update(self, pictures: Tensor, references: Tensor) -> None:
            """Take a batch of pairs in."""
            distances = self.comparison(pictures, references)
            self.total = self.total + distances.sum()
            self.pairs = self.pairs + len(distances)

        def compute(self) -> Tensor:
            """Return the mean of all."""
            mean: Tensor = self.total / self.pairs
            return mean

    return MeanDistance
