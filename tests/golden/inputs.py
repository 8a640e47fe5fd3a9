"""Pictures, data sets and weights that are the same bits on every machine and with every version of numpy.

They come from `RandomState`, whose streams numpy never changes, by uniform draws alone: normal ones go through the C
library's logarithm, whose last bit is not the same everywhere.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("anchor", "bell", "cup", "dice", "ear", "fern")
"""Six, so that there is a top-5 error."""

Picture = NDArray[np.uint8]

_XML = (
    "<annotation><object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax>"
    "<ymax>{ymax}</ymax></bndbox></object></annotation>"
)


def stream(*key: object) -> np.random.RandomState:
    """Return random numbers that follow from the key."""
    return np.random.RandomState(zlib.crc32("/".join(map(str, key)).encode()))


def picture(key: str, height: int, width: int, cell: int = 3) -> Picture:
    """Return squares of random colors: structure at all scales, so that views differ; it compresses well."""
    small = stream("picture", key).randint(0, 256, (-(-height // cell), -(-width // cell), 3))
    return np.ascontiguousarray(np.kron(small, np.ones((cell, cell, 1)))[:height, :width].astype(np.uint8))


def save_picture(path: Path, pixels: Picture) -> Path:
    """Write a PNG, which keeps the pixels whatever library writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_pictures(folder: Path, sizes: Sequence[tuple[int, int]], name: str = "picture") -> list[str]:
    """Write pictures of some heights and widths; return their names, relative to where the folder lies."""
    return [str(save_picture(folder / f"{i}.png", picture(f"{name}{i}", *size))) for i, size in enumerate(sizes)]


def save_data(
    folder: Path,
    counts: Mapping[str, int],
    classes: Sequence[str] = CLASSES,
    sides: tuple[int, int] = (33, 56),
) -> Path:
    """Write a data set in folders of classes: noise with a bright rectangle of the class's color, and its box.

    Parameters
    ----------
    folder : Path
        Gets <split>/<class>/<number>.png with .xml beside it; a split "" is no folder.
    counts : mapping of str to int
        Images of each class by split.
    sides : (int, int)
        Least and greatest height and width in pixels.
    """
    for split, count in counts.items():
        for c, name in enumerate(classes):
            for i in range(count):
                draw = stream("data", split, name, i)
                height, width = draw.randint(sides[0], sides[1] + 1, 2).tolist()
                pixels = picture(f"{split}{name}{i}", height, width) // 2
                (top, bottom), (left, right) = (
                    sorted(draw.choice(np.arange(side // 6) * 6, 2, replace=False).tolist()) for side in (height, width)
                )
                pixels[top : bottom + 6, left : right + 6] //= 2
                pixels[top : bottom + 6, left : right + 6, c % 3] += np.uint8(80 + 40 * (c // 3))
                path = save_picture(folder / split / name / f"{i}.png", pixels)
                edges = {"xmin": left + 1, "ymin": top + 1, "xmax": right + 6, "ymax": bottom + 6}
                path.with_suffix(".xml").write_text(_XML.format(name=name, **edges), encoding="utf-8")
    return folder


def weights(
    shapes: Mapping[str, Sequence[int]], seed: int, gain: float = 1.0, answers: Sequence[float] = ()
) -> dict[str, NDArray[Any]]:
    """Return weights under which signals keep their size, biases and statistics of batch norm that do something.

    Parameters
    ----------
    shapes : mapping of str to sequence of int
        Of every tensor of a network by its name; batch norm's names begin with `bn`.
    seed : int
        Another network.
    gain : float
        Factor on the last layer, so that posteriors are neither flat nor certain.
    answers : sequence of float
        Added to the last layer's bias, again and again: where boxes lie about.
    """
    drawn: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        draw, layer = stream("weights", seed, name).random_sample, name.partition(".")[0]
        if name.endswith("num_batches_tracked"):
            drawn[name] = np.array(7, np.int64)
            continue
        if len(shape) > 1:
            bound = math.sqrt(6 / math.prod(shape[1:]))
            values = bound * (2 * draw(tuple(shape)) - 1) * (gain if layer == "fc8" else 1)
        elif layer.startswith("bn") and name.endswith((".weight", ".running_var")):
            values = 0.5 + draw(tuple(shape))
        else:
            values = 0.1 * (2 * draw(tuple(shape)) - 1)
        if name == "fc8.bias" and answers:
            values = values / 2 + np.resize(answers, values.shape)
        drawn[name] = values.astype(np.float32)
    return drawn


def boxes(count: int, side: int = 100) -> NDArray[np.float64]:
    """Return boxes with whole edges, several of them alike."""
    draw = stream("boxes", count, side)
    low = draw.randint(0, side // 2, (count, 2))
    return np.concatenate([low, low + draw.randint(8, side // 2, (count, 2))], axis=1).astype(np.float64)
