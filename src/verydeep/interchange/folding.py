"""Batch norm folded into the convolutions before it: the same function, without the layers."""

from dataclasses import replace

import torch
from torch import nn

from verydeep.basics.errors import UserError
from verydeep.nets.network import VGG


@torch.no_grad()
def fold_batch_norm(net: VGG) -> VGG:
    """Return the network without batch norm, its statistics moved into weights and biases of the convolutions.

    `g (W x + b - m) / s + h` is a convolution with weights `g W / s` and bias `g (b - m) / s + h`; computed in
    float64, so that only the rounding to float32 remains.

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
    state = dict(net.state_dict())
    for name, layer in net.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            conv = name.replace("bn", "conv")
            scale = layer.weight.double() / (layer.running_var.double() + layer.eps).sqrt()
            weight, bias = state[f"{conv}.weight"].double(), state[f"{conv}.bias"].double()
            state[f"{conv}.weight"] = (weight * scale[:, None, None, None]).float()
            shifted = (bias - layer.running_mean.double()) * scale + layer.bias.double()
            state[f"{conv}.bias"] = shifted.float()
            state = {key: tensor for key, tensor in state.items() if not key.startswith(f"{name}.")}
    provenance = {**net.provenance, "batch_norm": "folded into the convolutions"}
    with torch.device("meta"):
        folded = VGG(replace(net.config, batch_norm=False))
    folded.provenance = provenance
    folded.load_state_dict(state, assign=True)
    return folded.eval()
