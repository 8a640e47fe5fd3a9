"""What goes into an exported network and comes out, and the network as a module that keeps this contract."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from verydeep.nets.layers import Branches, LocalResponseNorm, ViewDescriptor
from verydeep.nets.network import Network
from verydeep.nets.plain import Concatenation, Conv, MaxPool, MeanPool, Plain, Relu

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

    With `half` weights and arithmetic between input and score map are float16. The network is not changed.
    """

    def __init__(self, net: Network, contract: Contract, half: bool = False) -> None:
        super().__init__()
        plain = net.one_view().plain_layers()
        self.layers = nn.Sequential(OrderedDict((layer.name, _module(layer)) for layer in plain)).requires_grad_(False)
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


class _Float32(nn.Module):
    """A layer that computes in float32 whatever it is given: squares of activations do not fit float16."""

    def __init__(self, layer: LocalResponseNorm | ViewDescriptor) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W to the same shape and type."""
        y: Tensor = self.layer(x.float())
        return y.to(x.dtype)


def _module(layer: Plain) -> nn.Module:
    """Return torch's own module of a plain layer; a fully connected layer is a convolution, too."""
    if isinstance(layer, Conv):
        outputs, inputs = layer.module.out_channels, layer.module.in_channels
        with torch.device("meta"):
            module = nn.Conv2d(inputs, outputs, layer.kernel, layer.stride, layer.padding, groups=layer.groups)
        weight, bias = (values.cpu().contiguous() for values in layer.folded())
        module.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        return module
    if isinstance(layer, MaxPool):
        return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.round_up)
    if isinstance(layer, MeanPool):
        return nn.AvgPool2d(layer.kernel, layer.stride)
    if isinstance(layer, Concatenation):
        chains = (OrderedDict((part.name, _module(part)) for part in branch.layers) for branch in layer.branches)
        names = (name for name, _ in layer.module.named_children())
        built = {name: nn.Sequential(chain) for name, chain in zip(names, chains, strict=True)}
        return Branches(built, layer.module.out_channels)
    return nn.ReLU() if isinstance(layer, Relu) else _Float32(layer.module)
