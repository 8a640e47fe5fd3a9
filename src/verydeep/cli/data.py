"""`verydeep data`: look at a data set before training on it, or make shards of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import BoxesAsStored, Json, Labels, Reader

if TYPE_CHECKING:
    from verydeep.datasets.dataset import Dataset
    from verydeep.datasets.opening import Reading
    from verydeep.datasets.survey import Survey

EXAMPLE = "verydeep data show scenes --split val --out sheet.png"

UNEQUAL = 10
"""Ratio of images of two classes from which on a warning is given."""

TROUBLES = 10  # of each kind that are printed

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Look at data sets.

    Example: verydeep data show scenes --split val --out sheet.png
    """


@app.command()
def show(
    data: Annotated[str, typer.Argument(help="Data set: a folder, .tar, .zip or .tar.gz, or 'scenes' (embedded).")],
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Which images; default: all three splits.")
    ] = None,
    reader: Reader = None,
    labels: Labels = None,
    out: Annotated[Path | None, typer.Option(help="PNG for a contact sheet of the first split shown.")] = None,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Read the boxes too: count them, draw them, list the bad ones.")
    ] = False,
    boxes_as_stored: BoxesAsStored = None,
    json_: Json = False,
) -> None:
    """Print classes, counts, labels, image sizes and damaged files; draw a contact sheet.

    Every image is decoded. With --boxes annotations without a usable box are listed, by file and value; of each kind of
    trouble the first ten, and all with --json. Splits are made as training and testing make them with seed 0.

    Example: verydeep data show scenes --split val --out sheet.png
    """
    import json

    from verydeep.basics.errors import UserError
    from verydeep.basics.files import write_aside
    from verydeep.datasets.contact_sheet import contact_sheet
    from verydeep.datasets.opening import Reading
    from verydeep.datasets.survey import survey

    if out and out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the contact sheet is a PNG; choose a name that ends in .png")
    datasets = _open(
        data, [split] if split else ["train", "val", "test"], Reading(reader, "error", boxes_as_stored, labels), boxes
    )
    surveys = survey(datasets)
    if out:
        with write_aside(out) as aside:
            contact_sheet(datasets[0]).save(aside, "PNG")
    if json_:
        echo(json.dumps({**_values(surveys, boxes), "contact_sheet": str(out) if out else None}, indent=2))
    else:
        echo(_text(surveys, boxes))
        if out:
            echo(f"\ncontact sheet of {datasets[0].split}: {out}")


@app.command()
def shard(
    data: Annotated[str, typer.Argument(help="Data set: a folder, .tar, .zip or .tar.gz.")],
    out: Annotated[Path, typer.Option(help="Folder for the shards, new or empty.")],
    side: Annotated[int | None, typer.Option(min=1, help="Rescale larger pictures to this smallest side.")] = None,
    images: Annotated[int, typer.Option(min=1, help="In a shard.")] = 1000,
    reader: Reader = None,
    labels: Labels = None,
    json_: Json = False,
) -> None:
    """Write a data set as tars in WebDataset's layout, for disks and networks that are slow with many small files.

    Splits are made as training and testing make them with seed 0, and are then the shards' own. Boxes are left behind.

    Example: verydeep data shard photos --out shards --side 320
    """
    import json

    from verydeep.basics.errors import UserError
    from verydeep.datasets.opening import Reading
    from verydeep.datasets.shards import write_shards

    if data == "scenes":
        raise UserError("scenes: are made when they are looked at, and are in no files; give a folder or an archive")
    datasets = _open(data, ["train", "val", "test"], Reading(reader, "error", None, labels), False)
    written = write_shards(datasets, out, images, side)
    if json_:
        rows = [{"split": one.split, "images": one.images, "files": list(map(str, one.files))} for one in written]
        echo(json.dumps(rows, indent=2))
    else:
        for one in written:
            echo(f"{one.split}: {one.images} images in {len(one.files)} shards, {one.files[0]} ...")


def _open(data: str, splits: list[str], reading: "Reading", boxes: bool) -> "list[Dataset]":
    """Return those of the splits that can be made; UserError if none can."""
    from verydeep.basics.errors import UserError

    opened, errors = [], []
    for split in splits:
        try:
            opened.append(reading.open(data, split, boxes, several=not boxes))
        except UserError as error:
            errors.append(error)
    if not opened:
        raise errors[0]
    return opened


