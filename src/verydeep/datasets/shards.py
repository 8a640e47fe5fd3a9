"""A data set as tar shards in WebDataset's layout: few large files, read from front to back."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import simplejpeg

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside, write_text
from verydeep.basics.lock import sole_writer
from verydeep.basics.progress import track
from verydeep.basics.rng import generator
from verydeep.datasets.dataset import Dataset
from verydeep.images.formats import suffix
from verydeep.images.rescale import rescale

QUALITY = 95
"""Of JPEG files that are made for rescaled pictures."""


@dataclass(frozen=True)
class Sharded:
    """What was written of a split: images, and files."""

    split: str
    images: int
    files: tuple[Path, ...]


def write_shards(datasets: Sequence[Dataset], out: Path, count: int = 1000, side: int | None = None) -> list[Sharded]:
    """Write splits of a data set as `train-000000.tar` and so on, `count` images a shard, in a random order.

    A sample is the picture's file as it is, `00000000.jpg`, and beside it its class's number, `00000000.cls`, or,
    where images may have several, `00000000.json` with their names; `classes.txt` has the names in order. With `side`
    pictures whose smallest side is longer are rescaled to it, upright, as JPEG files. A split with just the images of
    one before it is left out, as one that tests on the validation images.

    UserError where the folder holds anything, BadImageError for a picture that cannot be read; what was finished stays.
    """
    with sole_writer(out):
        if any(path.name != ".lock" for path in out.iterdir()):
            raise UserError(f"{out}: is not empty; choose another place for the shards")
        written, seen = list[Sharded](), list[set[str]]()
        for dataset in datasets:
            names = {sample.id for sample in dataset.samples}
            if names not in seen:
                seen.append(names)
                written.append(Sharded(dataset.split, len(dataset), tuple(_write(dataset, out, count, side))))
        write_text(out / "classes.txt", "".join(f"{name}\n" for name in datasets[0].classes))
    return written


def _write(dataset: Dataset, out: Path, count: int, side: int | None) -> Iterator[Path]:
    order = generator(0).permutation(len(dataset)).tolist()
    for first in track(range(0, len(order), count), -(-len(order) // count), dataset.split, "shards"):
        path = out / f"{dataset.split}-{first // count:06d}.tar"
        with write_aside(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, index in enumerate(order[first : first + count], start=first):
                for ending, content in _sample(dataset, index, side):
                    about = tarfile.TarInfo(f"{number:08d}.{ending}")
                    about.size = len(content)
                    tar.addfile(about, io.BytesIO(content))
        yield path


def _sample(dataset: Dataset, index: int, side: int | None) -> Iterator[tuple[str, bytes]]:
    """Yield the endings and contents of a sample's files."""
    sample = dataset.samples[index]
    pixels = dataset.image(index) if side else None
    if side and pixels is not None and min(pixels.shape[:2]) > side:
        yield "jpg", simplejpeg.encode_jpeg(rescale(pixels, side), QUALITY, colorsubsampling="444")
    else:
        yield suffix(sample.id) or "jpg", dataset.read(index)
    if sample.labels is not None:
        yield "json", json.dumps({"label": [dataset.classes[label] for label in sample.labels]}).encode()
    else:
        yield "cls", str(sample.label).encode()
