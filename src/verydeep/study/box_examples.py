"""Pictures in which a localizer finds the object, and pictures in which it does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verydeep.basics.chance import generator
from verydeep.datasets.dataset import Dataset
from verydeep.localization.drawing import draw_boxes
from verydeep.localization.guesses import Guesses
from verydeep.localization.metrics import HIT, figures, overlaps
from verydeep.study.examples import HEIGHT, data_uri
from verydeep.study.found_boxes import TestedBoxes, find_boxes


@dataclass(frozen=True)
class BoxExample:
    """One picture.

    Attributes
    ----------
    picture : str
        Data URI: the picture with its true boxes in white and the box for its class in color.
    label : str
        Its class.
    iou : float
        Of that box with the true box that it fits best.
    """

    picture: str
    label: str
    iou: float


def best_boxes(study: Path) -> TestedBoxes | None:
    """Return the test of a study with the least error given the class; None where it has no boxes."""
    tests = [tested for found in find_boxes(study).values() for tested in found]
    return min(tests, key=lambda tested: figures(tested.guesses).given_class.rate, default=None)


def draw_box_examples(guesses: Guesses, dataset: Dataset, hit: bool, count: int) -> list[BoxExample]:
    """Draw examples by chance, the same ones every time.

    Parameters
    ----------
    guesses : Guesses
        Of the data set's images.
    dataset : Dataset
        The images.
    hit : bool
        Whether to draw from the images whose box, given the class, has an IoU of at least 0.5, or from the others.
    count : int
        How many.
    """
    guesses = guesses.tested
    place = {sample.id: index for index, sample in enumerate(dataset.samples)}
    rows, found = np.flatnonzero(guesses.counted), overlaps(guesses)[:, -1]
    there = np.array([guesses.ids[row] in place for row in rows.tolist()], np.bool_)
    chosen = generator(0).permutation(np.flatnonzero(there & ((found >= HIT) == hit)))[:count]
    return [
        _example(guesses, int(rows[at]), float(found[at]), dataset, place[guesses.ids[int(rows[at])]])
        for at in chosen.tolist()
    ]


def _example(guesses: Guesses, row: int, iou: float, dataset: Dataset, index: int) -> BoxExample:
    truths: Sequence[Sequence[float]] = guesses.truths[row].tolist()
    drawn = draw_boxes(dataset.image(index), [guesses.boxes[row, -1].tolist()], [""], truths, HEIGHT)
    drawn.thumbnail((2 * HEIGHT, HEIGHT))
    return BoxExample(data_uri(np.asarray(drawn)), guesses.names[int(guesses.labels[row])], iou)
