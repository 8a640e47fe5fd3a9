"""A linear classifier on descriptors as a network: the layers that describe, and the classifier as their fc8."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from verydeep.nets.config import DescriptorConfig
from verydeep.nets.vgg import VGG
from verydeep.transfer.linear import Linear
from verydeep.transfer.parts import PAPERS_LAYER


def as_network(
    net: VGG,
    layer: str,
    linear: Linear,
    about: DescriptorConfig,
    classes: tuple[str, ...],
    provenance: dict[str, Any],
) -> VGG:
    """Return `net` up to a layer with the classifier behind it.

    Parameters
    ----------
    net : VGG
        The network that described the pictures; the new one shares its weights.
    layer : str
        What it described them by.
    linear : Linear
        From `choose`: its calibration is in its weights, and they are float32 numbers.
    about : DescriptorConfig
        The descriptor that it was fit on.
    classes : tuple of str
        In the order of the classifier's scores.
    provenance : dict
        For the new network.

    Returns
    -------
    VGG
        In evaluation mode. Tested by `default_protocol` it gives the classifier's posteriors.
    """
    trunk = None if layer == PAPERS_LAYER else layer
    with torch.device("meta"):
        new = VGG(replace(net.config, classes=classes, trunk=trunk, descriptor=about, regression=None))
    state = {name: tensor.cpu() for name, tensor in net.state_dict().items() if name in new.state_dict()}
    state["fc8.weight"] = torch.from_numpy(linear.weights.astype(np.float32))[:, :, None, None]
    state["fc8.bias"] = torch.from_numpy(linear.biases.astype(np.float32))
    new.load_state_dict(state, assign=True)
    new.provenance = provenance
    return new.eval()
