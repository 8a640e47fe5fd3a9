"""An exported file against the network it was made from: both run on the same pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.progress import track
from verydeep.exports.export_module import Contract
from verydeep.exports.pictures import Picture, fit, sizes
from verydeep.nets.network import Network

# What goes into an exported network, and the two outputs of `Contract`.
Array = NDArray[np.uint8] | NDArray[np.float32]
Runner = Callable[[Array], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Comparison:
    """What an exported file gave for a batch of pictures, beside what the network gave.

    Attributes
    ----------
    height, width : int
        Of the pictures, in pixels.
    pictures : int
        Their number.
    scores : float
        Largest difference of a score anywhere in the score map, as a share of the largest score; as it is where all
        scores are 0, as those of a network are whose units are dead.
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


def as_input(net: Network, contract: Contract, pictures: Picture) -> Array:
    """Return pictures, uint8 N x H x W x 3, as the exported network takes them."""
    if contract.raw_input:
        return np.ascontiguousarray(pictures)
    return net.preprocessing(torch.tensor(pictures)).contiguous().numpy()


def compare(net: Network, contract: Contract, run: Runner, pictures: Sequence[Picture]) -> list[Comparison]:
    """Run the network and its exported form on one picture at the first of `sizes`, and on all at each of them.

    Pictures are rescaled and cropped to every size; `run` maps input to outputs, as the contract has them. A difference
    is NaN where an output is not finite; RuntimeError where it has another shape than the network's.
    """
    every = [fit(pictures, *size, net.preprocessing.interpolation) for size in sizes(net)]
    batches = [every[0][:1], *every]
    return [_compare(net, contract, run, batch) for batch in track(batches, len(batches), "comparing", "batches")]


def _compare(net: Network, contract: Contract, run: Runner, pictures: Picture) -> Comparison:
    own_map, own = ours(net, pictures)
    answer, score_map = (torch.tensor(output) for output in run(as_input(net, contract, pictures)))
    posteriors = answer if contract.raw_input else net.posteriors(answer)
    if score_map.shape != own_map.shape or posteriors.shape != own.shape:
        raise RuntimeError(
            f"pictures of {pictures.shape[1]} x {pictures.shape[2]}: the exported network gives outputs of shapes "
            f"{tuple(answer.shape)} and {tuple(score_map.shape)}, expected {tuple(own.shape)} and "
            f"{tuple(own_map.shape)}"
        )
    return Comparison(
        height=pictures.shape[1],
        width=pictures.shape[2],
        pictures=len(pictures),
        scores=float((score_map - own_map).abs().max()) / (float(own_map.abs().max()) or 1.0),
        posteriors=float((posteriors - own).abs().max()),
        same_class=int((posteriors.argmax(dim=1) == own.argmax(dim=1)).sum()),
    )


@torch.inference_mode()
def ours(net: Network, pictures: Picture) -> tuple[Tensor, Tensor]:
    """Return score map, N x K x h x w, and posteriors, N x K, of pictures, uint8 N x H x W x 3."""
    score_map = net.score_map(net.preprocessing(torch.tensor(pictures)))
    return score_map, net.posteriors(score_map.mean(dim=(2, 3)))
