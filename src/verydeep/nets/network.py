"""What every network here is: a sequence of layers, convolutional from the pixels to the scores."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from verydeep.basics.errors import UserError
from verydeep.nets.architectures import Architecture
from verydeep.nets.config import DescriptorConfig, NetworkConfig, Regression
from verydeep.nets.configurations import Configuration
from verydeep.nets.layers import Beside, ConvLinear, ViewDescriptor, relu_pool
from verydeep.nets.plain import Plain, least_size, plain_layers, stride
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.run_info import RunInfo

TaskName = Literal["classify", "localize", "describe", "segment"]
"""What a network gives: scores of classes, boxes, features alone (a trunk), or scores of classes for each pixel."""

Through = Callable[[Tensor, str, str | None], Tensor]
"""Maps what a layer gave, or from None preprocessed pixels, to what a later layer gives: (values, later, layer)."""


class Network(nn.Sequential):
    """Layers in order under the names of a family's paper; where things are follows from them.

    Parameters
    ----------
    config : NetworkConfig
        What it is.
    layers : sequence of (str, nn.Module)
        What runs, in order; the scores come from the last one.

    Attributes
    ----------
    config : NetworkConfig
        What the network is.
    provenance : RunInfo
        What is known of the weights' origin: data, scales, recipe, seed.
    stride : int
        Pixels between neighboring cells of the last layer's map.
    window : int
        Side in pixels of the part of the image that one such cell stands for.
    """

    def __init__(self, config: NetworkConfig, layers: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__(OrderedDict(layers))
        self.config = config
        self.provenance = RunInfo()
        plain = plain_layers(self.chain, round_up=False)
        self.stride, self.window = stride(plain), least_size(plain)
        self._least_sizes = self.window, least_size(plain_layers(self.chain, round_up=True))

    @property
    def configuration(self) -> Configuration | Architecture:
        """Which of the paper's configurations, or of the networks that it compares with."""
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
        if self.config.segmentation:
            return "segment"
        return "localize" if self.regression else "classify" if self.classes else "describe"

    def check_task(self, task: TaskName, name: object = "the network") -> None:
        """Raise UserError where the network, called `name` in the message, gives something else than is needed."""
        drawn = self.provenance.untrained_layers if task == "classify" else ()
        if self.task == task and not drawn:
            return
        is_what = {
            "classify": f"a classifier whose {', '.join(drawn)} are random numbers" if drawn else "a classifier",
            "localize": "a localizer, which gives boxes and no classes",
            "describe": f"a trunk (its last layer is {self.layer_names[-1]}), which gives features and no scores",
            "segment": "a network for each pixel, which verydeep segment runs, and verydeep evaluate --task segment",
        }
        wanted = {
            "classify": "a classifier",
            "localize": "a localizer (verydeep train --task localize makes one)",
            "segment": "a network for each pixel (verydeep train --task segment makes one)",
        }
        how = "; verydeep transfer, or verydeep train --init-from, makes one of it"
        remedy = how if drawn or self.task == "describe" else ""
        raise UserError(f"{name}: is {is_what[self.task]}; expected {wanted.get(task, 'a trunk')}{remedy}")

    @property
    def least_size(self) -> int:
        """Side in pixels of the smallest image that gives a score map."""
        return self._least_sizes[self.preprocessing.pool_round_up]

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
        return self.activations(x, self.layer_names[-1])

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
        return run_layers(layers, x, round_up)

    def plain_layers(self, after: str | None = None, layer: str | None = None) -> list[Plain]:
        """Return the layers between two as plain ones: see `verydeep.nets.plain`."""
        modules = self.between(after, layer or self.layer_names[-1])
        return plain_layers(modules, self.preprocessing.pool_round_up)

    def between(self, after: str | None, layer: str) -> list[tuple[str, nn.Module]]:
        """Return the modules that run behind a layer (from the first one where that is None) up to another."""
        modules = self.chain
        names = [name for name, _ in modules]
        start = names.index(self.module_name(after)) + 1 if after else 0
        return modules[start : names.index(self.module_name(layer)) + 1]

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names that `activations` takes, in order: `conv1_1`, `conv1_1.relu`, ..., `pool5`, ..., `fc7.relu`, `fc8`."""
        return tuple(_ends(self.chain))

    def module_name(self, layer: str) -> str:
        """Return the name of the module whose output a layer's is; UserError where there is no such layer."""
        return find_layer(layer, self.chain, self.configuration.name)

    @property
    def chain(self) -> list[tuple[str, nn.Module]]:
        """What an image passes, in order: all modules but auxiliary classifiers and what pixels are scored by."""
        return [(name, module) for name, module in self.named_children() if not isinstance(module, Beside)]

    @property
    def weighted(self) -> tuple[str, ...]:
        """Names of the modules with weights, but for batch norm, which belongs to its convolution."""
        return tuple(
            name
            for name, module in self.named_children()
            if not isinstance(module, nn.BatchNorm2d) and any(True for _ in module.parameters())
        )

    @property
    def normalized(self) -> dict[str, str]:
        """Names of the batch norms, and of the convolution that each of them stands behind."""
        names: dict[str, str] = {}
        last = ""
        for name, module in self.named_children():
            if isinstance(module, nn.BatchNorm2d):
                names[name] = last
            last = name
        return names

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores of whole images, N x K: the spatial mean of the score map."""
        return self.score_map(x).mean(dim=(2, 3))

    def in_training(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what training makes its loss of: `forward`'s scores and those of auxiliary classifiers."""
        return (self(x),)

    def in_training_by(self, x: Tensor, through: Through) -> tuple[Tensor, ...]:
        """Return what `in_training` does of networks without auxiliary classifiers, their layers run by `through`."""
        return (through(x, self.layer_names[-1], None).mean(dim=(2, 3)),)

    first_skip: str | None = None
    """The first layer whose map is used beside the chain, of networks that answer for each pixel."""

    @property
    def multi_label(self) -> bool:
        """Whether images may have several classes: each then has a posterior of its own."""
        return bool(self.provenance.multi_label)

    def posteriors(self, scores: Tensor) -> Tensor:
        """Return the posteriors in [0, 1] of scores, N x K or N x K x h x w: by soft-max, or of several by sigmoids."""
        return scores.sigmoid() if self.multi_label else scores.softmax(dim=1)

    def one_view(self) -> Self:
        """Return the network with a classifier that takes one view: of stacked scales' blocks of weights, the sum.

        It gives what this one gives, and shares its other weights.
        """
        about = self.config.descriptor
        if about is None or about.copies == 1:
            return self
        weight = about.share * torch.stack(self._last_weight().chunk(about.copies, dim=1)).sum(dim=0)
        return self._with_last(weight, replace(about, aggregate="mean"))

    def linear(self) -> Self:
        """Return the network with a score map that is linear in the layer before its last, as a plain network's is.

        The norm of each picture gives way to the mean norm of the training pictures. Of a network whose last layer
        classifies no descriptors it is the network itself.
        """
        net, about = self.one_view(), self.config.descriptor
        if about is None:
            return self
        norm = 1.0 if about.normalize == "none" else about.norm
        return net._with_last(net._last_weight() / norm, None)

    def _last_weight(self) -> Tensor:
        return cast(ConvLinear, self.get_submodule(self.config.classifier)).weight.detach().double()

    def _with_last(self, weight: Tensor, descriptor: DescriptorConfig | None) -> Self:
        with torch.device("meta"):
            net = cast(Callable[[NetworkConfig], Self], type(self))(replace(self.config, descriptor=descriptor))
        state, name = self.state_dict(), f"{self.config.classifier}.weight"
        net.load_state_dict({**state, name: weight.to(state[name])}, assign=True)
        net.provenance = self.provenance
        return net.train(self.training)

    def extra_repr(self) -> str:
        """Return what the network is a member of."""
        boxes = f", boxes: {self.regression}" if self.regression else ""
        return f"{self.configuration.name}, {len(self.classes)} classes, image_size={self.image_size}{boxes}"


