"""What projects do to pictures before the first convolution: by their software, or by layers in the file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.checkpoints.layers import Affine, Layer, SwapChannels
from verydeep.nets.preprocessing import Preprocessing

TORCHVISION = Preprocessing(value_range=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), pool_round_up=False)
"""RGB in [0, 1], ImageNet's mean and standard deviation; pools round down. timm's VGGs are the same networks."""

CAFFE = Preprocessing(channel_order="BGR")
"""The authors': BGR in [0, 255], the mean subtracted; pools round up."""

KERAS = Preprocessing(channel_order="BGR", pool_round_up=False)
"""The authors' input, as Keras's `preprocess_input` makes it; its pools round down."""

PREPROCESSINGS = {"torchvision": TORCHVISION, "timm": TORCHVISION, "caffe": CAFFE, "keras": KERAS}

ASSUMED = {"torchvision": TORCHVISION, "timm": TORCHVISION, "onnx": TORCHVISION, "keras": KERAS, "caffe": CAFFE}
"""What is taken for the input of a format's files, which do not say it."""

CONVENTIONS = {
    "BGR, 0 to 255, ImageNet's mean subtracted (caffe, keras)": CAFFE,
    "RGB, 0 to 1, ImageNet's mean and deviation (torchvision, timm)": TORCHVISION,
    "RGB, 0 to 255, ImageNet's mean subtracted": replace(CAFFE, channel_order="RGB"),
    "RGB, 0 to 1": Preprocessing(value_range=1.0, mean=(0.0, 0.0, 0.0)),
    "RGB, -1 to 1": Preprocessing(value_range=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "RGB, 0 to 255": Preprocessing(mean=(0.0, 0.0, 0.0)),
}
"""What networks are fed with, in the order of how often it is met."""


def fold_input(
    layers: Sequence[Layer], usual: Preprocessing, path: Path, *, stated: bool = False
) -> tuple[list[Layer], Preprocessing]:
    """Return the layers from the first convolution on, and a preprocessing that does what stands before it.

    `usual` is what the file's software does to pictures where the file does not scale them by layers of its own; with
    `stated` it is what the user says that the file's input is. Otherwise a file that scales its input takes RGB; up to
    255, or up to 1 where what it subtracts and divides by is that small.
    """
    rest = list(layers)
    before: list[Layer] = []
    while rest and isinstance(rest[0], Affine | SwapChannels):
        before.append(rest.pop(0))
    scaled = any(isinstance(layer, Affine) for layer in before)
    pictures = usual
    if scaled and not stated:
        pictures = replace(usual, channel_order="RGB", value_range=255.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    order, mean, std = pictures.channel_order, list(pictures.mean), list(pictures.std)
    for layer in before:
        if not isinstance(layer, Affine):
            order = "BGR" if order == "RGB" else "RGB"
            continue
        step = 1 if order == "RGB" else -1  # means and deviations are red, green, blue, whatever the order
        scale, shift = ((values * 3)[:3][::step] for values in (layer.scale, layer.shift))
        if min(scale) <= 0:
            raise UserError(f"{path}: {layer.name}: multiplies the input by {min(scale):g}; expected a number above 0")
        mean = [m - b * s / a for m, s, a, b in zip(mean, std, scale, shift, strict=True)]
        std = [s / a for s, a in zip(std, scale, strict=True)]
    if not before:
        return rest, usual
    if scaled and not stated and max(map(abs, [*mean, *std])) <= 1:
        pictures = replace(pictures, value_range=1.0)
    mean, std = ([float(f"{value:.7g}") for value in values] for values in (mean, std))
    return rest, replace(pictures, channel_order=order, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