def _values(surveys: "list[Survey]", boxes: bool) -> dict[str, Any]:
    first = surveys[0].dataset
    return {
        "data": first.name,
        "classes": list(first.classes),
        "splits": {
            survey.dataset.split: {
                "images": len(survey.dataset),
                "images_per_class": dict(zip(first.classes, survey.per_class, strict=True)),
                **_label_values(survey),
                "smallest": survey.smallest,
                "median": survey.median,
                "largest": survey.largest,
                "unequal_classes": _unequal(survey),
                "damaged": [{"file": bad.name, "reason": bad.reason} for bad in survey.bad],
                "provenance": survey.dataset.provenance,
                **(_box_values(survey) if boxes else {}),
            }
            for survey in surveys
        },
    }


def _label_values(survey: "Survey") -> dict[str, Any]:
    """Return how many labels there are, and how many images have 0, 1, 2, ... of them, where that may be several."""
    if not survey.labels_per_image:
        return {}
    by_number = {str(number): count for number, count in enumerate(survey.labels_per_image) if count}
    return {"labels": sum(survey.per_class), "images_by_number_of_labels": by_number}


def _box_values(survey: "Survey") -> dict[str, Any]:
    counts = [len(sample.boxes) for sample in survey.dataset.samples]
    bad = [{"file": error.name, "reason": error.reason} for error in survey.bad_boxes]
    return {"boxes": sum(counts), "images_with_boxes": sum(map(bool, counts)), "bad_boxes": bad}


def _first(troubles: dict[str, None]) -> list[str]:
    """Return the first ten troubles of a kind, and how many more there are."""
    listed = list(troubles)
    more = [f"and {len(listed) - TROUBLES} more, all of them with --json"] if len(listed) > TROUBLES else []
    return [*listed[:TROUBLES], *more]


def _unequal(survey: "Survey") -> str | None:
    """Return a warning where one class has ten times as many images as another."""
    most, least = max(survey.per_class), min(survey.per_class)
    if most < UNEQUAL * max(least, 1):
        return None
    names = [survey.dataset.classes[survey.per_class.index(count)] for count in (most, least)]
    remedy = "" if survey.labels_per_image else ": consider train --set data.balance=sampling, or weights"
    return f"{names[0]} has {most} images, {names[1]} {least}{remedy}"


def _labels(survey: "Survey") -> str:
    labels, images = sum(survey.per_class), len(survey.dataset)
    numbers = ", ".join(f"{count} with {number}" for number, count in enumerate(survey.labels_per_image) if count)
    return f"{labels} labels of {images} images, {labels / images:.1f} an image: {numbers}"


def _text(surveys: "list[Survey]", boxes: bool) -> str:
    from verydeep.cli.errors_table import table

    def words(size: tuple[int, int] | None) -> str:
        return f"{size[0]} x {size[1]}" if size else "-"

    first = surveys[0].dataset
    splits = [survey.dataset.split for survey in surveys]
    head = ("split", "images", "images a class", "smallest", "median", "largest", "damaged")
    rows = [
        (
            survey.dataset.split,
            f"{len(survey.dataset)}",
            f"{min(survey.per_class)} to {max(survey.per_class)}",
            *map(words, (survey.smallest, survey.median, survey.largest)),
            f"{len(survey.bad)}",
        )
        for survey in surveys
    ]
    counts = zip(*(survey.per_class for survey in surveys), strict=True)
    classes = [(name, *map(str, count)) for name, count in zip(first.classes, counts, strict=True)]
    damaged = _first(dict.fromkeys(f"damaged: {bad}" for survey in surveys for bad in survey.bad))
    if boxes:
        for survey in surveys:
            found = _box_values(survey)
            counted = f"{found['boxes']} boxes in {found['images_with_boxes']} of {len(survey.dataset)} images"
            damaged.append(f"{survey.dataset.split}: {counted}, {len(survey.bad_boxes)} bad")
        damaged += _first(dict.fromkeys(f"bad box: {error}" for survey in surveys for error in survey.bad_boxes))
    return "\n".join(
        [
            f"{first.name}: {len(first.classes)} classes; sizes are height x width, by number of pixels",
            "",
            table([head, *rows]),
            "",
            *dict.fromkeys(note for survey in surveys for note in survey.dataset.provenance.split("; ")),
            *(f"{each.dataset.split}: {_labels(each)}" for each in surveys if each.labels_per_image),
            *(f"{each.dataset.split}: unequal classes: {said}" for each in surveys if (said := _unequal(each))),
            *damaged,
            "",
            table([("class", *splits), *classes]),
        ]
    )
