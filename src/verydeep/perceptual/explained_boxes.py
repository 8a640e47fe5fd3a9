"""Explanations measured by boxes: whether what speaks for a class is where its object is."""

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.progress import track
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.evaluate import match_labels
from verydeep.localization.boxes import as_array
from verydeep.localization.max_box_acc import BoxAccuracy, best_overlaps, box_accuracy
from verydeep.nets.network import Network
from verydeep.perceptual.explain import Method, check_memory, explain

CENTER = "a bump in the middle"
"""What is not of the network: the baseline of Choe et al. (2020)."""


def explained_boxes(net: Network, dataset: Dataset, scale: int, method: Method, memory: int) -> dict[str, BoxAccuracy]:
    """Return how well a method's maps for each image's own class find its boxes, and how well the baseline does.

    What speaks against the class counts as nothing. UserError where an image has no class or box.
    """
    labels = match_labels(dataset, net)
    found: dict[str, list[NDArray[np.float64]]] = {method: [], CENTER: []}
    for index, label in enumerate(track(labels.tolist(), len(dataset), method)):
        sample = dataset.samples[index]
        if label < 0 or not sample.boxes:
            raise UserError(f"{dataset.where(index)}: has no class or no box; expected both")
        original = dataset.image(index)
        check_memory(net, original, scale, memory)
        picture, _, places = explain(net, original, scale, method, net.classes[label])
        down, across = (shown / given for shown, given in zip(picture.shape[:2], original.shape[:2], strict=True))
        truths = as_array(sample.boxes) * [across, down, across, down]
        found[method].append(best_overlaps(places.clip(0), truths))
        found[CENTER].append(best_overlaps(_bump(*places.shape), truths))
    return {name: box_accuracy(overlaps) for name, overlaps in found.items()}


def _bump(height: int, width: int) -> NDArray[np.float32]:
    """Return a Gaussian in the middle of a map, as wide as it."""
    rows, columns = (np.square((np.arange(n) + 0.5) / n - 0.5) for n in (height, width))
    bump: NDArray[np.float32] = np.exp(-8 * (rows[:, None] + columns)).astype(np.float32)
    return bump
