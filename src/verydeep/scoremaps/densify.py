"""Any sequential network as layers that slide: what was trained on crops then reads images of any size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from verydeep.basics.errors import UserError
from verydeep.checkpoints.inputs import TORCHVISION
from verydeep.nets.layers import Branches, LocalResponseNorm
from verydeep.nets.network import Network
from verydeep.nets.plain import channels_out, fold, statistics
from verydeep.nets.preprocessing import Preprocessing
from verydeep.scoremaps.bands import Rectangle, bands, extents, map_size
from verydeep.scoremaps.branches import Branched
from verydeep.scoremaps.finer import finer
from verydeep.scoremaps.layers import Axis, Convolution, Layer, MaxPool, MeanPool, Pointwise

# Each place by itself, whatever its neighbors are.
_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign),
)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)


@dataclass(frozen=True)
class Dense:
    """A network made to slide over images of any size.

    Attributes
    ----------
    name : str
        For messages.
    layers : tuple of Layer
        What it does to preprocessed pixels, in order.
    window : int
        Side in pixels of the window that one cell of the map is the answer to.
    stride : int
        Pixels between windows.
    classes : tuple of str
        Names, in the order of the scores.
    preprocessing : Preprocessing
        How pixels become the network's input.
    multi_label : bool
        Whether images may have several classes: posteriors are then one sigmoid a class, else one soft-max.
    """

    name: str
    layers: tuple[Layer, ...]
    window: int
    stride: int
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    multi_label: bool = False

    def at_stride(self, stride: int) -> "Dense":
        """Return the network whose map has a cell every `stride` pixels: see `verydeep.scoremaps.finer`."""
        return replace(self, layers=finer(self.layers, stride), stride=stride)

    def to(self, device: torch.device) -> "Dense":
        """Return the network with its weights on a device."""
        return replace(self, layers=tuple(_moved(layer, device) for layer in self.layers))

    @property
    def least_size(self) -> int:
        """Side in pixels of the smallest image that gives a map."""
        return next(side for side in range(1, self.window + 1) if min(map_size(self.layers, side, side)) > 0)


def densify(
    model: nn.Module,
    *,
    image_size: int = 224,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Dense:
    """Make a network slide over images of any size, exactly.

    Convolutions, pools, layers that treat every place by itself, and at the end fully connected layers; the first of
    these becomes a convolution that covers its window. The result is compared with the model at `image_size` before
    it is returned.

    Parameters
    ----------
    model : nn.Module
        A network of this project, torchvision's or timm's VGG or AlexNet, or an `nn.Sequential`, nested or not.
    image_size : int
        Side in pixels of the crops it was trained on: the window of a cell. A network of this project knows its own.
    classes : sequence of str, optional
        Names, in the order of the scores; by default their numbers. A network of this project knows its own.
    preprocessing : Preprocessing, optional
        By default torchvision's: RGB in [0, 1], ImageNet's mean and standard deviation. A network of this project
        knows its own.

    Returns
    -------
    Dense
        For `score_map`; it shares the model's weights, in evaluation mode.

    Raises
    ------
    UserError
        For a layer that cannot be treated exactly, by name.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    >>> dense = densify(model, image_size=8)
    >>> dense.window, dense.stride, [layer.name for layer in dense.layers]
    (8, 2, ['0', '2', '4'])
    """
    if isinstance(model, Network):
        model.check_task("classify")
        model = model.linear()
        layers = chain_layers(model)
        name, preprocessing = model.configuration.name, model.preprocessing
        return Dense(name, layers, model.window, model.stride, model.classes, preprocessing, model.multi_label)
    layers = _Builder(image_size).build(_flat(model))
    if not any(isinstance(layer, Convolution) for layer in layers):
        raise UserError("densify: there is no convolution")
    names = tuple(map(str, range(layers[-1].outputs))) if classes is None else tuple(classes)
    if len(names) != layers[-1].outputs:
        raise UserError(f"{len(names)} class names are given, and the network has {layers[-1].outputs} scores")
    stride = 1
    for layer in layers:
        if layer.rows.stride != layer.columns.stride:
            raise UserError(f"densify: layer {layer.name} has strides that differ along the two axes")
        stride *= layer.rows.stride
    dense = Dense(type(model).__name__, layers, image_size, stride, names, preprocessing or TORCHVISION)
    _compare(model, dense)
    return dense


def chain_layers(net: Network) -> tuple[Layer, ...]:
    """Return the layers of a network of this project, from the image to its last map."""
    return _Builder(net.window, net.preprocessing.pool_round_up).build(net.chain)


def layers_between(net: Network, after: str | None, layer: str) -> tuple[Layer, ...]:
    """Return what runs behind a layer of a network (from the pixels on where that is None) up to another one."""
    builder = _Builder(net.window, net.preprocessing.pool_round_up)
    modules = net.between(after, layer)
    if after:
        builder.channels = channels_out(net.plain_layers(None, after))
    if modules and not isinstance(modules[0][1], nn.Conv2d | nn.MaxPool2d | Branches):
        builder.layers.append(MaxPool(layer, Axis(1), Axis(1), builder.channels, builder.channels))  # changes nothing
    return builder.build(modules)


def _compare(model: nn.Module, dense: Dense) -> None:
    """Refuse a model whose forward pass does something else than its layers in order."""
    size = map_size(dense.layers, dense.window, dense.window)
    if size != (1, 1):
        raise UserError(
            f"densify: at image_size {dense.window} the map has {size[0]} x {size[1]} cells, expected one: "
            "give the size of the crops that the network was trained on"
        )
    like = next(model.parameters())
    x = torch.randn(1, 3, dense.window, dense.window, generator=torch.Generator().manual_seed(0)).to(like)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            expected, found = model(x).flatten(), run(dense.layers, x[0]).flatten()
    finally:
        model.train(training)
    if found.shape != expected.shape or not bool((found - expected).abs().max() <= 1e-3 * expected.abs().max()):
        raise UserError(
            f"densify: {type(model).__name__} does more than its layers in order: at {dense.window} x {dense.window} "
            "pixels they give other scores; give them as an nn.Sequential"
        )


def run(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Return the map of a whole image at once, K x h x w, of preprocessed pixels 3 x H x W."""
    height, width = x.shape[1:]
    found = extents(layers, height, width, Rectangle(0, 0, *map_size(layers, height, width)))
    at_once = [extent.outputs.bottom for extent in found]
    (scores,) = bands(layers, found, at_once, [x.permute(1, 2, 0).contiguous()])
    return scores.permute(2, 0, 1)


