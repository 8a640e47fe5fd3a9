"""`verydeep transfer`: linear classifiers on a network's descriptors."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Device, Json, Labels, Memory, OnBadImage, Precision, Reader, parse_scales

EXAMPLE = "verydeep transfer --weights runs/A --data photos --protocol folder --scales 64,96 --out flowers"


def transfer(
    data: Annotated[str, typer.Option(help="Data set: a folder, a .tar, or 'scenes'; VOC's own folder or tar.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    weights: Annotated[
        list[Path] | None,
        typer.Option(help="Run, weights file, or caffe:vgg16 and the like; of several, descriptors are stacked."),
    ] = None,
    protocol: Annotated[
        Literal["caltech101", "caltech256", "voc2007", "voc2012", "voc2012-action", "folder"],
        typer.Option(help="How to divide and to measure."),
    ] = "folder",
    layer: Annotated[
        str | None,
        typer.Option(
            help="conv1_1, conv1_1.relu, ..., pool5, ..., fc7.relu; default: fc7.relu, of a trunk its last ReLU."
        ),
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Q,... in pixels; default: the protocol's, in proportion to the window.")
    ] = None,
    aggregate: Annotated[
        Literal["mean", "stack", "max"] | None, typer.Option(help="Over the scales; default: the protocol's.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Average over the mirror image, too.")] = True,
    normalize: Annotated[
        Literal["l2", "l2-scales", "l2-whole", "none"],
        typer.Option(help="To unit norm: each network's descriptor, each scale's, the whole, or none."),
    ] = "l2",
    classifier: Annotated[Literal["svm", "logistic"], typer.Option(help="Linear SVM or logistic regression.")] = "svm",
    balanced: Annotated[bool, typer.Option(help="Let all classes count the same.")] = True,
    baseline: Annotated[
        Literal["random", "pixels", "hog"] | None,
        typer.Option(help="Instead of the trained network: random weights, raw pixels, gradient histograms."),
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Protocol folder: stratified folds, not one hold-out.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Protocol folder: a network trained on the same data, such as a fine-tuned one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random splits.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder for descriptors; default: the user's cache.")] = None,
    memory: Memory = "1GiB",
    device: Device = "auto",
    precision: Precision = "float32",
    reader: Reader = None,
    labels: Labels = None,
    on_bad_image: OnBadImage = "error",
    json_: Json = False,
) -> None:
    """Train linear classifiers on a network's descriptors, and measure them as the paper's appendix B does.

    The folder gets result.json, report.html, the test images' posteriors, the splits, and classifier.safetensors: the
    network up to the layer and the first split's classifier, as measured, for predict, evaluate, scoremap and export.
    Descriptors are kept and not computed twice.

    Example: verydeep transfer --weights runs/A --data photos --protocol folder --scales 64,96 --out flowers
    """
    import json

    from verydeep.datasets.opening import Reading
    from verydeep.inference.memory import parse_memory
    from verydeep.transfer.run import transfer as run
    from verydeep.transfer.work import Settings

    chosen = parse_scales(scales) if scales else None
    choice = Settings(layer, chosen, aggregate, flip, normalize, classifier, balanced, baseline, folds, seed)
    result = run(
        weights or [],
        data,
        protocol,
        out,
        choice,
        compare=compare,
        cache=cache,
        memory=parse_memory(memory),
        device=device,
        precision=precision,
        reading=Reading(reader, on_bad_image, labels=labels),
    )
    for bad in result["left_out"]:
        echo(f"left out: {bad}", err=True)
    echo(json.dumps(result, indent=1) if json_ else _words(result, out))


def _words(result: dict[str, Any], out: Path) -> str:
    from verydeep.cli.errors_table import table
    from verydeep.evaluation.metrics import Mean
    from verydeep.transfer.report import files_in_words, splits_in_words, warnings

    head = ("system", "numbers", f"{result['measure']} %", "C")
    rows = [
        (
            system["name"],
            str(system["width"]),
            str(Mean(system["merit"], system["std"])),
            ", ".join(f"{split['C']:g}" for split in system["splits"]),
        )
        for system in result["systems"]
    ]
    rows += [(words, "", str(Mean(made["merit"])), f"{made['C']:g}") for words, made in files_in_words(result)]
    if compared := result["compared"]:
        rows.append((f"{compared['weights']}, {compared['protocol']}", "", str(Mean(compared["merit"])), ""))
    splits = splits_in_words(result["systems"][0]["splits"])
    about = f"{result['identity']['data']}, {len(result['identity']['classes'])} classes; {splits}"
    return "\n".join([about, table([head, *rows]), *warnings(result), str(out / "report.html")])
