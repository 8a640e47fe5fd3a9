"""GoogLeNet: a chain of Inception modules, and the classifiers beside it that help to train it."""

from collections import OrderedDict

from torch import Tensor, nn

from verydeep.nets.chain import PAPERS_FC_WIDTH, Chain
from verydeep.nets.config import NetworkConfig
from verydeep.nets.layers import Auxiliary, Branches, ConvLinear, Dropout
from verydeep.nets.plain import sides

POOL, STRIDE = 5, 3
CHANNELS, HIDDEN = 128, 1024
DROPOUT = 0.7


class GoogLeNet(Chain):
    """A chain with auxiliary classifiers behind two of its modules, where it has been made with them.

    They are called `auxiliary_4a` and `auxiliary_4d`, and run in training alone (Szegedy et al. 2014, section 5).
    """

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__(network)
        for behind in network.configuration.auxiliary if network.auxiliary else ():
            self.add_module(behind.replace("inception", "auxiliary"), self._auxiliary(behind))

    def in_training(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of whole images, N x K, and those of each auxiliary classifier."""
        beside, reached = [], None
        for name, module in self.named_children():
            if isinstance(module, Auxiliary):
                layer = name.replace("auxiliary", "inception")
                x, reached = self.activations(x, layer, reached), layer
                beside.append(module(x).mean(dim=(2, 3)))
        return self.activations(x, self.layer_names[-1], reached).mean(dim=(2, 3)), *beside

    def _auxiliary(self, behind: str) -> Auxiliary:
        module = self.get_submodule(behind)
        assert isinstance(module, Branches)
        side = sides(self.plain_layers(None, behind), self.image_size)[-1]
        pool = min(POOL, side)
        channels = max(1, round(CHANNELS * self.width))
        hidden = max(1, round(HIDDEN * self.fc_width / PAPERS_FC_WIDTH))
        layers: list[tuple[str, nn.Module]] = [
            ("pool", nn.AvgPool2d(pool, STRIDE)),
            ("conv", nn.Conv2d(module.out_channels, channels, 1)),
            ("relu_conv", nn.ReLU(inplace=True)),
            ("fc", ConvLinear(channels, hidden, (side - pool) // STRIDE + 1)),
            ("relu_fc", nn.ReLU(inplace=True)),
            ("drop", Dropout(DROPOUT)),
            ("classifier", ConvLinear(hidden, len(self.classes), 1)),
        ]
        return Auxiliary(OrderedDict(layers))
