"""The network as an exported file holds it: plain layers, and what goes in and comes out."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from verydeep.checkpoints.folding import fold_batch_norm
from verydeep.nets.layers import LocalResponseNorm, ViewDescriptor
from verydeep.nets.vgg import VGG

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Contract:
    """What an exported network takes and gives; batch, height and width are free.

    Attributes
    ----------
    raw_input : bool
        Whether it takes decoded pictures, uint8 N x H x W x 3, RGB, and gives posteriors; else it takes what
        `Preprocessing` makes of them, float32 N x 3 x H x W, and gives scores.
    """

    raw_input: bool = False

    @property
    def input(self) -> str:
        """Name of the input."""
        return "images" if self.raw_input else "pixels"

    @property
    def outputs(self) -> tuple[str, str]:
        """Names of the outputs: N x K for whole pictures, and the score map N x K x h x w, both float32."""
        return ("posteriors" if self.raw_input else "scores"), "score_map"


class ExportModule(nn.Module):
    """A network with everything around it that `Contract` promises, as a module that can be traced.

    Parameters
    ----------
    net : VGG
        The network; it is not changed.
    contract : Contract
        What goes in and comes out.
    half : bool
        Whether weights and arithmetic between input and score map are float16.
    """

    def __init__(self, net: VGG, contract: Contract, half: bool = False) -> None:
        super().__init__()
        self.layers = plain_layers(net)
        self.names = contract.outputs
        self.multi_label = net.multi_label
        self.preprocessing = net.preprocessing if contract.raw_input else None
        self.dtype = torch.float16 if half else torch.float32
        self.layers.to(self.dtype)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return scores or posteriors, N x K, and the score map, N x K x h x w, under the contract's names."""
        if self.preprocessing:
            x = self.preprocessing(x).contiguous()
        score_map = self.layers(x.to(self.dtype)).float()
        scores = score_map.mean(dim=(2, 3))
        if self.preprocessing:
            scores = scores.sigmoid() if self.multi_label else scores.softmax(dim=1)
        return dict(zip(self.names, (scores, score_map), strict=True))


def plain_layers(net: VGG) -> nn.Sequential:
    """Return the network as convolutions, ReLUs, max-pools, LRN and division by the map's norm, under its own names.

    Dropout, which does nothing in testing, is left out; batch norm is folded into the convolution before it; the
    pools round as the network's preprocessing says; weights for several scales are summed, since one view is shown.
    """
    layers, net = nn.Sequential(), net.one_view()
    for name, layer in (fold_batch_norm(net) if net.batch_norm else net).named_children():
        if isinstance(layer, nn.Conv2d):
            layers.add_module(name, _convolution(layer))
        elif isinstance(layer, nn.MaxPool2d):
            layers.add_module(name, nn.MaxPool2d(2, ceil_mode=net.preprocessing.pool_round_up))
        elif isinstance(layer, nn.ReLU):
            layers.add_module(name, nn.ReLU())
        elif isinstance(layer, LocalResponseNorm | ViewDescriptor):
            layers.add_module(name, Float32(layer))
    return layers.eval().requires_grad_(False)


class Float32(nn.Module):
    """A layer that computes in float32 whatever it is given: squares of activations do not fit float16."""

    def __init__(self, layer: LocalResponseNorm | ViewDescriptor) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to the same shape and type."""
        y: Tensor = self.layer(x.float())
        return y.to(x.dtype)


def _convolution(layer: nn.Conv2d) -> nn.Conv2d:
    """Return torch's own convolution with a layer's weights; a fully connected layer becomes one, too."""
    kernel, padding = layer.weight.shape[2], int(layer.padding[0])
    with torch.device("meta"):
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, kernel, padding=padding)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in layer.state_dict().items()}
    plain.load_state_dict(state, assign=True)
    return plain