def run_layers(layers: Sequence[nn.Module], x: Tensor, round_up: bool) -> Tensor:
    """Run consecutive modules of a network; its pools make an output of an odd side's last line where `round_up`."""
    before = None
    for child, following in zip(layers, [*layers[1:], None], strict=True):
        if halves(child):
            x = relu_pool(x, round_up)
        elif isinstance(child, nn.MaxPool2d):
            x = F.max_pool2d(x, child.kernel_size, child.stride, child.padding, ceil_mode=round_up)
        elif isinstance(child, nn.ReLU) and halves(following) and not _is_hooked(child):
            continue  # it runs with the pool
        elif isinstance(child, nn.ReLU) and (before is None or _is_hooked(before)):
            x = child(x.clone())  # it works in place, and x is the caller's, or another program's that keeps it
        else:
            x = child(x)
        before = child
    return x


def halves(module: nn.Module | None) -> bool:
    """Say whether a module is the 2x2 max-pool of stride 2."""
    return isinstance(module, nn.MaxPool2d) and (module.kernel_size, module.stride, module.padding) == (2, 2, 0)


def _is_hooked(module: nn.Module) -> bool:
    """Say whether another program waits for a module to run, as Captum's guided backpropagation does for ReLUs."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


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


def find_layer(layer: str, modules: Iterable[tuple[str, nn.Module]], network: str) -> str:
    """Return the name of the module whose output is a layer's; UserError where `network` has no such layer."""
    ends = _ends(modules)
    if layer not in ends:
        names = list(ends)
        near = get_close_matches(layer, names, n=1) or names[-1:]
        raise UserError(
            f"{network} has no layer {layer!r}: they are {names[0]}, {names[1]}, ..., {', '.join(names[-2:])} "
            f"(did you mean {near[0]}?)"
        )
    return ends[layer]
