"""`verydeep tune`: how the boxes of a data set are merged best."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Json

EXAMPLE = "verydeep tune boxes/dense@96.parquet --out threshold.json"


def tune(
    files: Annotated[
        list[Path], typer.Argument(help="Files of boxes that verydeep evaluate wrote; several are merged together.")
    ],
    match: Annotated[Literal["recommended", "literal"], typer.Option(help="How alike two boxes are.")] = "recommended",
    share: Annotated[float, typer.Option(help="Share of the images to hold out and choose on.")] = 0.2,
    out: Annotated[Path | None, typer.Option(help="Write threshold and hold-out here, for --tuned.")] = None,
    json_: Json = False,
) -> None:
    """Choose the threshold of merging on a held-out part of the images; no network is run.

    Example: verydeep tune boxes/dense@96.parquet --out threshold.json
    """
    import json

    from verydeep.cli.errors_table import table
    from verydeep.localization.detections import Detections
    from verydeep.localization.metrics import localization_metrics
    from verydeep.localization.scoring import merge_detections
    from verydeep.localization.tuning import tune as choose

    parts, names = [Detections.read(file) for file in files], [str(file) for file in files]
    tuned = choose(parts, match, share, names=names)
    rest = localization_metrics(merge_detections(parts, tuned.rule_for(tuned.data, tuned.split), names))
    if out:
        tuned.write(out)
    if json_:
        values = {**vars(tuned.rule), "curve": tuned.curve, "images": tuned.images, "file": str(out) if out else None}
        others = {"images": rest.images, "error_given_class": rest.given_class.rate, "top5_error": rest.top5.rate}
        echo(json.dumps({**values, "others": others}, indent=2))
        return
    lines = [(f"{threshold:g}", f"{100 * error:.1f}") for threshold, error in tuned.curve]
    echo(table([("threshold", "error % given class"), *lines]))
    echo(f"least on {tuned.images} held-out images: {tuned.rule.threshold:g} ({tuned.rule.match} match score)")
    echo(f"on the other {rest.images} images: error given class {rest.given_class}, top-5 error {rest.top5}")
    if out:
        echo(str(out))
