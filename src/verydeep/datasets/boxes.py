"""Images with boxes: the part of a data set that localization can learn from and be tested on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from verydeep.basics.errors import BadBoxError, UserError
from verydeep.basics.progress import track
from verydeep.basics.threads import in_threads
from verydeep.datasets.dataset import Box, Dataset, Sample

OVERHANG = 1.0
"""Pixels by which a box may reach over its image's edge: sources do not agree on whether pixels count from 0 or 1."""

Size = tuple[int, int]


def sizes(dataset: Dataset) -> list[Size]:
    """Return (height, width) of every image in pixels, read from the headers, in threads."""
    return list(track(in_threads(dataset.size, range(len(dataset))), len(dataset), "sizes"))


def with_boxes(dataset: Dataset, skip_bad: bool) -> tuple[Dataset, list[Size]]:
    """Return the images that have boxes, these cut at the image's edges, and the images' sizes.

    Parameters
    ----------
    dataset : Dataset
        Opened with its boxes.
    skip_bad : bool
        Whether an image with a bad box is left out; else it is an error.

    Raises
    ------
    UserError
        A bad box (the first one, and how many more there are), or no image with a box.
    """
    every = sizes(dataset)
    bad = [*dataset.bad_boxes, *outside(dataset, every)]
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more; verydeep data show --boxes lists them)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; correct it, or leave such images out with --on-bad-image skip")
    damaged = {error.image for error in bad}
    kept = [i for i, sample in enumerate(dataset.samples) if sample.boxes and sample.id not in damaged]
    if not kept:
        raise UserError(
            f"{dataset.name}, {dataset.split}: none of {len(dataset)} images has a box, so there is nothing to localize"
        )
    part = dataset if len(kept) == len(dataset) else dataset.subset(kept)
    cut = [_cut(sample, every[i]) for i, sample in zip(kept, part.samples, strict=True)]
    if cut != list(part.samples):
        part = part.subset(range(len(part)))
        part.samples = cut
    if len(kept) < len(dataset):
        part.provenance += f"; {len(dataset) - len(kept)} images without good boxes left out"
    return part, [every[i] for i in kept]


def outside(dataset: Dataset, every: Sequence[Size | None]) -> Iterator[BadBoxError]:
    """Yield the boxes that do not lie in their image.

    Parameters
    ----------
    dataset : Dataset
        The images.
    every : sequence of (int, int) or None
        Height and width of each; None where it is unknown.
    """
    for index, (sample, size) in enumerate(zip(dataset.samples, every, strict=True)):
        for box in sample.boxes if size else ():
            height, width = size or (0, 0)
            over = max(-box.xmin, -box.ymin, box.xmax - width, box.ymax - height)
            inside = min(box.xmax, width) > max(box.xmin, 0) and min(box.ymax, height) > max(box.ymin, 0)
            if over > OVERHANG or not inside:
                edges = " ".join(f"{edge:g}" for edge in (box.xmin, box.ymin, box.xmax, box.ymax))
                reason = f"its box with edges {edges} reaches out of the image of {width} x {height} pixels"
                yield BadBoxError(dataset.where(index), reason, sample.id)


def _cut(sample: Sample, size: Size) -> Sample:
    height, width = size
    boxes = tuple(Box(max(b.xmin, 0), max(b.ymin, 0), min(b.xmax, width), min(b.ymax, height)) for b in sample.boxes)
    return sample if boxes == sample.boxes else replace(sample, boxes=boxes)
