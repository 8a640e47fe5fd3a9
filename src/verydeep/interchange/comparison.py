"""An exported file against the network it was made from: both run on the same pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.interchange.pictures import Picture, fit, sizes
from verydeep.interchange.served import Contract
from verydeep.nets.network import VGG

# What goes into an exported network, and the two outputs of `Contract`.
Array = NDArray[np.uint8] | NDArray[np.float32]
Runner = Callable[[Array], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Comparison:
    """What an exported file gave for pictures of one size, beside what the network gave.

    Attributes
    ----------
    height, width : int
        Of the pictures, in pixels.
    pictures : int
        Their number.
    scores : float
        Largest difference of a score anywhere in the score map, as a share of the largest score.
    posteriors : float
        Largest difference of a posterior of a whole picture, in [0, 1].
    same_class : int
        Pictures to which both give the highest posterior in the same class.
    """

    height: int
    width: int
    pictures: int
    scores: float
    posteriors: float
    same_class: int


def as_input(net: VGG, contract: Contract, pictures: Picture) -> Array:
    """Return pictures, uint8 N x H x W x 3, as the exported network takes them."""
    if contract.raw_input:
        return np.ascontiguousarray(pictures)
    return net.preprocessing(torch.tensor(pictures)).contiguous().numpy()


def compare(net: VGG, contract: Contract, run: Runner, pictures: Sequence[Picture]) -> list[Comparison]:
    """Run the network and its exported form on pictures at each of `sizes`.

    Parameters
    ----------
    net : VGG
        The network, on the CPU.
    contract : Contract
        What the exported form takes and gives.
    run : callable
        Runs the exported form: input to outputs, as `Contract` has them.
    pictures : sequence of ndarray of uint8, (H, W, 3)
        Rescaled and cropped to every size.

    Returns
    -------
    list of Comparison
        One for each size. A difference is NaN where an output is not finite.

    Raises
    ------
    RuntimeError
        An output has another shape than the network's.
    """
    return [_compare(net, contract, run, fit(pictures, *size, net.preprocessing.interpolation)) for size in sizes(net)]


def _compare(net: VGG, contract: Contract, run: Runner, pictures: Picture) -> Comparison:
    own_map, own = ours(net, pictures)
    # All together, and the first alone: the batch is free, too.
    parts = [_theirs(contract, run(as_input(net, contract, batch))) for batch in (pictures, pictures[:1])]
    score_differences, differences = [], []
    for score_map, posteriors in parts:
        count = len(posteriors)
        if score_map.shape != own_map[:count].shape or posteriors.shape != own[:count].shape:
            raise RuntimeError(
                f"pictures of {pictures.shape[1]} x {pictures.shape[2]}: the exported network gives a score map of "
                f"shape {tuple(score_map.shape)}, expected {tuple(own_map[:count].shape)}"
            )
        score_differences.append((score_map - own_map[:count]).abs().max() / own_map.abs().max())
        differences.append((posteriors - own[:count]).abs().max())
    return Comparison(
        height=pictures.shape[1],
        width=pictures.shape[2],
        pictures=len(pictures),
        scores=float(torch.stack(score_differences).max()),
        posteriors=float(torch.stack(differences).max()),
        same_class=int((parts[0][1].argmax(dim=1) == own.argmax(dim=1)).sum()),
    )


@torch.inference_mode()
def ours(net: VGG, pictures: Picture) -> tuple[Tensor, Tensor]:
    """Return score map, N x K x h x w, and posteriors, N x K, of pictures, uint8 N x H x W x 3."""
    score_map = net.score_map(net.preprocessing(torch.tensor(pictures)))
    return score_map, score_map.mean(dim=(2, 3)).softmax(dim=1)


def _theirs(contract: Contract, outputs: tuple[NDArray[np.float32], NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    answer, score_map = (torch.tensor(output) for output in outputs)
    return score_map, answer if contract.raw_input else answer.softmax(dim=1)
