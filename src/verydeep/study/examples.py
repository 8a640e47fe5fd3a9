"""Pictures that a network names right and wrong, with its score maps over them."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from verydeep.basics.chance import generator
from verydeep.basics.device import pick_device
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.evaluate import DEFAULT_MEMORY
from verydeep.evaluation.forward import Forward
from verydeep.evaluation.heatmap import class_map, spread
from verydeep.evaluation.options import Options
from verydeep.evaluation.posteriors import Posteriors
from verydeep.nets.weights import load

HEIGHT = 180  # px of a picture in the report


@dataclass(frozen=True)
class Example:
    """One picture.

    Attributes
    ----------
    picture : str
        Data URI.
    score_map : str or None
        The same of the score map of the guessed class over it; None where it has only one cell.
    label, guess : str
        Its class, and the most probable one.
    posterior : float
        Of the guess, in [0, 1].
    """

    picture: str
    score_map: str | None
    label: str
    guess: str
    posterior: float


def draw_examples(
    weights: Path, posteriors: Posteriors, dataset: Dataset, scale: int, right: bool, count: int, device: str = "auto"
) -> list[Example]:
    """Draw examples by chance, the same ones every time.

    Parameters
    ----------
    weights : Path
        The network.
    posteriors : Posteriors
        Its answers on the data set.
    dataset : Dataset
        The images.
    scale : int
        Q in pixels at which score maps are computed.
    right : bool
        Whether to draw from the images it names right, or from the others.
    count : int
        How many, of different classes while there are enough.
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    """
    forward = Forward(load(weights, "classify"), Options(), DEFAULT_MEMORY, pick_device(device))
    place = {sample.id: index for index, sample in enumerate(dataset.samples)}
    chosen = [index for index in _drawn(posteriors, right) if posteriors.ids[index] in place][:count]
    return [
        _example(forward, posteriors, index, dataset.image(place[posteriors.ids[index]]), scale) for index in chosen
    ]


def _drawn(posteriors: Posteriors, right: bool) -> Iterator[int]:
    """Yield images that are right (or wrong) in a random order, first one of each class."""
    guesses = posteriors.probabilities.argmax(axis=1)
    labeled = posteriors.labels >= 0
    order = generator(0).permutation(np.flatnonzero(labeled & ((guesses == posteriors.labels) == right)))
    seen: set[int] = set()
    later = []
    for index in order.tolist():
        label = int(posteriors.labels[index])
        if label in seen:
            later.append(index)
        else:
            seen.add(label)
            yield index
    yield from later


def _example(forward: Forward, posteriors: Posteriors, index: int, original: NDArray[np.uint8], scale: int) -> Example:
    guess = int(posteriors.probabilities[index].argmax())
    picture, scores = class_map(forward, original, scale, guess)
    size = (round(HEIGHT * original.shape[1] / original.shape[0]), HEIGHT)
    shown = np.asarray(Image.fromarray(original).resize(size, Image.Resampling.LANCZOS))
    heat = None
    if scores.size > 1:  # one cell alone, stretched from its least to its greatest score, shows nothing
        heat = data_uri(_overlaid(shown, spread(scores, picture.shape[0], picture.shape[1], forward.net)))
    return Example(
        data_uri(shown),
        heat,
        posteriors.classes[posteriors.labels[index]],
        posteriors.classes[guess],
        float(posteriors.probabilities[index, guess]),
    )


def _overlaid(picture: NDArray[np.uint8], heat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the picture in light grays, colored by its score map: from pale, the least score, to red."""
    height, width = picture.shape[:2]
    span = max(float(heat.max() - heat.min()), 1e-9)
    levels = Image.fromarray(((heat - heat.min()) / span * 180).astype(np.uint8)).resize((width, height))
    colors = colormaps["YlOrRd"](np.asarray(levels))[..., :3] * 255
    gray = 0.3 + 0.7 * picture.mean(axis=2, keepdims=True) / 255
    return np.asarray(gray * colors, np.uint8)


def data_uri(picture: NDArray[np.uint8]) -> str:
    """Return an RGB picture as a JPEG file inside a link."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
