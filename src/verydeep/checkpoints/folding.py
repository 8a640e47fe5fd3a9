"""Batch norm folded into the convolutions before it: the same function, without the layers."""

from dataclasses import replace

import torch

from verydeep.basics.errors import UserError
from verydeep.nets.plain import Conv
from verydeep.nets.vgg import VGG


@torch.no_grad()
def fold_batch_norm(net: VGG) -> VGG:
    """Return the network without batch norm, its statistics moved into weights and biases of the convolutions.

    Parameters
    ----------
    net : VGG
        With batch norm.

    Returns
    -------
    VGG
        In evaluation mode; its outputs are those of `net` in evaluation mode.

    Raises
    ------
    UserError
        The network has no batch norm.
    """
    if not net.batch_norm:
        raise UserError("there is no batch norm to fold: leave --fold-batch-norm out")
    convolutions = [layer for layer in net.plain_layers() if isinstance(layer, Conv)]
    state = {
        f"{layer.name}.{kind}": tensor
        for layer in convolutions
        for kind, tensor in zip(("weight", "bias"), layer.folded(), strict=True)
    }
    provenance = {**net.provenance, "batch_norm": "folded into the convolutions"}
    with torch.device("meta"):
        folded = VGG(replace(net.config, batch_norm=False))
    folded.provenance = provenance
    folded.load_state_dict(state, assign=True)
    return folded.eval()
