"""Where things are: sizes, receptive fields, and the pixels that a cell of the score map stands for."""

from dataclasses import dataclass
from math import prod

from verydeep.nets.layers import LocalResponseNorm
from verydeep.nets.network import Network
from verydeep.nets.plain import Concatenation, Conv, MaxPool, MeanPool, Normalization, Slides, sides


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network, applied to an image of a certain size.

    Attributes
    ----------
    name : str
        The paper's name of the layer.
    kind : str
        `conv` and the side of its kernel, `pool`, `mean`, `lrn`, or `concat` of the branches before it.
    output : tuple of int
        Channels, height and width that come out.
    parameters : int
        Weights and biases, batch norm included.
    macs : int
        Multiply-adds of one image, biases not counted.
    receptive_field : int
        Side in pixels of the input region that one output sees.
    stride : int
        Pixels between the fields of neighboring outputs.
    """

    name: str
    kind: str
    output: tuple[int, int, int]
    parameters: int
    macs: int
    receptive_field: int
    stride: int


@dataclass(frozen=True)
class Rectangle:
    """Pixels from row `top` to before `bottom`, from column `left` to before `right`; may reach over the image."""

    top: int
    left: int
    bottom: int
    right: int


def summarize(net: Network, height: int, width: int) -> list[LayerSummary]:
    """Return the layers with weights, the pools and the normalization, in order, for an image of a certain size.

    UserError where the image is smaller than `net.least_size`; weights do not matter.
    """
    net.check_size(height, width)
    rows: list[LayerSummary] = []
    plain = net.plain_layers()
    channels, field, stride = 3, 1, 1
    for layer, rows_out, columns_out in zip(plain, sides(plain, height), sides(plain, width), strict=True):
        kind, macs, parameters = "", 0, 0
        if isinstance(layer, Concatenation):
            rows += _branches(layer, channels, (rows_out, columns_out), (field, stride))
            kind, channels = "concat", layer.module.out_channels
        if isinstance(layer, Conv):
            kind, channels = f"conv{layer.kernel}", layer.module.out_channels
            macs = layer.module.weight.numel() * rows_out * columns_out
            parameters = _parameters(layer)
        elif isinstance(layer, MaxPool | MeanPool):
            kind = "pool" if isinstance(layer, MaxPool) else "mean"
        elif isinstance(layer, Normalization) and isinstance(layer.module, LocalResponseNorm):
            kind = "lrn"
        if isinstance(layer, Slides):
            field, stride = field + (layer.kernel - 1) * stride, layer.stride * stride
        if kind:
            output = channels, rows_out, columns_out
            rows.append(LayerSummary(layer.name, kind, output, parameters, macs, field, stride))
    return rows


def _branches(
    layer: Concatenation, channels: int, map_size: tuple[int, int], seen: tuple[int, int]
) -> list[LayerSummary]:
    """Return the layers of each branch; `channels` come in, with the field and the stride of `seen`."""
    rows: list[LayerSummary] = []
    for branch in layer.branches:
        outputs, (field, stride) = channels, seen
        for part in branch.layers:
            if isinstance(part, Conv | MaxPool):
                field += (part.kernel - 1) * stride
                kind, macs, parameters = "pool", 0, 0
                if isinstance(part, Conv):
                    kind, outputs = f"conv{part.kernel}", part.module.out_channels
                    macs, parameters = part.module.weight.numel() * prod(map_size), _parameters(part)
                rows.append(LayerSummary(part.name, kind, (outputs, *map_size), parameters, macs, field, stride))
    return rows


def _parameters(layer: Conv) -> int:
    modules = [layer.module, layer.norm] if layer.norm else [layer.module]
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def score_map_size(net: Network, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of an image's score map; UserError where it is smaller than `net.least_size`.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> score_map_size(create("A", width=1 / 64, fc_width=8), 256, 341)
    (2, 5)
    """
    net.check_size(height, width)
    plain = net.plain_layers()
    return sides(plain, height)[-1], sides(plain, width)[-1]


def window(net: Network, row: int, column: int) -> Rectangle:
    """Return the window that cell (row, column) of the score map is the network's answer to.

    It is the crop on which the network would give this score by itself, but for what lies around it: the crop
    would be padded with zeros there, and pools that round up would end with it. Where pools round up, the last window
    of an image, too, may reach over its edge.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> window(create("A", width=1 / 64, fc_width=8), 1, 2)
    Rectangle(top=32, left=64, bottom=256, right=288)
    """
    top, left = net.stride * row, net.stride * column
    return Rectangle(top, left, top + net.window, left + net.window)


def receptive_field(net: Network, row: int, column: int) -> Rectangle:
    """Return all pixels that cell (row, column) of the score map depends on; negative where padding is seen."""
    field = summarize(net, net.image_size, net.image_size)[-1].receptive_field
    first, stride = 0, 1  # pixel with which the field of cell (0, 0) begins
    for layer in net.plain_layers():
        if isinstance(layer, Slides):
            first -= stride * (0 if isinstance(layer, MeanPool) else layer.padding)
            stride *= layer.stride
    top, left = first + net.stride * row, first + net.stride * column
    return Rectangle(top, left, top + field, left + field)


def macs(net: Network, height: int, width: int) -> int:
    """Return the multiply-adds of one image of `height` x `width` pixels, biases not counted.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> net = create("A", width=1 / 64, fc_width=8)
    >>> macs(net, 224, 224) == sum(layer.macs for layer in summarize(net, 224, 224))
    True
    """
    return sum(layer.macs for layer in summarize(net, height, width))
