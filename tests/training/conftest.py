"""A data set that takes no time: 3 classes of noise around 3 colors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verydeep.training.recipe import Recipe, load_recipe

TINY = (
    "network.width=0.03125",
    "network.image_size=32",
    "network.fc_width=8",
    "network.dropout=0.5",
    "images.scales=[32, 40]",
    "images.divide_by_std=true",
    "initialization.scheme=he",
    "optimizer.batch_size=8",
    "optimizer.learning_rate=0.02",
    "schedule.epochs=3",
)


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colors")
    rng = np.random.default_rng(5)
    for split, count in (("train", 14), ("val", 4)):
        for c, name in enumerate(("blue", "green", "red")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 130, (rng.integers(33, 60), rng.integers(33, 60), 3), dtype=np.uint8)
                image[..., 2 - c] += 120
                Image.fromarray(image).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture
def tiny() -> Recipe:
    return load_recipe("paper-s256", TINY)


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe("paper-s256", [*TINY, *overrides])
