"""`scenes`, the embedded data set: handwritten digits on cluttered backgrounds, drawn when they are needed."""

from collections.abc import Iterable
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.rng import generator
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.datasets.scene_drawing import Scene, draw_scene

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Images of each split. 500 test images place an error of 10 % within 2.6 points (95 %); 6,000 training images are
# an epoch of seconds for a small network, and enough that it learns digits before it learns pictures by heart.
COUNTS = {"train": 6000, "val": 500, "test": 500}
# Handwriting is shared out before any picture is drawn: no digit of one split appears in another.
DIGITS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
_SPLIT_KEY = {"train": 0, "val": 1, "test": 2}


class Scenes(Dataset):
    """One split of the embedded data set.

    Every picture is a function of (seed, split, number): one digit of scikit-learn's bundled set (1,797 digits of
    8 x 8 pixels), drawn at widely varying size, place, color and contrast among patches, strokes and fragments of
    other digits, 96 to 160 pixels a side. One label and one box an image; classes take turns.
    """

    def __init__(self, split: str, seed: int = 0) -> None:
        self.seed = seed
        self.name = "scenes"
        self.split = split
        self.classes = CLASSES
        self.numbers = list(range(COUNTS[split]))
        share = DIGITS[split][1] - DIGITS[split][0]
        self.provenance = (
            f"{split}: {COUNTS[split]} pictures drawn with seed {seed} from their own {share:.0%} of the digits"
        )
        self.bad = ()
        self.bad_boxes = ()

    @cached_property
    def samples(self) -> list[Sample]:  # type: ignore[override]
        """The images, drawn once to know their boxes."""
        return [
            Sample(f"{self.split}/{number:04d}", number % len(CLASSES), (self._scene(number)[1],))
            for number in self.numbers
        ]

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, index: int) -> str:
        """Return the name of image `index`, as messages give it."""
        return f"scenes/{self.split}/{self.numbers[index]:04d}"

    def read(self, index: int) -> bytes:
        """Return image `index` as a PNG file's content."""
        import cv2

        encoded: bytes = cv2.imencode(".png", self._scene(self.numbers[index])[0][..., ::-1])[1].tobytes()
        return encoded

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 (H, W, 3), the caller's own."""
        image: NDArray[np.uint8] = self._scene(self.numbers[index])[0].copy()
        return image

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) of image `index` in pixels."""
        height, width = self._scene(self.numbers[index])[0].shape[:2]
        return height, width

    def subset(self, indices: Iterable[int]) -> "Scenes":
        """Return a data set of the images `indices`, in that order."""
        part = Scenes(self.split, self.seed)
        part.numbers = [self.numbers[index] for index in indices]
        return part

    def _scene(self, number: int) -> tuple[NDArray[np.uint8], Box]:
        return _drawn(self.split, self.seed, number)


def draw(split: str, seed: int, number: int) -> Scene:
    """Return picture `number` of a split, with its background alone beside it."""
    digits = _digits(split)
    rng = generator(seed, _SPLIT_KEY[split], number)
    own = digits[number % len(CLASSES)]
    others = digits[int(rng.integers(len(digits)))]
    return draw_scene(own[rng.integers(len(own))], others, rng)


@lru_cache(maxsize=sum(COUNTS.values()))  # about 350 MB, once all of one seed are drawn
def _drawn(split: str, seed: int, number: int) -> tuple[NDArray[np.uint8], Box]:
    scene = draw(split, seed, number)
    return scene.image, scene.box


@lru_cache
def _digits(split: str) -> tuple[NDArray[np.float32], ...]:
    """Return the ink, 0 to 1, of the split's digits of each class, N x 8 x 8."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    first, last = DIGITS[split]
    by_class = []
    for label in range(len(CLASSES)):
        ink = (bunch.images[bunch.target == label] / 16).astype(np.float32)
        by_class.append(ink[round(first * len(ink)) : round(last * len(ink))])
    return tuple(by_class)
