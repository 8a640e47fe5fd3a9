"""What is in a data set: images a class, image sizes, damaged files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from verydeep.basics.errors import BadBoxError, BadImageError
from verydeep.basics.progress import track
from verydeep.datasets.boxes import outside
from verydeep.datasets.checking import decode_all
from verydeep.datasets.dataset import Dataset

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Survey:
    """One split, looked through: images of each class, damaged ones included, and what is wrong.

    An image of several classes counts for each of them, and `labels_per_image` says how many images have 0, 1, 2, ...
    The sizes are height and width in pixels of the first, middle and last image by number of pixels; None where no
    image can be decoded. Bad boxes are annotations without a usable box, and boxes that reach out of their image.
    """

    dataset: Dataset
    per_class: tuple[int, ...]
    smallest: Size | None
    median: Size | None
    largest: Size | None
    bad: tuple[BadImageError, ...]
    bad_boxes: tuple[BadBoxError, ...] = ()
    labels_per_image: tuple[int, ...] = ()  # where images may have several classes


def survey(datasets: Sequence[Dataset]) -> list[Survey]:
    """Decode all images of some splits of one source, each once even where two splits are the same images."""
    done: dict[str, Size | BadImageError] = {}
    for dataset in datasets:
        new = dataset.subset(i for i, sample in enumerate(dataset.samples) if sample.id not in done)
        results = track(decode_all(new), len(new), f"decoding {dataset.split} images")
        done.update(zip((sample.id for sample in new.samples), results, strict=True))
    return [_survey(dataset, [done[sample.id] for sample in dataset.samples]) for dataset in datasets]


def _survey(dataset: Dataset, results: list[Size | BadImageError]) -> Survey:
    counts = Counter(label for sample in dataset.samples for label in sample.labels or (sample.label,))
    labels = Counter(len(sample.labels or ()) for sample in dataset.samples) if dataset.multi_label else Counter[int]()
    sizes = sorted((r for r in results if not isinstance(r, BadImageError)), key=lambda size: (size[0] * size[1], size))
    return Survey(
        dataset,
        tuple(counts[label] for label in range(len(dataset.classes))),
        sizes[0] if sizes else None,
        sizes[len(sizes) // 2] if sizes else None,
        sizes[-1] if sizes else None,
        tuple(result for result in results if isinstance(result, BadImageError)),
        (*dataset.bad_boxes, *outside(dataset, [None if isinstance(r, BadImageError) else r for r in results])),
        tuple(labels[number] for number in range(max(labels, default=-1) + 1)),
    )