def _flat(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers in the order in which the model applies them, under dotted names."""
    if isinstance(model, nn.Sequential):
        for name, child in model.named_children():
            if isinstance(child, nn.Sequential):
                yield from ((f"{name}.{inner}", layer) for inner, layer in _flat(child))
            else:
                yield name, child
        return
    kind = f"{type(model).__module__}.{type(model).__name__}"
    children = dict(model.named_children())
    if kind in ("torchvision.models.vgg.VGG", "torchvision.models.alexnet.AlexNet"):
        parts = [*_named("features", children), ("avgpool", children["avgpool"]), ("flatten", nn.Flatten())]
        yield from [*parts, *_named("classifier", children)]
    elif kind == "timm.models.vgg.VGG":
        fully_connected, head = children["pre_logits"], children["head"]
        inner = [(f"pre_logits.{name}", layer) for name, layer in fully_connected.named_children()]
        last = dict(head.named_children())
        yield from [*_named("features", children), *inner, ("flatten", nn.Flatten()), ("head.fc", last["fc"])]
    else:
        raise UserError(
            f"densify: what {type(model).__name__} does between its layers is unknown; give an nn.Sequential, or "
            "torchvision's or timm's VGG or AlexNet"
        )


def _named(name: str, children: dict[str, nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.{inner}", layer) for inner, layer in _flat(children[name])]


class _Builder:
    """Turns modules into layers one after another.

    Parameters
    ----------
    side : int
        Of the square image that the model was made for; adaptive pools and fully connected layers depend on it.
    round_up : bool, optional
        How pools round; by default each as it says itself.
    """

    def __init__(self, side: int, round_up: bool | None = None) -> None:
        self.height = self.width = side
        self.round_up = round_up
        self.channels = 3
        self.flattened = False
        self.layers: list[Layer] = []

    def build(self, modules: Any) -> tuple[Layer, ...]:
        """Return the layers of (name, module) pairs."""
        modules = list(modules)
        for i in range(len(modules) - 1):  # ReLU and max-pool commute, and a pool's output is smaller
            if isinstance(modules[i][1], nn.ReLU) and isinstance(modules[i + 1][1], nn.MaxPool2d):
                modules[i], modules[i + 1] = modules[i + 1], modules[i]
        for name, module in modules:
            self._add(name, module)
        return tuple(self.layers)

    def _add(self, name: str, module: nn.Module) -> None:
        if isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
                raise _refused(name, module, "flattens other dimensions than channels, rows and columns")
            self.flattened = True
        elif isinstance(module, nn.Linear):
            self._append(self._linear(name, module))
        elif isinstance(module, nn.Conv2d):
            self._append(self._convolution(name, module))
        elif isinstance(module, Branches):
            self._append(Branched.of(name, tuple(self._branch(part) for part in module.children())))
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            self._append(self._pool(name, module))
        elif isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            self._adaptive(name, module)
        elif isinstance(module, nn.BatchNorm2d) and self._foldable:
            self.layers[-1] = _folded(name, cast(Convolution, self.layers[-1]), module)
        elif not isinstance(module, _NOTHING):
            self._behind(self._pointwise(name, module), name, module)

    def _branch(self, modules: nn.Module) -> tuple[Layer, ...]:
        builder = _Builder(self.height, self.round_up)
        builder.channels = self.channels
        return builder.build(modules.named_children())

    @property
    def _foldable(self) -> bool:
        return bool(self.layers) and isinstance(self.layers[-1], Convolution) and not self.layers[-1].behind

    def _append(self, layer: Layer) -> None:
        self.layers.append(layer)
        self.height, self.width = layer.rows.size(self.height), layer.columns.size(self.width)
        self.channels = layer.outputs

    def _behind(self, pointwise: Pointwise, name: str, module: nn.Module) -> None:
        if not self.layers:
            raise _refused(name, module, "stands before the first convolution")
        self.layers[-1] = replace(self.layers[-1], behind=(*self.layers[-1].behind, pointwise))

    def _linear(self, name: str, module: nn.Linear) -> Layer:
        if not self.flattened:
            raise _refused(name, module, "is fully connected and not behind a flatten")
        rows, columns = self.height, self.width
        if module.in_features != self.channels * rows * columns:
            raise _refused(
                name, module, f"has {module.in_features} inputs, and {self.channels} x {rows} x {columns} come to it"
            )
        weight = module.weight.detach().reshape(module.out_features, self.channels, rows, columns)
        return _convolution(name, Axis(rows), Axis(columns), weight, module.bias)

    def _convolution(self, name: str, module: nn.Conv2d) -> Layer:
        if self.flattened:
            raise _refused(name, module, "stands behind a flatten")
        if module.padding_mode != "zeros":
            raise _refused(name, module, f"pads by {module.padding_mode!r}; only zeros are the same for every tile")
        if module.in_channels != self.channels:
            raise _refused(name, module, f"takes {module.in_channels} channels, and {self.channels} come to it")
        rows, columns = (_conv_axis(module, axis) for axis in (0, 1))
        return _convolution(name, rows, columns, module.weight.detach(), module.bias, module.groups)

    def _pool(self, name: str, module: nn.MaxPool2d | nn.AvgPool2d) -> Layer:
        if self.flattened:
            raise _refused(name, module, "stands behind a flatten")
        if isinstance(module, nn.AvgPool2d):
            if module.ceil_mode or any(_pair(module.padding)) or module.divisor_override:
                raise _refused(name, module, "pads, rounds up or divides by a number of its own")
            rows, columns = (Axis(_pair(module.kernel_size)[i], _pair(module.stride)[i]) for i in (0, 1))
            return MeanPool(name, rows, columns, self.channels, self.channels)
        if module.return_indices:
            raise _refused(name, module, "returns indices")
        up = module.ceil_mode if self.round_up is None else self.round_up
        rows, columns = (_pool_axis(module, axis, up) for axis in (0, 1))
        return MaxPool(name, rows, columns, self.channels, self.channels, fill=-torch.inf)

    def _adaptive(self, name: str, module: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) -> None:
        wanted = tuple(n or own for n, own in zip(_pair(module.output_size), (self.height, self.width), strict=True))
        if wanted == (self.height, self.width):
            return  # does nothing at the native size
        if wanted != (1, 1) or isinstance(module, nn.AdaptiveMaxPool2d):
            raise _refused(
                name, module, f"makes {wanted[0]} x {wanted[1]} of {self.height} x {self.width} at the native size"
            )
        self._append(MeanPool(name, Axis(self.height), Axis(self.width), self.channels, self.channels))

    def _pointwise(self, name: str, module: nn.Module) -> Pointwise:
        if isinstance(module, nn.BatchNorm2d):
            return _batch_norm(name, module)
        if isinstance(module, nn.LocalResponseNorm | LocalResponseNorm):
            if self.flattened:
                raise _refused(name, module, "stands behind a flatten")
            return lambda x: module(x[None].permute(0, 3, 1, 2))[0].permute(1, 2, 0).contiguous()
        if isinstance(module, nn.ReLU):
            return torch.relu_
        if isinstance(module, _POINTWISE):
            return module
        raise _refused(name, module, "is no convolution, pool or pointwise layer")


def _convolution(
    name: str, rows: Axis, columns: Axis, weight: Tensor, bias: Tensor | None, groups: int = 1
) -> Convolution:
    if bias is not None:
        bias = bias.detach()
    return Convolution(
        name,
        rows,
        columns,
        inputs=weight.shape[1] * groups,
        outputs=weight.shape[0],
        macs=weight.numel(),
        weight=weight,
        bias=bias,
        groups=groups,
    )


def _conv_axis(module: nn.Conv2d, axis: int) -> Axis:
    kernel, stride, dilation = module.kernel_size[axis], module.stride[axis], module.dilation[axis]
    if isinstance(module.padding, str):
        total = dilation * (kernel - 1) if module.padding == "same" else 0
        return Axis(kernel, stride, dilation, total // 2, total - total // 2)
    return Axis(kernel, stride, dilation, module.padding[axis], module.padding[axis])


def _pool_axis(module: nn.MaxPool2d, axis: int, round_up: bool) -> Axis:
    kernel, stride, padding, dilation = (
        _pair(value)[axis] for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    return Axis(kernel, stride, dilation, padding, padding, stride - 1 if round_up else 0)


def _folded(name: str, layer: Convolution, norm: nn.BatchNorm2d) -> Convolution:
    _check_statistics(name, norm)
    before = torch.zeros_like(layer.weight[:, 0, 0, 0]) if layer.bias is None else layer.bias
    weight, bias = fold(layer.weight, before, norm)
    return replace(layer, weight=weight, bias=bias)


def _batch_norm(name: str, module: nn.BatchNorm2d) -> Pointwise:
    """Return batch norm that stands behind no convolution, by itself."""
    _check_statistics(name, module)
    scale, mean, offset = statistics(module)
    offset = offset - mean * scale
    return lambda x: x.mul_(scale.to(x)).add_(offset.to(x))


def _check_statistics(name: str, module: nn.BatchNorm2d) -> None:
    if module.running_mean is None or module.running_var is None:
        raise _refused(name, module, "normalizes by the picture's own statistics, which depend on all of it")


def _moved(layer: Layer, device: torch.device) -> Layer:
    if isinstance(layer, Branched):
        return replace(layer, branches=tuple(tuple(_moved(one, device) for one in branch) for branch in layer.branches))
    if not isinstance(layer, Convolution) or layer.weight.device == device:
        return layer  # with the weights that it has laid out
    bias = None if layer.bias is None else layer.bias.to(device)
    return replace(layer, weight=layer.weight.to(device), bias=bias)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return first, second


def _refused(name: str, module: nn.Module, why: str) -> UserError:
    return UserError(f"densify: layer {name} ({type(module).__name__}) {why}: its map could not be exact")
