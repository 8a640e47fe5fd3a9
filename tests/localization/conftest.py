"""Pictures with boxes in memory, and small networks that localize."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import verydeep as vd
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.localization.detections import Detections

CLASSES = tuple("abcdefgh")


class BoxedPictures(Dataset):
    """Pictures held in memory, each with its boxes."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], samples: Sequence[Sample], split: str = "test") -> None:
        self.pictures = {sample.id: picture for sample, picture in zip(samples, pictures, strict=True)}
        super().__init__("boxed", split, CLASSES, list(samples), storage=None)  # type: ignore[arg-type]

    def image(self, index: int) -> NDArray[np.uint8]:
        return self.pictures[self.samples[index].id].copy()

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.pictures[self.samples[index].id].shape[:2]
        return height, width

    def where(self, index: int) -> str:
        return f"boxed/{self.samples[index].id}"

    def subset(self, indices: Any) -> "BoxedPictures":
        chosen = [self.samples[i] for i in indices]
        return BoxedPictures([self.pictures[sample.id] for sample in chosen], chosen, self.split)


@pytest.fixture
def boxed(rng: np.random.Generator) -> BoxedPictures:
    """Nine pictures of several shapes with one to three boxes each."""
    pictures, samples = [], []
    for i in range(9):
        height, width = (int(side) for side in rng.integers(64, 110, 2))
        pictures.append(np.kron(rng.integers(0, 256, (height, width // 4 + 1, 3)), np.ones((1, 4, 1)))[:, :width])
        boxes = tuple(random_box(rng, height, width) for _ in range(rng.integers(1, 4)))
        samples.append(Sample(f"{i}.png", int(rng.integers(len(CLASSES))), boxes))
    return BoxedPictures([picture.astype(np.uint8) for picture in pictures], samples)


def random_box(rng: np.random.Generator, height: int, width: int) -> Box:
    (xmin, xmax), (ymin, ymax) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (width, height))
    return Box(float(xmin), float(ymin), float(xmax), float(ymax))


@pytest.fixture
def make_pair(rng: np.random.Generator) -> Callable[..., tuple[vd.VGG, vd.VGG]]:
    """A classifier and a localizer of a few channels, with boxes of some extent; with or without the same trunk."""

    def make(regression: str = "pcr", same_trunk: bool = True, image_size: int = 64) -> tuple[vd.VGG, vd.VGG]:
        how = {"width": 1 / 16, "image_size": image_size, "fc_width": 24}
        one, two = (int(seed) for seed in rng.integers(2**31, size=2))
        classifier = vd.create("A", CLASSES, **how, seed=one).eval()
        localizer = vd.create("A", CLASSES, **how, seed=one if same_trunk else two, regression=regression).eval()
        noise = torch.from_numpy(rng.integers(0, 256, (16, image_size, image_size, 3), dtype=np.uint8))
        with torch.inference_mode():
            for net, spread in ((classifier, 2.0), (localizer, 0.2)):
                net.fc8.weight *= spread / float(net(net.preprocessing(noise)).std())
            localizer.fc8.bias += torch.tensor([0.5, 0.5, 0.6, 0.6]).repeat(len(localizer.fc8.bias) // 4)
        return classifier, localizer

    return make


@pytest.fixture
def make_detections(rng: np.random.Generator) -> Callable[..., Detections]:
    """Guesses of N images of 100 x 80 pixels, n windows each, five classes of eight and the own one."""

    def make(count: int = 12, windows: int = 6, seed: int | None = None, **metadata: Any) -> Detections:
        chance = rng if seed is None else np.random.default_rng(seed)
        labels = chance.integers(len(CLASSES), size=count)
        best = np.stack([chance.permutation(len(CLASSES))[:5] for _ in range(count)])
        classes = np.concatenate([best, labels[:, None]], axis=1)
        low = chance.uniform(0, 40, (count, windows, 6, 2))
        boxes = np.concatenate([low, low + chance.uniform(5, 60, low.shape)], axis=-1)
        truth_low = chance.integers(0, 40, (count, 2, 2))
        truths = np.concatenate([truth_low, truth_low + chance.integers(10, 40, truth_low.shape)], axis=-1)
        return Detections(
            ids=tuple(f"{i:02d}.png" for i in range(count)),
            labels=labels,
            sizes=np.tile([100, 80], (count, 1)),
            truths=[truth[: 1 + i % 2].astype(np.float64) for i, truth in enumerate(truths)],
            classes=classes,
            posteriors=np.sort(chance.random(classes.shape).astype(np.float32))[:, ::-1],
            windows=[rows.astype(np.float32) for rows in boxes],
            scores=list(chance.random((count, windows, 6)).astype(np.float32)),
            boxes=boxes[:, 0],
            ratings=np.ones((count, 6)),
            names=CLASSES,
            metadata={"data": "boxed", "split": "test", "protocol": "dense@96", **metadata},
        )

    return make
