"""`verydeep evaluate`: test a network, write its posteriors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import (
    BoxesAsStored,
    Data,
    Device,
    Engine,
    Json,
    Labels,
    Memory,
    OnBadImage,
    PartOf,
    Precision,
    Reader,
)

if TYPE_CHECKING:
    from verydeep.evaluation.evaluate import Evaluator
    from verydeep.evaluation.posteriors import Posteriors

EXAMPLE = "verydeep evaluate runs/A --data scenes --protocol dense@64 --out posteriors/A"


def evaluate(
    weights: Annotated[Path, typer.Argument(help="Run, weights file of any project, or caffe:vgg16 and the like.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for <protocol>.parquet; what is there is not done again.")],
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="center@Q, dense@Q,..., crops@Q,..., dense+crops@Q,..., other papers' ten-crops@Q, "
            "square-crops@Q,... or, of networks by transfer, descriptor@Q,...; may be given several times; "
            "default: as for predict."
        ),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which images.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many images, evenly over the classes.")] = None,
    task: Annotated[
        Literal["classify", "localize", "segment"],
        typer.Option(help="Test a classifier's classes, a localizer's boxes, or the classes of pixels."),
    ] = "classify",
    classifier: Annotated[
        Path | None, typer.Option(help="Localize: weights or run whose scores rate boxes; its classes and windows.")
    ] = None,
    posteriors: Annotated[
        Path | None,
        typer.Option(help="Localize: posteriors file to take the five classes from; else the classifier's."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Localize: boxes as alike as this are merged.")] = None,
    match: Annotated[
        Literal["recommended", "literal"] | None, typer.Option(help="Localize: how alike two boxes are.")
    ] = None,
    tuned: Annotated[
        Path | None, typer.Option(help="Localize: file of `verydeep tune`; its held-out images are left out.")
    ] = None,
    softmax: Annotated[
        Literal["image", "location"], typer.Option(help="Soft-max of the mean score, or at each location.")
    ] = "image",
    pool: Annotated[Literal["mean", "max"], typer.Option(help="Spatial pooling of the scores.")] = "mean",
    pool_rounding: Annotated[
        Literal["up", "down"] | None, typer.Option(help="Rounding of the max-pools' sizes; default: the network's.")
    ] = None,
    precision: Precision = "float32",
    memory: Memory = "2GiB",
    device: Device = "auto",
    engine: Engine = "auto",
    reader: Reader = None,
    labels: Labels = None,
    on_bad_image: OnBadImage = "error",
    boxes_as_stored: BoxesAsStored = None,
    part: PartOf = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Also write which classes are taken for which: a picture and a table.")
    ] = False,
    json_: Json = False,
) -> None:
    """Test a network by one or several protocols; write posteriors or boxes, print errors, recall and precision.

    A protocol that is the mean of others (several scales, dense+crops) writes theirs too. Images held out for a
    missing split are those that this network was not trained on.
    By class are shown: of several protocols the one with the least error, of many classes those least found; --json has
    all. --confusion writes confusion-<protocol>.png and .parquet into the folder, too. Of images that may have several
    classes average precision by class and its mean take the place of errors; there is no confusion then.

    A localizer is tested with --task localize --classifier runs/A, on images with boxes, by center@Q,
    dense@Q,... or crops@Q,...:
    five classes an image from the posteriors, the boxes of all windows merged and rated by the classifier's scores.

    A network for each pixel is tested with --task segment on whole pictures with masks: accuracies and IoU, with
    intervals over pictures, from one confusion matrix a picture (segmentation.parquet).

    Example: verydeep evaluate runs/A --data scenes --protocol dense@64 --out posteriors/A
    """
    from verydeep.basics.errors import UserError
    from verydeep.cli.boxes import BoxRequest, chosen_rule, echo_boxes
    from verydeep.datasets.opening import Reading
    from verydeep.evaluation.evaluate import Evaluator
    from verydeep.inference.memory import parse_memory
    from verydeep.inference.options import Options
    from verydeep.inference.parts import Part
    from verydeep.inference.protocol import Protocol, default_protocol
    from verydeep.inference.runtime import Runtime
    from verydeep.training.run_folder import find_weights

    if part and task != "classify":
        raise UserError(f"--part is for classes; leave it out with --task {task}")
    if task == "segment":
        usual = (softmax, pool, precision, confusion) == ("image", "mean", "float32", False)
        others = (protocol, classifier, posteriors, tuned, threshold, match, reader, labels, boxes_as_stored)
        if not usual or any(option is not None for option in (*others, pool_rounding)) or on_bad_image != "error":
            raise UserError(
                "--task segment takes --data, --split, --limit, --out, --memory, --device, --engine, --json"
            )
        from verydeep.cli.pixels import echo_pixels

        echo_pixels(
            find_weights(weights), data, split, out, Runtime(device, engine, parse_memory(memory)), limit, json_
        )
        return
    if task == "localize":
        if (softmax, pool, pool_rounding, confusion) != ("image", "mean", None, False):
            raise UserError(
                "--softmax, --pool, --pool-rounding and --confusion are about classes; leave them out with "
                "--task localize"
            )
        if not protocol:
            raise UserError("--task localize needs --protocol: center@Q, dense@Q,... or crops@Q,...")
        request = BoxRequest(
            weights,
            classifier,
            data,
            split,
            Reading(reader, on_bad_image, boxes_as_stored, labels),
            posteriors,
            precision,
            memory,
            device,
            engine,
            limit,
            out,
        )
        echo_boxes(request, protocol, chosen_rule(threshold, match, tuned), json_)
        return
    given = {"--classifier": classifier, "--posteriors": posteriors, "--threshold": threshold, "--match": match}
    if names := [
        name
        for name, value in {**given, "--tuned": tuned, "--boxes-as-stored": boxes_as_stored}.items()
        if value is not None
    ]:
        raise UserError(f"{names[0]} is about boxes: add --task localize, or leave it out")
    options = Options(softmax, pool, pool_rounding)
    protocols = [Protocol.parse(text) for text in protocol or []]
    file = find_weights(weights)
    dataset = Reading(reader, on_bad_image, labels=labels).open(data, split, several=True)
    if confusion and dataset.multi_label:
        raise UserError("--confusion is of images with one class each, and those of this data set have several")
    for bad in dataset.bad:
        echo(f"left out: {bad}", err=True)
    runtime = Runtime(device, engine, parse_memory(memory), precision)
    evaluator = Evaluator(file, dataset, options, runtime, limit=limit, cache=out)
    protocols = protocols or [default_protocol(evaluator.forward.net)]
    for name in protocols:
        evaluator.check(name)  # all of them before the first is run
    if part:
        share = Part.parse(part)
        done = max(evaluator.do_part(name, share) for name in protocols)
        echo(f"part {share}: {done} of {len(evaluator.dataset)} pictures; without --part the file is written")
        return
    results = {str(name): evaluator.posteriors(name) for name in protocols}
    (_echo_json if json_ else _echo)(evaluator, results, _draw(results, out) if confusion else {})


def _draw(results: "dict[str, Posteriors]", out: Path) -> dict[str, list[Path]]:
    from verydeep.evaluation.confusion import write_confusion
    from verydeep.evaluation.metrics import class_metrics

    return {
        name: write_confusion(out, f"confusion-{name}", class_metrics(found).confusion, found.classes)
        for name, found in results.items()
        if (found.labels >= 0).any()
    }


def _echo(evaluator: "Evaluator", results: "dict[str, Posteriors]", drawn: dict[str, list[Path]]) -> None:
    from verydeep.cli.errors_table import best, cells, class_table, head, note, table

    dataset, first = evaluator.dataset, next(iter(results.values()))
    lines = [(name, *cells(result), str(evaluator.path(name))) for name, result in results.items()]
    echo(f"{dataset.name}, {dataset.provenance or f'{dataset.split}: as published'}")
    echo(table([("protocol", *head(first), "file"), *lines]))
    echo(note(first))
    if name := best(results):
        echo(f"\n{class_table(results[name], name)}")
    for path in (path for paths in drawn.values() for path in paths):
        echo(str(path))


def _echo_json(evaluator: "Evaluator", results: "dict[str, Posteriors]", drawn: dict[str, list[Path]]) -> None:
    import json

    from verydeep.cli.errors_table import class_values, values

    rows = []
    for name, result in results.items():
        files = {"confusion": list(map(str, drawn[name]))} if name in drawn else {}
        rows.append(
            {"protocol": name, **values(result), **class_values(result), "file": str(evaluator.path(name)), **files}
        )
    about = {"data": evaluator.dataset.name, "split": evaluator.dataset.split}
    echo(json.dumps({**about, "results": rows}, indent=2))
