"""Descriptors of picture files against the bare forward passes that they are made of (paper: appendix B)."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.datasets.content import content_hashes
from verydeep.datasets.dataset import Dataset
from verydeep.inference.runtime import Runtime
from verydeep.nets.families import create
from verydeep.transfer.data import paths
from verydeep.transfer.elementary import LayerDescriptor, Source
from verydeep.transfer.store import Store

TARGET = 0.9
"""Share of the bare passes' throughput that extraction should reach."""


def run(
    images: int = 16, scale: int = 256, width: float = 1.0, repeats: int = 3, device: str = "auto"
) -> dict[str, Any]:
    """Time both on the same pictures, in turn.

    Extraction begins with JPEG files and ends with descriptors on the disk: reading, hashing, decoding, rescaling,
    both mirror images through D up to `fc7.relu`, mean, storing. The bare passes begin with the prepared pictures in
    memory, in the same batches, and end with the activations.

    Parameters
    ----------
    images : int
        Pictures of 640 x 427 pixels; different ones, so that none is found in the store.
    scale : int
        Q in pixels, at least 224.
    width : float
        Factor on D's channels; 1 is the paper's.
    repeats : int
        Timed runs of each; medians are reported.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    dict
        ``rows`` with images a second of both, ``ratio`` of the two and ``ratio_target``, ``machine``.

    Raises
    ------
    UserError
        Numbers that make no benchmark.
    """
    if images < 1 or repeats < 1 or scale < 224:
        raise UserError(f"images {images}, repeats {repeats}, scale {scale}: expected at least 1, 1 and 224")
    source = Source(create("D", classes=1, width=width, seed=0).eval(), runtime=Runtime(device))
    part = LayerDescriptor(source, "fc7.relu", scale, True)
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = _photographs(Path(folder), images)
        pictures = [rescaled for _, rescaled in part.batches(files)]
        source.forward.activations(pictures[0], part.layer)  # warms up
        for number in range(repeats):
            start = time.perf_counter()
            store = Store(Path(folder) / str(number))
            store.fill(part, files, content_hashes(files))
            between = time.perf_counter()
            _bare(part, pictures)
            times.append((between - start, time.perf_counter() - between))
    extraction, bare = (median(column) for column in zip(*times, strict=True))
    return {
        "images": images,
        "scale": scale,
        "width": width,
        "device": source.forward.device.type,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "rows": [
            {"way": "extraction", "seconds": extraction, "images_per_second": images / extraction},
            {"way": "bare passes", "seconds": bare, "images_per_second": images / bare},
        ],
        "ratio": median(second / first for first, second in times),  # round by round: a disturbance meets both
        "ratio_target": TARGET,
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return the rates that `run` measured, for people."""
    lines = [
        f"fc7 of D, width {result['width']}, of {result['images']} JPEG files at {result['scale']} with their mirror "
        f"images, {result['device']}, {result['threads']} threads; median of {result['repeats']}",
        *(f"{row['way']:12}{row['images_per_second']:10.2f} images/s" for row in result["rows"]),
        f"extraction reaches {result['ratio']:.0%} of the throughput of the bare passes "
        f"(target {result['ratio_target']:.0%})",
    ]
    return "\n".join(lines)


def _bare(part: LayerDescriptor, batches: list[list[Any]]) -> None:
    """Run the network on prepared pictures and their mirror images, and wait for the end."""
    forward = part.source.forward
    for pictures in batches:
        for views in (pictures, [picture[:, ::-1] for picture in pictures]):
            values = forward.activations(views, part.layer)
        values.flatten()[0].item()  # nothing is left running on a device


def _photographs(folder: Path, count: int) -> Dataset:
    """Write the two bundled photographs as JPEG files, each a little brighter than the one before."""
    bundled = load_sample_images().images
    files = []
    for i in range(count):
        files.append(folder / f"{i}.jpg")
        picture = np.clip(bundled[i % 2].astype(int) + i // 2, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(files[-1], quality=90)
    return paths(files)
