"""A linear classifier on averaged fc7 as a network: it becomes the new fc8.

The score map's mean is linear in fc8's input: mean over places of (W f + b) = W (mean of f) + b. So a classifier on
the plain average of `fc7.relu` is a new fc8, exactly, for one view of a picture. It stops being one as soon as the
descriptor is divided by its own norm (which depends on the picture), stacked over scales (other weights for each) or
their maximum. What goes into a network's file is therefore fit for it: on `fc7.relu` averaged over places, scales and
mirror images, divided by one number for the whole data set, which fc8 takes in. Where several views are averaged,
the classifier's score is the mean of the views' scores, while testing averages their posteriors (paper: section 3.2).
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from verydeep.nets.layers import Window
from verydeep.nets.network import VGG
from verydeep.transfer.linear import Linear
from verydeep.transfer.store import Rows

LAYER = "fc7.relu"
"""What fc8 sees: the only layer a classifier on which is a network of the same family."""


def common_scale(rows: Rows) -> float:
    """Return the mean Euclidean norm of descriptors, by which all of them are divided alike; 1 where all are zero."""
    return float(np.linalg.norm(rows.astype(np.float64), axis=1).mean()) or 1.0


def as_network(net: VGG, linear: Linear, scale: float, classes: tuple[str, ...], provenance: dict[str, Any]) -> VGG:
    """Return `net` with the classifier as its fc8.

    Parameters
    ----------
    net : VGG
        The network that described the pictures; it stays as it is.
    linear : Linear
        Fit on its averaged `fc7.relu`, divided by `scale`. Its calibration goes into the weights, too.
    scale : float
        What descriptors were divided by.
    classes : tuple of str
        In the order of the classifier's scores.
    provenance : dict
        For the new network.

    Returns
    -------
    VGG
        On the CPU, in evaluation mode. The mean of its score map is `linear.scores(mean of fc7.relu / scale)`.
    """
    new = copy.deepcopy(net).cpu()
    fc8 = Window(net.fc_width, len(classes), 1)
    weights = linear.scale[:, None] * linear.weights / scale
    biases = linear.scale * linear.biases + linear.offsets
    with torch.no_grad():
        fc8.weight.copy_(torch.from_numpy(weights).float()[:, :, None, None])
        assert fc8.bias is not None
        fc8.bias.copy_(torch.from_numpy(biases).float())
    new.fc8 = fc8
    new.config, new.provenance = replace(net.config, classes=classes), provenance
    return new.eval()
