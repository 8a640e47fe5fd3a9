"""Small sources of images, as folders and as tars."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(rng):
    """Encode a random image: picture(height, width, format) -> bytes."""

    def make(height=24, width=32, kind="PNG"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture
def tree(tmp_path, picture):
    """Write files below a folder: tree("name", ["a/1.png", ...], {"list.txt": b"..."}) -> its path."""

    def make(name, images=(), others=None):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        for path, data in [*((image, picture()) for image in images), *(others or {}).items()]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        return root

    return make


@pytest.fixture
def pack():
    """Pack a folder with the standard library, in no special order: pack(folder, path, format) -> path."""

    def make(folder, path, kind=tarfile.GNU_FORMAT):
        with tarfile.open(path, "w", format=kind) as archive:
            for above, _, names in os.walk(folder):
                for name in names:
                    full = Path(above, name)
                    archive.add(full, full.relative_to(folder.parent))
        return path

    return make
