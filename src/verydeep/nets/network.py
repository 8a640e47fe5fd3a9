"""The network: a sequence of convolutions, pools and fully connected layers that are convolutions too."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from verydeep.basics.errors import UserError
from verydeep.nets.config import STRIDE, DescriptorConfig, NetworkConfig, Regression
from verydeep.nets.configurations import Configuration, configuration
from verydeep.nets.hub import HubMixin
from verydeep.nets.initialization import initialize
from verydeep.nets.layers import LocalResponseNorm, ViewDescriptor, Window, relu_pool
from verydeep.nets.preprocessing import Preprocessing

TaskName = Literal["classify", "localize", "describe"]
"""What a network gives: scores of classes, boxes, or, being a trunk, features alone."""


class VGG(nn.Sequential, HubMixin):
    """A very deep ConvNet, convolutional from the first layer to the scores.

    The layers stand in order under the paper's names: `conv1_1`, `relu1_1`, ..., `pool5`, `fc6`, `relu6`, `drop6`,
    `fc7`, `relu7`, `drop7`, `fc8`; with batch norm also `bn1_1` and so on, in A-LRN `norm1`. One that is cut behind a
    layer ends there, or, with classes, has a 1x1 `fc8` behind it. Where `fc8` classifies descriptors, a layer
    `descriptor` before it makes one view's map fit for it.

    Parameters
    ----------
    network : NetworkConfig
        What it is. `create` makes one from single values.

    Attributes
    ----------
    config : NetworkConfig
        What the network is.
    provenance : dict
        What is known of the weights' origin: data, scales, recipe, seed; JSON-able.
    stride : int
        Pixels between neighboring cells of the last layer's map: 32, or less where the network is cut before pool5.
    window : int
        Side in pixels of the part of the image that one such cell stands for: `image_size`, or the stride where the
        network is cut before fc6.

    Raises
    ------
    UserError
        There is no such layer to cut behind.
    """

    def __init__(self, network: NetworkConfig) -> None:
        config = network  # called so, since the hub's mix-in has a meaning of its own for `config`
        convolutions, channels = _convolutions(config)
        layers = [*convolutions, *_fully_connected(channels, config)]
        if config.trunk is not None:
            layers, channels = _cut(layers, config)
        else:
            channels = config.fc_width
        if about := config.descriptor:
            if about.normalize != "none" or about.copies > 1:
                layers.append(("descriptor", ViewDescriptor(about.normalize != "none", about.copies, about.share)))
            channels *= about.copies
        if config.classes:
            layers.append(("fc8", Window(channels, config.outputs, 1)))
        super().__init__(OrderedDict(layers))
        self.config = config
        self.provenance: dict[str, Any] = {}
        self.stride = 2 ** sum(isinstance(layer, nn.MaxPool2d) for layer in self)
        self.window = config.image_size if "fc6" in self._modules else self.stride

    @property
    def configuration(self) -> Configuration:
        """Which of the paper's configurations it is."""
        return self.config.configuration

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the scores."""
        return self.config.classes

    @property
    def width(self) -> float:
        """Factor on the channels of every convolution."""
        return self.config.width

    @property
    def batch_norm(self) -> bool:
        """Whether batch norm follows every convolution."""
        return self.config.batch_norm

    @property
    def image_size(self) -> int:
        """Side in pixels of the crops that the network is made for."""
        return self.config.image_size

    @property
    def fc_width(self) -> int:
        """Channels of fc6 and fc7."""
        return self.config.fc_width

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the network's input; may be set, where a file states it wrongly."""
        return self.config.preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing) -> None:
        self.config = replace(self.config, preprocessing=value)

    @property
    def regression(self) -> Regression | None:
        """Kind of a localizer's boxes; None for all others."""
        return self.config.regression

    @property
    def task(self) -> TaskName:
        """What the network gives."""
        return "localize" if self.regression else "classify" if self.classes else "describe"

    def check_task(self, task: TaskName, name: object = "the network") -> None:
        """Raise UserError where the network, called `name` in the message, gives something else than is needed."""
        drawn = self.provenance.get("untrained_layers") if task == "classify" else None
        if self.task == task and not drawn:
            return
        is_what = {
            "classify": f"a classifier whose {', '.join(drawn)} are random numbers" if drawn else "a classifier",
            "localize": "a localizer, which gives boxes and no classes",
            "describe": f"a trunk (its last layer is {self.layer_names[-1]}), which gives features and no scores",
        }
        wanted = {"classify": "a classifier", "localize": "a localizer (verydeep train --task localize makes one)"}
        how = "; verydeep transfer, or verydeep train --init-from, makes one of it"
        remedy = how if drawn or self.task == "describe" else ""
        raise UserError(f"{name}: is {is_what[self.task]}; expected {wanted.get(task, 'a trunk')}{remedy}")

    @property
    def least_size(self) -> int:
        """Side in pixels of the smallest image that gives a score map."""
        return self.window - self.stride + 1 if self.preprocessing.pool_round_up else self.window

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError where an image of this size is smaller than `least_size`."""
        if min(height, width) < self.least_size:
            raise UserError(
                f"an image of {height} x {width} pixels is too small for {self.configuration.name}: "
                f"the least side is {self.least_size}"
            )

    def score_map(self, x: Tensor) -> Tensor:
        """Return the class scores at every place of the image (section 3.2 of the paper).

        Parameters
        ----------
        x : Tensor
            N x 3 x H x W, preprocessed; H and W at least `least_size`.

        Returns
        -------
        Tensor
            N x K x h x w: scores before the soft-max; cell (i, j) belongs to the window of `window` pixels whose top
            left pixel is (`stride` i, `stride` j): of a whole network `image_size` and 32.

        Raises
        ------
        UserError
            The image is smaller than `least_size`, or the network is a trunk.
        """
        if not self.classes:
            self.check_task("classify")
        return self.activations(x, "fc8")

    def activations(self, x: Tensor, layer: str, after: str | None = None) -> Tensor:
        """Return what one layer gives at every place of the image; the layers behind it are not run.

        Parameters
        ----------
        x : Tensor
            N x 3 x H x W, preprocessed; H and W at least `least_size`. Or what the layer `after` gave.
        layer : str
            One of `layer_names`: `conv5_3` is before the ReLU (batch norm, where there is one, included),
            `conv5_3.relu` after it.
        after : str, optional
            A layer before it; the layers up to that one are not run.

        Returns
        -------
        Tensor
            N x C x h x w.

        Raises
        ------
        UserError
            The network has no such layer, or the image is smaller than `least_size`.
        """
        if after is None:
            self.check_size(x.shape[2], x.shape[3])
        round_up = self.preprocessing.pool_round_up
        layers = [child for _, child in self.between(after, layer)]
        for child, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(child, nn.MaxPool2d):
                x = relu_pool(x, round_up)
            elif not (isinstance(child, nn.ReLU) and isinstance(following, nn.MaxPool2d)):
                x = child(x)  # a ReLU before a pool runs with it
        return x

    def between(self, after: str | None, layer: str) -> list[tuple[str, nn.Module]]:
        """Return the modules that run behind a layer (from the first one where that is None) up to another."""
        modules = list(self.named_children())
        names = [name for name, _ in modules]
        start = names.index(self.module_name(after)) + 1 if after else 0
        return modules[start : names.index(self.module_name(layer)) + 1]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names that `activations` takes, in order: `conv1_1`, `conv1_1.relu`, ..., `pool5`, ..., `fc7.relu`, `fc8`."""
        return tuple(_ends(self.named_children()))

    def module_name(self, layer: str) -> str:
        """Return the name of the module whose output a layer's is; UserError where there is no such layer."""
        return _find(layer, _ends(self.named_children()), self.configuration.name)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of whole images, N x K: the spatial mean of the score map."""
        return self.score_map(x).mean(dim=(2, 3))

    @property
    def multi_label(self) -> bool:
        """Whether images may have several classes: each then has a posterior of its own."""
        return bool(self.provenance.get("multi_label"))

    def posteriors(self, scores: Tensor) -> Tensor:
        """Return the posteriors in [0, 1] of scores, N x K or N x K x h x w: by soft-max, or of several by sigmoids."""
        return scores.sigmoid() if self.multi_label else scores.softmax(dim=1)

    def one_view(self) -> "VGG":
        """Return the network with an fc8 that takes one view: of stacked scales' blocks of weights, the sum.

        It gives what this one gives, and shares its other weights.
        """
        about = self.config.descriptor
        if about is None or about.copies == 1:
            return self
        weight = about.share * torch.stack(self._fc8_weight().chunk(about.copies, dim=1)).sum(dim=0)
        return self._with_fc8(weight, replace(about, aggregate="mean"))

    def linear(self) -> "VGG":
        """Return the network with a score map that is linear in the layer before fc8, as a plain network's is.

        The norm of each picture gives way to the mean norm of the training pictures. Of a network whose fc8
        classifies no descriptors it is the network itself.
        """
        net, about = self.one_view(), self.config.descriptor
        if about is None:
            return self
        norm = 1.0 if about.normalize == "none" else about.norm
        return net._with_fc8(net._fc8_weight() / norm, None)

    def _fc8_weight(self) -> Tensor:
        return cast(Window, self.fc8).weight.detach().double()

    def _with_fc8(self, weight: Tensor, descriptor: DescriptorConfig | None) -> "VGG":
        with torch.device("meta"):
            net = VGG(replace(self.config, descriptor=descriptor))
        state = self.state_dict()
        net.load_state_dict({**state, "fc8.weight": weight.to(state["fc8.weight"])}, assign=True)
        net.provenance = self.provenance
        return net.train(self.training)

    def extra_repr(self) -> str:
        """Return what the network is a member of."""
        boxes = f", boxes: {self.regression}" if self.regression else ""
        return f"{self.configuration.name}, {len(self.classes)} classes, image_size={self.image_size}{boxes}"


def is_head(name: str) -> bool:
    """Say whether a layer stands behind the convolutions: `fc6` to `fc8`, `relu6` and so on."""
    return name[-1] in "678" and "_" not in name


def _convolutions(config: NetworkConfig) -> tuple[list[tuple[str, nn.Module]], int]:
    """Return the named layers from conv1_1 to pool5 and the channels that come out."""
    layers: list[tuple[str, nn.Module]] = []
    before = 3
    for b, block in enumerate(config.configuration.blocks, start=1):
        for i, conv in enumerate(block, start=1):
            channels = max(1, round(conv.channels * config.width))
            # The bias in front of batch norm stays: it costs nothing and keeps one set of names for all.
            layers.append((f"conv{b}_{i}", nn.Conv2d(before, channels, conv.kernel, padding=conv.kernel // 2)))
            if config.batch_norm:
                layers.append((f"bn{b}_{i}", nn.BatchNorm2d(channels)))
            layers.append((f"relu{b}_{i}", nn.ReLU(inplace=True)))
            before = channels
        if config.configuration.lrn and b == 1:
            layers.append(("norm1", LocalResponseNorm(alpha=config.lrn_alpha)))
        layers.append((f"pool{b}", nn.MaxPool2d(2)))
    return layers, before


def _fully_connected(channels: int, config: NetworkConfig) -> list[tuple[str, nn.Module]]:
    """Return the named layers from fc6 to drop7."""
    layers: list[tuple[str, nn.Module]] = []
    for i, (before, kernel) in ((6, (channels, config.image_size // STRIDE)), (7, (config.fc_width, 1))):
        layers += [(f"fc{i}", Window(before, config.fc_width, kernel)), (f"relu{i}", nn.ReLU(inplace=True))]
        layers.append((f"drop{i}", nn.Dropout(config.dropout)))
    return layers


def _cut(layers: list[tuple[str, nn.Module]], config: NetworkConfig) -> tuple[list[tuple[str, nn.Module]], int]:
    """Return the layers up to the one that the network is cut behind, and the channels that come out there."""
    assert config.trunk is not None
    last = _find(config.trunk, _ends(layers), config.configuration.name)
    kept = layers[: [name for name, _ in layers].index(last) + 1]
    return kept, next(layer.out_channels for _, layer in reversed(kept) if isinstance(layer, nn.Conv2d))


def _ends(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, str]:
    """Return the layers' names, in order, and the module that each of them ends with: batch norm is its layer's."""
    ends: dict[str, str] = {}
    layer = ""
    for name, module in modules:
        if isinstance(module, nn.ReLU):
            ends[f"{layer}.relu"] = name
        elif isinstance(module, nn.BatchNorm2d):
            ends[layer] = name
        elif not isinstance(module, nn.Dropout | ViewDescriptor):
            layer, ends[name] = name, name
    return ends


def _find(layer: str, ends: dict[str, str], network: str) -> str:
    if layer not in ends:
        names = list(ends)
        near = get_close_matches(layer, names, n=1) or names[-1:]
        raise UserError(
            f"{network} has no layer {layer!r}: they are {names[0]}, {names[1]}, ..., {', '.join(names[-2:])} "
            f"(did you mean {near[0]}?)"
        )
    return ends[layer]


def create(
    configuration_name: str,
    classes: int | Sequence[str] = 1000,
    width: float = 1.0,
    batch_norm: bool = False,
    image_size: int = 224,
    fc_width: int = 4096,
    dropout: float = 0.5,
    lrn_alpha: float = 1e-4,
    initialization: str = "glorot",
    seed: int | None = None,
    preprocessing: Preprocessing | None = None,
    regression: Regression | None = None,
    trunk: str | None = None,
) -> VGG:
    """Make a network with random weights.

    Parameters
    ----------
    configuration_name : str
        `A`, `A-LRN`, `B`, `C`, `D`, `E` or `B-5x5`.
    classes : int or sequence of str
        Their number (they are then named `0`, `1`, ...) or their names in order.
    width : float
        Factor on the channels of every convolution; 1 is the paper's.
    batch_norm : bool
        Whether batch norm follows every convolution; the paper has none.
    image_size : int
        Side in pixels of the window that fc6 covers, a multiple of 32; 224 in the paper.
    fc_width : int
        Channels of fc6 and fc7; 4096 in the paper.
    dropout : float
        Dropout rate behind fc6 and fc7; 0.5 in the paper.
    lrn_alpha : float
        A-LRN's constant in Krizhevsky's written formula; where alpha is divided by 5, as in torch, give a fifth.
    initialization : str
        `glorot`, `he`, or `normal(STD)`; see `verydeep.nets.initialization`. The default is the one that the
        paper's camera-ready version recommends, because it starts networks of any depth.
    seed : int, optional
        Makes the weights a function of the seed; without it they follow torch's global generator.
    preprocessing : Preprocessing, optional
        By default the paper's: RGB, 0-255, ILSVRC's mean subtracted.
    regression : {"scr", "pcr"}, optional
        Makes a localizer, which gives boxes in place of class scores; see `NetworkConfig`.
    trunk : str, optional
        The layer to cut the network behind, such as `pool5`; with 0 classes it gives features alone.

    Returns
    -------
    VGG
        In training mode, float32.

    Raises
    ------
    UserError
        Unknown configuration or initialization, or a size that makes no network.

    Examples
    --------
    >>> net = create("A", classes=10, width=1 / 16, image_size=64, fc_width=32)
    >>> net(torch.zeros(2, 3, 64, 96)).shape, net.score_map(torch.zeros(2, 3, 64, 96)).shape
    (torch.Size([2, 10]), torch.Size([2, 10, 1, 2]))
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    config = NetworkConfig(
        configuration(configuration_name),
        tuple(names),
        width=width,
        batch_norm=batch_norm,
        image_size=image_size,
        fc_width=fc_width,
        dropout=dropout,
        lrn_alpha=lrn_alpha,
        preprocessing=preprocessing or Preprocessing(),
        regression=regression,
        trunk=trunk,
    )
    return with_random_weights(config, initialization, seed)


def with_random_weights(config: NetworkConfig, initialization: str = "glorot", seed: int | None = None) -> VGG:
    """Make the network that `config` describes; the other parameters are those of `create`."""
    with torch.device("meta"):  # no time lost on torch's own initialization
        net = VGG(config)
    net.to_empty(device="cpu")
    initialize(net, initialization, seed)
    return net
