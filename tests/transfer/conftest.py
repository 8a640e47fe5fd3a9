"""Small networks and photograph-like pictures for the tests of transfer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import verydeep as vd
from verydeep.nets.run_info import RunInfo


@pytest.fixture
def make_net(rng: np.random.Generator) -> Callable[..., vd.VGG]:
    """Networks of a few channels; batch norm, where there is any, with statistics that are not the identity."""

    def make(configuration: str = "A", **options: object) -> vd.VGG:
        seed = int(rng.integers(2**31))
        values = {"width": 1 / 16, "image_size": 64, "fc_width": 24, "initialization": "he", **options}
        net = vd.create(configuration, **{"classes": list("abcd"), "seed": seed, **values})
        torch.manual_seed(seed)
        for layer in net.children():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
            if isinstance(layer, torch.nn.Conv2d):
                layer.bias.data.normal_(0, 0.1)
        return net.eval()

    return make


@pytest.fixture
def pictures(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    sizes = [(70, 90), (90, 70), (70, 90), (64, 64), (100, 64)]
    return [np.kron(rng.integers(0, 256, (h // 2, w // 2, 3)), np.ones((2, 2, 1))).astype(np.uint8) for h, w in sizes]


def save_colors(folder: Path, rng: np.random.Generator, counts: dict[str, int]) -> Path:
    """Pictures of noise around one color a class, which any descriptor tells apart."""
    for c, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            picture = rng.integers(0, 130, (rng.integers(66, 80), rng.integers(66, 80), 3), dtype=np.uint8)
            picture[..., c % 3] += 120
            Image.fromarray(picture).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture
def colors(tmp_path: Path, rng: np.random.Generator) -> Path:
    return save_colors(tmp_path / "colors", rng, {"blue": 20, "green": 16, "red": 12})


@pytest.fixture
def weights(tmp_path: Path, make_net: Callable[..., vd.VGG]) -> Path:
    return _saved(make_net(), tmp_path / "net.safetensors")


@pytest.fixture
def wide(tmp_path: Path, make_net: Callable[..., vd.VGG]) -> Path:
    """A network wide enough to tell three colors apart whatever the seed."""
    return _saved(make_net(width=1 / 8, fc_width=128), tmp_path / "wide.safetensors")


def _saved(net: vd.VGG, path: Path) -> Path:
    net.provenance = RunInfo(train_scales=(64, 96))
    vd.save(net, path)
    return path
