"""Pictures and chance for the tests of images."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def draw():
    """A function of (generator, height, width) that draws smooth content with edges, as photographs have it."""

    def draw(rng, height, width):
        coarse = rng.integers(0, 256, (max(2, height // 12), max(2, width // 12), 3), np.uint8)
        smooth = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        top, left = rng.integers(height), rng.integers(width)
        smooth[top : top + height // 3, left : left + width // 3] = rng.integers(0, 256, 3)
        return smooth

    return draw


@pytest.fixture(scope="session")
def encode():
    """A function of (array or Pillow image, format, options) that returns the file's content."""

    def encode(image, file_format, **options):
        file = BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, file_format, **options)
        return file.getvalue()

    return encode
