"""A contact sheet: small pictures of a data set's classes on one page, with their boxes."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from verydeep.basics.errors import BadImageError
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.splits import strata

COLUMNS, MOST = 12, 96  # pictures a row and on the whole sheet
TILE, CAPTION, GAP = 112, 16, 8  # px
PAPER, INK, RED = (255, 255, 255), (40, 40, 40), (230, 30, 30)


def contact_sheet(dataset: Dataset) -> Image.Image:
    """Draw at most `MOST` images of a data set, class after class, with class names and boxes.

    Several of each class where classes are few, one each of evenly chosen classes where they are many; a damaged image
    is an empty frame with the word.
    """
    chosen, columns = choose(dataset)
    rows = -(-len(chosen) // columns)
    size = columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, index in enumerate(chosen):
        row, column = divmod(place, columns)
        left, top = GAP + column * (TILE + GAP), GAP + row * (TILE + CAPTION + GAP)
        sheet.paste(_tile(dataset, index), (left, top))
        _write(pen, _caption(dataset, index), left, top + TILE + 1)
    return sheet


def choose(dataset: Dataset) -> tuple[list[int], int]:
    """Return the images to show, class after class, and how many of them a row has."""
    by_label: dict[int, list[int]] = {}
    for index, label in enumerate(strata(dataset.samples)):
        by_label.setdefault(label, []).append(index)
    labels = _evenly(sorted(by_label), MOST)
    each = min(COLUMNS, max(1, MOST // len(labels)))
    return [index for label in labels for index in _evenly(by_label[label], each)], COLUMNS // each * each


def _caption(dataset: Dataset, index: int) -> str:
    sample = dataset.samples[index]
    if sample.labels is None:
        return dataset.classes[sample.label]
    return ", ".join(dataset.classes[label] for label in sample.labels) or "none"


def _evenly(items: list[int], count: int) -> list[int]:
    """Return at most `count` items, evenly from first to last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]


def _tile(dataset: Dataset, index: int) -> Image.Image:
    """Return an image as large as fits into a square, in its middle, with its boxes."""
    tile = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    pen = ImageDraw.Draw(tile)
    try:
        pixels = dataset.image(index)
    except BadImageError:
        pen.text((TILE // 2, TILE // 2), "damaged", RED, ImageFont.load_default(13), anchor="mm")
        return tile
    scale = TILE / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    left, top = (TILE - width) // 2, (TILE - height) // 2
    tile.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), (left, top))
    for box in dataset.samples[index].boxes:
        # A box names edges, Pillow the first and last pixel.
        last = left + max(box.xmin, box.xmax - 1 / scale) * scale, top + max(box.ymin, box.ymax - 1 / scale) * scale
        pen.rectangle((left + box.xmin * scale, top + box.ymin * scale, *last), outline=RED)
    return tile


def _write(pen: ImageDraw.ImageDraw, text: str, left: int, top: int) -> None:
    """Write a class name below its picture, cut where it does not fit."""
    font = ImageFont.load_default(11)
    cut = text
    while pen.textlength(cut, font) > TILE:
        cut = f"{cut[:-2]}…"
    pen.text((left, top), cut, INK, font)
