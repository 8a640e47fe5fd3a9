"""Pictures with masks that take no time: three classes, each a color, in rectangles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from verydeep.nets.config import SegmentationConfig
from verydeep.nets.fcn import FCN
from verydeep.nets.preprocessing import Preprocessing

COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)


def scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return labels 0 to 2 in rectangles, some pixels unlabelled (255)."""
    labels = np.zeros((height, width), np.uint8)
    for label in (1, 2, 255):
        top, left = int(rng.integers(height // 2)), int(rng.integers(width // 2))
        labels[top : top + height // 3, left : left + width // 3] = label
    return labels


def network(head: str = "8s", padding: str = "map", name: str = "A", round_up: bool = True, **options) -> FCN:
    """Return a small network whose scores at every stride have about one size, and whose classes are all found."""
    about = SegmentationConfig(head, padding)
    small = {"width": 1 / 32, "fc_width": 8, "image_size": 64} | options
    pixels = Preprocessing(mean=(100, 110, 120), std=(60, 60, 60), pool_round_up=round_up)
    net = vd.create(name, 3, segmentation=about, preprocessing=pixels, initialization="he", **small).eval()
    with torch.no_grad():
        for layer, module in net.named_children():
            if layer.startswith(("score_", "upscore")):
                for parameter in module.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    assert isinstance(net, FCN)
    return net


@pytest.fixture
def camvid(tmp_path: Path, rng: np.random.Generator) -> Path:
    """CamVid's layout: 6, 2 and 3 pictures of 40 x 56 pixels."""
    folder = tmp_path / "data"
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for kind in (split, f"{split}annot"):
            (folder / kind).mkdir(parents=True)
        for number in range(count):
            labels = scene(rng, 40, 56)
            pixels = COLORS[np.minimum(labels, 2)]
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
            Image.fromarray(np.where(labels == 255, 3, labels).astype(np.uint8)).save(
                folder / f"{split}annot" / f"{number}.png"
            )
    (folder / "classes.txt").write_text("red\ngreen\nblue\nunlabelled\n")
    return folder
