"""Loading training crops against the usual Pillow pipeline: images per second and core, and how far pixels agree."""

import time
from io import BytesIO
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.basics.rng import generator
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.loader import Augmentation, TrainingLoader
from verydeep.datasets.storage import Storage, open_storage
from verydeep.images.color import measure, moments
from verydeep.images.decode import decode, read_header
from verydeep.images.rescale import rescale, rescaled_size
from verydeep.images.view import View, decode_view, draw_view

TARGET = 2.5
"""Times that loading should be faster, at least."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


def run(
    data: Path | None = None,
    *,
    crop: int = 224,
    scales: tuple[int, int] = (256, 512),
    images: int = 200,
    rounds: int = 7,
) -> dict[str, Any]:
    """Cut the same random crops from the same files both ways, image by image in turn.

    The usual way is Pillow's: open, convert to RGB, rescale the whole image bilinearly, crop. Both begin with a
    file's content in memory. A third figure is that of the whole training loader, one thread: reading, random
    draws, crops, flips, color shifts, batches. Times are the process's CPU time, so they count all threads.

    Parameters
    ----------
    data : Path, optional
        Folder or .tar with images; by default JPEG files of 375 x 500 made of scikit-learn's two photographs.
    crop : int
        Side of the crops in pixels.
    scales : (int, int)
        Smin and Smax of the smallest image side.
    images : int
        The most images to take, evenly spread over `data`.
    rounds : int
        Passes over the images; medians are reported.

    Returns
    -------
    dict
        `rows` (`pipeline`, `images_per_second_core`, `ratio` to Pillow), `ratio_least` and `ratio_greatest` of
        the rounds, `mean_difference` and `worst_difference` (the mean and the greatest over the images of the
        mean absolute difference of a crop's pixels, in grey levels of 255), sizes, and `machine`.

    Raises
    ------
    UserError
        If `data` holds no images, or numbers do not fit together.
    """
    if rounds < 1 or images < 1:
        raise UserError(f"rounds {rounds}, images {images}: expected at least 1 of both")
    dataset = _open(data, images)
    files = [dataset.read(index) for index in range(len(dataset))]
    views = _views(files, dataset, crop, scales)
    loader = _loader(dataset, files, crop, scales)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as in the loader's threads, images are what runs in parallel
    try:
        _round(files, views, crop, loader)  # warms up
        times = [_round(files, views, crop, loader) for _ in range(rounds)]
    finally:
        cv2.setNumThreads(threads)
    usual, fast, whole = (len(files) / median(column) for column in zip(*times, strict=True))
    ratios = [row[0] / row[1] for row in times]
    differences = [_difference(file, view, crop) for file, view in zip(files, views, strict=True)]
    return {
        "rows": [
            {"pipeline": "Pillow, the usual way", "images_per_second_core": usual, "ratio": 1.0},
            {"pipeline": "verydeep", "images_per_second_core": fast, "ratio": median(ratios)},
            {"pipeline": "verydeep, the whole loader", "images_per_second_core": whole, "ratio": whole / usual},
        ],
        "ratio_least": min(ratios),
        "ratio_greatest": max(ratios),
        "ratio_target": TARGET,
        "mean_difference": mean(differences),
        "worst_difference": max(differences),
        "data": data.name if data else "scikit-learn's photographs",
        "images": len(files),
        "crop": crop,
        "scales": list(scales),
        "rounds": rounds,
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return the rates that `run` measured, for people."""
    smin, smax = result["scales"]
    lines = [
        f"{result['images']} images of {result['data']}, crops of {result['crop']}, S in [{smin};{smax}]",
        f"{'':28}{'images/s/core':>14}{'ratio':>8}",
    ]
    for row in result["rows"]:
        lines.append(f"{row['pipeline']:28}{row['images_per_second_core']:14.0f}{row['ratio']:8.2f}")
    lines += [
        f"ratio in {result['rounds']} rounds: {result['ratio_least']:.2f} to {result['ratio_greatest']:.2f}, "
        f"target {result['ratio_target']}",
        f"mean absolute difference of the crops: {result['mean_difference']:.2f} grey levels of 255 "
        f"(worst image {result['worst_difference']:.2f})",
    ]
    return "\n".join(lines)


class _Memory(Storage):
    """Files that are in memory."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__(Path("memory"), {})
        self.contents = contents

    def read(self, name: str) -> bytes:
        return self.contents[name]

    def where(self, name: str) -> str:
        return name


def _open(data: Path | None, limit: int) -> Dataset:
    """Return the upright images of `data`, at most `limit`, as a data set of one class."""
    storage = open_storage(data) if data else _Memory(_photographs())
    names = list(storage.contents) if isinstance(storage, _Memory) else sorted(storage.files)
    names = [name for name in names if name.lower().endswith(SUFFIXES)]
    names = names[:: max(1, len(names) // limit)][:limit]
    # The usual pipeline ignores the orientation, so its crops of a turned image would be other ones.
    names = [name for name in names if read_header(storage.read(name), storage.where(name)).orientation == 1]
    if not names:
        raise UserError(f"{data}: no images; expected files ending in {', '.join(SUFFIXES)}")
    return Dataset("images", "train", ("any",), [Sample(name, 0) for name in names], storage)


def _photographs(count: int = 20) -> dict[str, bytes]:
    """Return JPEG files of ImageNet's usual size, quality and subsampling, by name."""
    contents = {}
    photographs = [rescale(image, 440) for image in load_sample_images().images]
    for number in range(count):
        image, chance = photographs[number % 2], generator(number)
        top, left = chance.integers(440 - 375), chance.integers(image.shape[1] - 500)
        file = BytesIO()
        Image.fromarray(image[top : top + 375, left : left + 500]).save(file, "JPEG", quality=95, subsampling=0)
        contents[f"{number}.jpg"] = file.getvalue()
    return contents


def _views(files: list[bytes], dataset: Dataset, crop: int, scales: tuple[int, int]) -> list[View]:
    headers = [read_header(file, dataset.where(index)) for index, file in enumerate(files)]
    return [
        draw_view(header.height, header.width, crop, scales, generator(0, index), flip=False)
        for index, header in enumerate(headers)
    ]


def _loader(dataset: Dataset, files: list[bytes], crop: int, scales: tuple[int, int]) -> TrainingLoader:
    color = measure(moments(decode(file, "")) for file in files[:10])
    size = min(len(files), 64)
    return TrainingLoader(dataset, Augmentation(crop, scales, color=color), size, seed=0, workers=1)


def _round(files: list[bytes], views: list[View], crop: int, loader: TrainingLoader) -> tuple[float, float, float]:
    """Return the seconds that the images take the usual way, the fast way and in the whole loader."""
    usual = fast = 0.0
    for file, view in zip(files, views, strict=True):
        began = time.process_time()
        usual_crop(file, view, crop)
        middle = time.process_time()
        fast_crop(file, view, crop)
        usual, fast = usual + middle - began, fast + time.process_time() - middle
    began = time.process_time()
    loaded = sum(len(batch.images) for batch in loader.epoch(0))
    return usual, fast, (time.process_time() - began) * len(files) / loaded


def usual_crop(file: bytes, view: View, crop: int) -> NDArray[np.uint8]:
    """Cut a crop as most training code does: rescale the whole image with Pillow, then crop."""
    image = Image.open(BytesIO(file)).convert("RGB")
    rows, columns = rescaled_size(image.height, image.width, view.side)
    whole = image.resize((columns, rows), Image.Resampling.BILINEAR)
    return np.array(whole.crop((view.left, view.top, view.left + crop, view.top + crop)))


def fast_crop(file: bytes, view: View, crop: int) -> NDArray[np.uint8]:
    """Cut the same crop as the training loader does."""
    return decode_view(file, read_header(file, ""), view, crop)


def _difference(file: bytes, view: View, crop: int) -> float:
    return float(np.abs(usual_crop(file, view, crop).astype(int) - fast_crop(file, view, crop)).mean())
