"""The network: a sequence of convolutions, pools and fully connected layers that are convolutions too."""

from collections import OrderedDict
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn

from verydeep.basics.errors import UserError
from verydeep.nets.configurations import Configuration, configuration
from verydeep.nets.hub import HubMixin
from verydeep.nets.initialization import initialize
from verydeep.nets.layers import LocalResponseNorm, Window, relu_pool
from verydeep.nets.preprocessing import Preprocessing

STRIDE = 32
"""Pixels between neighboring cells of the score map: five pools of stride 2."""

Regression = Literal["scr", "pcr"]
"""What a localizer's fc8 gives (paper: appendix A.1): one box for all classes, or one for each class."""
TaskName = Literal["classify", "localize"]


class VGG(nn.Sequential, HubMixin):
    """A very deep ConvNet, convolutional from the first layer to the scores.

    The layers stand in order under the paper's names: `conv1_1`, `relu1_1`, ..., `pool5`, `fc6`, `relu6`, `drop6`,
    `fc7`, `relu7`, `drop7`, `fc8`; with batch norm also `bn1_1` and so on, in A-LRN `norm1`.

    Parameters
    ----------
    configuration : Configuration
        Which convolutions there are.
    classes : sequence of str
        Class names, in the order of the scores.
    width : float
        Factor on the channels of every convolution.
    batch_norm : bool
        Whether batch norm follows every convolution.
    image_size : int
        Side of fc6's window in pixels, a multiple of 32: 224 makes fc6 a 7x7 convolution, 64 a 2x2 one.
    fc_width : int
        Channels of fc6 and fc7.
    dropout : float
        Rate at which outputs of fc6 and fc7 are zeroed in training.
    lrn_alpha : float
        Constant of A-LRN's normalization, in Krizhevsky's written formula.
    preprocessing : Preprocessing
        How images become the network's input.
    regression : {"scr", "pcr"}, optional
        None: fc8 gives a score for each class. ``scr``: center x, center y, width and height of one box for all
        classes; ``pcr``: of one box for each class, class after class.

    Attributes
    ----------
    provenance : dict
        What is known of the weights' origin: data, scales, recipe, seed; JSON-able.
    """

    stride = STRIDE

    def __init__(
        self,
        configuration: Configuration,
        classes: Sequence[str],
        *,
        width: float = 1.0,
        batch_norm: bool = False,
        image_size: int = 224,
        fc_width: int = 4096,
        dropout: float = 0.5,
        lrn_alpha: float = 1e-4,
        preprocessing: Preprocessing | None = None,
        regression: Regression | None = None,
    ) -> None:
        if image_size < STRIDE or image_size % STRIDE:
            raise UserError(f"image_size is {image_size}, expected a multiple of {STRIDE}, at least {STRIDE}")
        if not width > 0 or fc_width < 1 or not classes or not 0 <= dropout < 1:
            raise UserError(
                f"width {width}, fc_width {fc_width}, {len(classes)} classes, dropout {dropout}: expected the first "
                "three above 0 and dropout in [0, 1)"
            )
        convolutions, channels = _convolutions(configuration, width, batch_norm, lrn_alpha)
        window = image_size // STRIDE
        outputs = {None: len(classes), "scr": 4, "pcr": 4 * len(classes)}[regression]
        super().__init__(OrderedDict([*convolutions, *_head(channels, window, fc_width, outputs, dropout)]))
        self.configuration = configuration
        self.classes = tuple(classes)
        self.width = width
        self.batch_norm = batch_norm
        self.image_size = image_size
        self.fc_width = fc_width
        self.dropout = dropout
        self.lrn_alpha = lrn_alpha
        self.preprocessing = preprocessing or Preprocessing()
        self.regression = regression
        self.provenance: dict[str, Any] = {}

    @property
    def task(self) -> TaskName:
        """What the network answers: the class of a picture, or the box of its object."""
        return "localize" if self.regression else "classify"

    def check_task(self, task: TaskName, name: object = "the network") -> None:
        """Raise UserError where the network, called `name` in the message, was made for the other task."""
        if self.task != task:
            is_what = {"classify": "a classifier", "localize": "a localizer, which gives boxes and no classes"}
            wanted = {"classify": "a classifier", "localize": "a localizer (verydeep train --task localize makes one)"}
            raise UserError(f"{name}: is {is_what[self.task]}; expected {wanted[task]}")

    @property
    def least_size(self) -> int:
        """Side in pixels of the smallest image that gives a score map."""
        if self.preprocessing.pool_round_up:
            return self.image_size - STRIDE + 1
        return self.image_size

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
            N x K x h x w: scores before the soft-max; cell (i, j) belongs to the window of `image_size` pixels
            whose top left pixel is (32 i, 32 j).

        Raises
        ------
        UserError
            The image is smaller than `least_size`.
        """
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
        names: list[str] = []
        for name, child in self.named_children():
            if isinstance(child, nn.ReLU):
                names.append(f"{names[-1]}.relu")
            elif not isinstance(child, nn.BatchNorm2d | nn.Dropout):
                names.append(name)
        return tuple(names)

    def module_name(self, layer: str) -> str:
        """Return the name of the module whose output a layer's is; UserError where there is no such layer."""
        if layer not in self.layer_names:
            near = get_close_matches(layer, self.layer_names, n=1) or ["fc7.relu"]
            raise UserError(
                f"{self.configuration.name} has no layer {layer!r}: they are conv1_1, conv1_1.relu, ..., pool5, fc6, "
                f"..., fc7.relu, fc8 (did you mean {near[0]}?)"
            )
        base, relu, _ = layer.partition(".")
        if relu:
            return base.replace("conv", "relu").replace("fc", "relu")
        return base.replace("conv", "bn") if self.batch_norm else base

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of whole images, N x K: the spatial mean of the score map."""
        return self.score_map(x).mean(dim=(2, 3))

    def extra_repr(self) -> str:
        """Return what the network is a member of."""
        boxes = f", boxes: {self.regression}" if self.regression else ""
        return f"{self.configuration.name}, {len(self.classes)} classes, image_size={self.image_size}{boxes}"


def is_head(name: str) -> bool:
    """Say whether a layer stands behind the convolutions: `fc6` to `fc8`, `relu6` and so on."""
    return name[-1] in "678" and "_" not in name


def _convolutions(
    configuration: Configuration, width: float, batch_norm: bool, lrn_alpha: float
) -> tuple[list[tuple[str, nn.Module]], int]:
    """Return the named layers from conv1_1 to pool5 and the channels that come out."""
    layers: list[tuple[str, nn.Module]] = []
    before = 3
    for b, block in enumerate(configuration.blocks, start=1):
        for i, conv in enumerate(block, start=1):
            channels = max(1, round(conv.channels * width))
            # The bias in front of batch norm stays: it costs nothing and keeps one set of names for all.
            layers.append((f"conv{b}_{i}", nn.Conv2d(before, channels, conv.kernel, padding=conv.kernel // 2)))
            if batch_norm:
                layers.append((f"bn{b}_{i}", nn.BatchNorm2d(channels)))
            layers.append((f"relu{b}_{i}", nn.ReLU(inplace=True)))
            before = channels
        if configuration.lrn and b == 1:
            layers.append(("norm1", LocalResponseNorm(alpha=lrn_alpha)))
        layers.append((f"pool{b}", nn.MaxPool2d(2)))
    return layers, before


def _head(channels: int, window: int, fc_width: int, outputs: int, dropout: float) -> list[tuple[str, nn.Module]]:
    """Return the named layers from fc6 to fc8."""
    layers: list[tuple[str, nn.Module]] = []
    for i, (before, kernel) in ((6, (channels, window)), (7, (fc_width, 1))):
        layers += [(f"fc{i}", Window(before, fc_width, kernel)), (f"relu{i}", nn.ReLU(inplace=True))]
        layers.append((f"drop{i}", nn.Dropout(dropout)))
    return [*layers, ("fc8", Window(fc_width, outputs, 1))]


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
        Makes a localizer, which gives boxes in place of class scores; see `VGG`.

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
    with torch.device("meta"):  # no time lost on torch's own initialization
        net = VGG(
            configuration(configuration_name),
            names,
            width=width,
            batch_norm=batch_norm,
            image_size=image_size,
            fc_width=fc_width,
            dropout=dropout,
            lrn_alpha=lrn_alpha,
            preprocessing=preprocessing,
            regression=regression,
        )
    net.to_empty(device="cpu")
    initialize(net, initialization, seed)
    return net
