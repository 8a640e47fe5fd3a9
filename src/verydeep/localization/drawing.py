"""Pictures with boxes drawn on them."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from verydeep.inference.views import Picture

# Colors that are told apart also by the color-blind (Okabe & Ito), strongest first.
COLORS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0))
TRUTH = (255, 255, 255)
LEAST_SIDE = 360
"""Smaller pictures are enlarged until their smaller side has so many pixels, or captions would cover them."""


def draw_boxes(
    picture: Picture,
    boxes: Sequence[Sequence[float]],
    captions: Sequence[str],
    truths: Sequence[Sequence[float]] = (),
    least_side: int = LEAST_SIDE,
) -> Image.Image:
    """Draw boxes, edges in the picture's pixels, with captions, the first on top; true ones in white beneath.

    Small pictures are enlarged to the smaller side `least_side`.
    """
    image = Image.fromarray(picture)
    scale = max(1.0, least_side / min(image.size))
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    line = max(2, round(min(image.size) / 150))
    for truth in truths:
        _outline(pen, truth, scale, (0, 0, 0), line + 4, image.size)  # beneath the white, to be seen on light ground
        _outline(pen, truth, scale, TRUTH, line + 2, image.size)
    for rank, (box, caption) in reversed(list(enumerate(zip(boxes, captions, strict=True)))):
        color = COLORS[rank % len(COLORS)]
        left, top = _outline(pen, box, scale, color, line, image.size)
        if caption:
            _caption(pen, caption, left, top, color, image.size)
    return image


def _outline(
    pen: ImageDraw.ImageDraw,
    box: Sequence[float],
    scale: float,
    color: tuple[int, int, int],
    line: int,
    size: tuple[int, int],
) -> tuple[float, float]:
    """Draw a box, its edges' pixels inside it and inside the picture; return its first corner."""
    left, top, right, bottom = (edge * scale for edge in box)
    right, bottom = min(max(right, left + 1), size[0]), min(max(bottom, top + 1), size[1])
    pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=line)
    return left, top


def _caption(
    pen: ImageDraw.ImageDraw, text: str, left: float, top: float, color: tuple[int, int, int], size: tuple[int, int]
) -> None:
    """Write a caption above a box, or inside where there is no room, within the picture."""
    font = ImageFont.load_default(max(13, round(min(size) / 26)))
    x0, y0, x1, y1 = pen.textbbox((0, 0), text, font)
    width, height = x1 - x0 + 8, y1 - y0 + 6
    x = min(max(left, 0), max(size[0] - width, 0))
    y = top - height if top >= height else min(top, size[1] - height)
    pen.rectangle((x, y, x + width, y + height), fill=color)
    pen.text((x + 4 - x0, y + 3 - y0), text, fill=(255, 255, 255), font=font)
