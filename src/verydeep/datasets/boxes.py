"""Images with boxes: the part of a data set that localization can learn from and be tested on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from verydeep.basics.errors import BadBoxError, BadImageError, UserError
from verydeep.basics.progress import track
from verydeep.basics.threads import in_threads
from verydeep.datasets.annotations import RELATIVE, Annotations, Marks, Size
from verydeep.datasets.dataset import Box, Dataset, Sample
from verydeep.images.decode import Header, read_header

OVERHANG = 1.0
"""Pixels by which a box may reach over its image's edge: sources do not agree on whether pixels count from 0 or 1."""


def sizes(dataset: Dataset) -> list[Size]:
    """Return (height, width) of every image in pixels, read from the headers, in threads."""
    return list(track(in_threads(dataset.size, range(len(dataset))), len(dataset), "sizes"))


def with_marks(dataset: Dataset, found: Annotations, as_stored: bool | None) -> Dataset:
    """Return the data set with boxes in pixels of the upright images; those that do not fit are in `bad_boxes`.

    `as_stored` says of images that EXIF turns whether boxes were drawn on the stored pixels, and not on the image as
    it is shown, where sizes do not tell.
    """
    marked = [i for i, sample in enumerate(dataset.samples) if sample.id in found.marks]
    bad, placed = list(found.bad), {}
    headers = track(in_threads(partial(_header, dataset), marked), len(marked), "sizes of images with boxes")
    for index, header in zip(marked, headers, strict=True):
        name = dataset.samples[index].id
        marks = found.marks[name]
        boxes = _place(marks, header, as_stored) if header else marks.boxes  # a damaged image is said elsewhere
        if isinstance(boxes, str):
            bad.append(BadBoxError(marks.where, boxes, name))
        else:
            placed[name] = boxes
    result = dataset.subset(range(len(dataset)))
    result.samples = [replace(sample, boxes=placed.get(sample.id, ())) for sample in dataset.samples]
    result.bad_boxes = (*dataset.bad_boxes, *bad)
    return result


def _header(dataset: Dataset, index: int) -> Header | None:
    try:
        return read_header(dataset.read(index), dataset.where(index))
    except BadImageError:
        return None


def _place(marks: Marks, header: Header, as_stored: bool | None) -> tuple[Box, ...] | str:
    """Return boxes on the upright image, or why they cannot be."""
    upright, drawn_on = (header.height, header.width), marks.drawn_on
    stored = upright[::-1] if header.orientation >= 5 else upright
    if drawn_on == RELATIVE:  # who writes these shows images upright
        on = stored if as_stored else upright
        boxes = tuple(Box(b.xmin * on[1], b.ymin * on[0], b.xmax * on[1], b.ymax * on[0]) for b in marks.boxes)
        return turn(boxes, stored, header.orientation) if as_stored else boxes
    if drawn_on not in (None, upright, stored):
        return f"drawn on {_words(drawn_on)} pixels, the image has {_words(upright)}"
    if header.orientation == 1 or upright == drawn_on != stored:
        return marks.boxes
    if as_stored:
        return turn(marks.boxes, stored, header.orientation)
    if stored == drawn_on != upright:
        return (
            f"drawn before the EXIF rotation, on {_words(stored)} pixels, the upright image has {_words(upright)}; "
            "--boxes-as-stored turns them"
        )
    if as_stored is False:
        return marks.boxes
    return (
        "EXIF turns its image, and the boxes do not say whether they were drawn before or after that: "
        "--boxes-as-stored or --boxes-as-shown"
    )


def _words(size: Size | None) -> str:
    return f"{size[1]} x {size[0]}" if size else "unknown"


def turn(boxes: Sequence[Box], stored: Size, orientation: int) -> tuple[Box, ...]:
    """Return boxes on stored pixels of some size as they lie on the upright image; see `images.decode.upright`."""
    (height, width), found = stored, []
    for box in boxes:
        x, y = (box.xmin, box.xmax), (box.ymin, box.ymax)
        w, h = width, height
        if orientation >= 5:
            x, y, w, h = y, x, h, w
        if orientation in (3, 4, 7, 8):
            y = h - y[1], h - y[0]
        if orientation in (2, 3, 6, 7):
            x = w - x[1], w - x[0]
        found.append(Box(x[0], y[0], x[1], y[1]))
    return tuple(found)


def with_boxes(dataset: Dataset, skip_bad: bool) -> tuple[Dataset, list[Size]]:
    """Return the images that have boxes, these cut at the image's edges, and the images' sizes.

    Images with a bad box are left out with `skip_bad`, else UserError names the first; also where no box is left.
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
    """Yield the boxes that do not lie in their image, `every` being the images' sizes as far as they are known."""
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
