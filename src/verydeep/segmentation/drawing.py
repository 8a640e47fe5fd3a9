"""Maps of classes as pictures: masks with a palette, and over the picture."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verydeep.datasets.masks import IGNORED


def palette() -> NDArray[np.uint8]:
    """Return a color for each of 256 labels, those of VOC: the bits of a label, spread over red, green and blue."""
    labels, colors = np.arange(256), np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((labels >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit)
    return colors


def mask_image(labels: NDArray[np.uint8]) -> Image.Image:
    """Return labels as a picture with a palette, whose values are the labels."""
    image = Image.fromarray(labels, "L")
    image.putpalette(palette().tobytes())
    return image


def overlay(picture: NDArray[np.uint8], labels: NDArray[np.uint8], classes: Sequence[str]) -> Image.Image:
    """Return the picture in gray under the classes' colors, with a legend at its right of those that are there."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None]
    colors = palette()
    mixed = np.where((labels == IGNORED)[:, :, None], gray, (gray.astype(np.uint16) + colors[labels]) // 2)
    image = Image.fromarray(mixed.astype(np.uint8))
    return _with_legend(image, labels, classes, colors)


def _with_legend(
    image: Image.Image, labels: NDArray[np.uint8], classes: Sequence[str], colors: NDArray[np.uint8]
) -> Image.Image:
    from PIL import ImageDraw, ImageFont

    counts = np.bincount(labels.ravel(), minlength=256)[: len(classes)]
    there = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k]]
    size = max(11, min(16, image.height // max(len(there) + 1, 1) - 5))
    font = ImageFont.load_default(size)
    lines = [f"{classes[k]} {counts[k] / labels.size:.1%}" for k in there]
    wide = max((int(font.getlength(line)) for line in lines), default=0) + size + 18
    whole = Image.new("RGB", (image.width + wide, max(image.height, (size + 5) * len(lines) + 6)), "white")
    whole.paste(image)
    pen = ImageDraw.Draw(whole)
    for number, (k, line) in enumerate(zip(there, lines, strict=True)):
        x, y = image.width + 6, 4 + number * (size + 5)
        color = tuple((128 + colors[k].astype(int) // 2).tolist())
        pen.rectangle((x, y, x + size, y + size), fill=color, outline="black")
        pen.text((x + size + 6, y - 1), line, fill="black", font=font)
    return whole
