"""Small networks and data sets of arrays, and the paper's network once more in plain float64 numpy."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import verydeep as vd
from verydeep.basics.errors import BadImageError
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.evaluation.posteriors import Posteriors

Array = NDArray[np.float64]


class ArrayDataset(Dataset):
    """Pictures held in memory; None stands for a damaged file."""

    def __init__(
        self,
        pictures: Sequence[NDArray[np.uint8] | None],
        labels: Sequence[int],
        classes: Sequence[str],
        ids: Sequence[str] | None = None,
    ) -> None:
        names = ids or [f"{i:03d}.png" for i in range(len(pictures))]
        samples = [Sample(name, label) for name, label in zip(names, labels, strict=True)]
        self.pictures = dict(zip(names, pictures, strict=True))
        super().__init__("arrays", "test", tuple(classes), samples, storage=None)  # type: ignore[arg-type]

    def image(self, index: int) -> NDArray[np.uint8]:
        picture = self.pictures[self.samples[index].id]
        if picture is None:
            raise BadImageError(self.samples[index].id, "damaged")
        return picture.copy()

    def size(self, index: int) -> tuple[int, int]:
        picture = self.pictures[self.samples[index].id]
        return (40, 40) if picture is None else (picture.shape[0], picture.shape[1])

    def subset(self, indices: Sequence[int]) -> "ArrayDataset":  # type: ignore[override]
        chosen = [self.samples[i] for i in indices]
        pictures = [self.pictures[sample.id] for sample in chosen]
        return ArrayDataset(
            pictures, [sample.label for sample in chosen], self.classes, [sample.id for sample in chosen]
        )


@pytest.fixture
def array_dataset() -> type[ArrayDataset]:
    return ArrayDataset


CLASSES = tuple("abcdefgh")


@pytest.fixture
def make_net(rng: np.random.Generator) -> Callable[..., vd.VGG]:
    """Networks of a few channels whose posteriors are neither flat nor certain."""

    def make(configuration: str = "A", image_size: int = 64, classes: Sequence[str] = CLASSES) -> vd.VGG:
        seed = int(rng.integers(2**31))
        net = vd.create(configuration, classes, width=1 / 16, image_size=image_size, fc_width=24, seed=seed)
        noise = torch.from_numpy(rng.integers(0, 256, (16, image_size, image_size, 3), dtype=np.uint8))
        with torch.inference_mode():
            net.eval()
            net.fc8.weight *= 2 / float(net(net.preprocessing(noise)).std())
        return net.eval()

    return make


@pytest.fixture
def pictures(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Seven pictures of several shapes, with structure at all scales (so that views differ)."""
    sizes = [(70, 90), (90, 70), (70, 90), (64, 64), (100, 64), (64, 100), (140, 180)]
    return [np.kron(rng.integers(0, 256, (h // 2, w // 2, 3)), np.ones((2, 2, 1))).astype(np.uint8) for h, w in sizes]


@pytest.fixture
def dataset(pictures: list[NDArray[np.uint8]], rng: np.random.Generator) -> ArrayDataset:
    return ArrayDataset(pictures, rng.integers(0, len(CLASSES), len(pictures)).tolist(), CLASSES)


@pytest.fixture
def make_posteriors(rng: np.random.Generator) -> Callable[..., Posteriors]:
    def make(n: int = 20, k: int = 8, **metadata: object) -> Posteriors:
        return Posteriors(
            tuple(f"image-{i}" for i in range(n)),
            rng.integers(0, k, n),
            rng.dirichlet(np.full(k, 0.5), n).astype(np.float32),
            tuple(f"class {i}" for i in range(k)),
            dict(metadata),
        )

    return make


def convolve(x: Array, weight: Array, bias: Array, padding: int) -> Array:
    """C x H x W with C' x C x k x k, straight from the definition."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight, optimize=True) + bias[:, None, None]


def max_pool(x: Array, round_up: bool) -> Array:
    if round_up:
        x = np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2)), constant_values=-np.inf)
    height, width = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).max(axis=(2, 4))


def score_map(net: vd.VGG, picture: NDArray[np.uint8], round_up: bool = True) -> Array:
    """The network's scores K x h x w in float64, layer by layer, for configurations without LRN and batch norm."""
    mean = np.array(net.preprocessing.mean)
    x = (picture - mean).transpose(2, 0, 1)
    for name, layer in net.named_children():
        if name.startswith(("conv", "fc")):
            weight = layer.weight.detach().double().numpy()
            x = convolve(x, weight, layer.bias.detach().double().numpy(), weight.shape[2] // 2 if name[0] == "c" else 0)
        elif name.startswith("relu"):
            x = np.maximum(x, 0)
        elif name.startswith("pool"):
            x = max_pool(x, round_up)
    return x


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


@pytest.fixture
def reference() -> Callable[..., Array]:
    return score_map


@pytest.fixture
def reference_softmax() -> Callable[[Array], Array]:
    return softmax
