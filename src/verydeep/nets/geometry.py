"""Where things are: sizes, receptive fields, and the pixels that a cell of the score map stands for."""

from dataclasses import dataclass

from torch import nn

from verydeep.nets.network import VGG


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a network, applied to an image of a certain size.

    Attributes
    ----------
    name : str
        The paper's name of the layer.
    kind : str
        `conv3`, `conv1`, `conv5`, `pool` or `lrn`.
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


def summarize(net: VGG, height: int, width: int) -> list[LayerSummary]:
    """Return the layers with weights, the pools and the normalization, in order, for an image of a certain size.

    Parameters
    ----------
    net : VGG
        The network; its weights do not matter.
    height, width : int
        Size of the image in pixels, at least `net.least_size` each.

    Raises
    ------
    UserError
        The image is smaller than `net.least_size`.
    """
    score_map_size(net, height, width)
    rows: list[LayerSummary] = []
    channels, field, stride = 3, 1, 1
    for name, layer in net.named_children():
        kind, macs, parameters = "", 0, sum(parameter.numel() for parameter in layer.parameters())
        if isinstance(layer, nn.Conv2d):
            kernel, padding = layer.kernel_size[0], int(layer.padding[0])
            height, width = height - kernel + 1 + 2 * padding, width - kernel + 1 + 2 * padding
            kind, channels = f"conv{kernel}", layer.out_channels
            field += (kernel - 1) * stride
            macs = layer.weight.numel() * height * width
        elif isinstance(layer, nn.MaxPool2d):
            height, width = (_pooled(side, net.preprocessing.pool_round_up) for side in (height, width))
            kind, field, stride = "pool", field + stride, 2 * stride
        elif name.startswith("norm"):
            kind = "lrn"
        elif parameters:  # batch norm counts with its convolution
            last = rows.pop()
            rows.append(LayerSummary(**{**vars(last), "parameters": last.parameters + parameters}))
        if kind:
            rows.append(LayerSummary(name, kind, (channels, height, width), parameters, macs, field, stride))
    return rows


def score_map_size(net: VGG, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the score map of an image of `height` x `width` pixels.

    Raises
    ------
    UserError
        The image is smaller than `net.least_size`.

    Examples
    --------
    >>> from verydeep.nets.network import create
    >>> score_map_size(create("A", width=1 / 64, fc_width=8), 256, 341)
    (2, 5)
    """
    net.check_size(height, width)
    pools = net.stride.bit_length() - 1
    sides = []
    for side in (height, width):
        for _ in range(pools):
            side = _pooled(side, net.preprocessing.pool_round_up)
        sides.append(side - net.window // net.stride + 1)
    return sides[0], sides[1]


def window(net: VGG, row: int, column: int) -> Rectangle:
    """Return the window that cell (row, column) of the score map is the network's answer to.

    It is the crop on which the network would give this score by itself, but for what lies around it: the crop
    would be padded with zeros there. Where a side is no multiple of 32 and pools round up, the last window may
    reach over the image's edge.

    Examples
    --------
    >>> from verydeep.nets.network import create
    >>> window(create("A", width=1 / 64, fc_width=8), 1, 2)
    Rectangle(top=32, left=64, bottom=256, right=288)
    """
    top, left = net.stride * row, net.stride * column
    return Rectangle(top, left, top + net.window, left + net.window)


def receptive_field(net: VGG, row: int, column: int) -> Rectangle:
    """Return all pixels that cell (row, column) of the score map depends on; negative where padding is seen."""
    field = summarize(net, net.image_size, net.image_size)[-1].receptive_field
    margin = (field - net.window) // 2
    inner = window(net, row, column)
    return Rectangle(inner.top - margin, inner.left - margin, inner.top - margin + field, inner.left - margin + field)


def macs(net: VGG, height: int, width: int) -> int:
    """Return the multiply-adds of one image of `height` x `width` pixels, biases not counted.

    Examples
    --------
    >>> from verydeep.nets.network import create
    >>> net = create("A", width=1 / 64, fc_width=8)
    >>> macs(net, 224, 224) == sum(layer.macs for layer in summarize(net, 224, 224))
    True
    """
    return sum(layer.macs for layer in summarize(net, height, width))


def _pooled(side: int, round_up: bool) -> int:
    return (side + 1) // 2 if round_up else side // 2
