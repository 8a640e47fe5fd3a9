"""`verydeep fuse`: average posteriors of networks and protocols."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verydeep.cli.console import echo
from verydeep.cli.options import Json

if TYPE_CHECKING:
    from verydeep.localization.tuning import Tuned

EXAMPLE = "verydeep fuse posteriors/D/dense@64.parquet posteriors/E/dense@64.parquet --out fused.parquet"


def fuse(
    files: Annotated[
        list[Path], typer.Argument(help="Files of posteriors, or of boxes, that verydeep evaluate wrote.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the mean, or the merged boxes, to this file.")] = None,
    tuned: Annotated[
        Path | None, typer.Option(help="Boxes: file of `verydeep tune`; its held-out images are left out.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Boxes: those as alike as this are merged.")] = None,
    json_: Json = False,
) -> None:
    """Average posteriors with equal weights; print the errors of each and of the mean, or mAP of several labels.

    The files must be of the same images, labels and classes; their rows are matched by image id. For two files
    McNemar's exact test says whether they err equally often.

    Boxes of several networks are put together and merged at once; their files must come from the same posteriors.

    Example: verydeep fuse posteriors/D/dense@64.parquet posteriors/E/dense@64.parquet --out fused.parquet
    """
    import json

    from verydeep.basics.errors import UserError
    from verydeep.cli.boxes import chosen_rule
    from verydeep.cli.errors_table import cells, head, note, table, values
    from verydeep.evaluation.fuse import fuse as average
    from verydeep.evaluation.metrics import mcnemar_of
    from verydeep.evaluation.posteriors import Posteriors
    from verydeep.localization.detections import holds_boxes

    if holds_boxes(files[0]):
        _fuse_boxes(files, out, chosen_rule(threshold, None, tuned), json_)
        return
    if tuned or threshold is not None:
        raise UserError(f"--{'tuned' if tuned else 'threshold'} is for files of boxes, and {files[0]} holds posteriors")
    parts = [Posteriors.read(file) for file in files]
    mean = average(parts, [str(file) for file in files])
    if out:
        mean.write(out)
    comparable = len(parts) == 2 and (mean.labels >= 0).any()
    tests = {k: mcnemar_of(parts[0], parts[1], k) for k in (1, 5) if k < len(mean.classes)} if comparable else {}
    systems = [*zip(map(str, files), parts, strict=True), ("mean of all", mean)]
    if json_:
        report = {
            "systems": [{"file": name, **values(part)} for name, part in systems[:-1]],
            "fusion": {**values(mean), "file": str(out) if out else None},
            "mcnemar": {f"top{k}": vars(test) for k, test in tests.items()} or None,
        }
        echo(json.dumps(report, indent=2))
        return
    echo(table([("system", *head(mean)), *((name, *cells(part)) for name, part in systems)]))
    echo(note(mean))
    for k, test in tests.items():
        first, second = test.only_first_wrong, test.only_second_wrong
        echo(f"McNemar, top-{k}: only the first wrong {first}, only the second {second}, p = {test.p_value:.3g}")
    if out:
        echo(str(out))


def _fuse_boxes(files: list[Path], out: Path | None, tuned: "Tuned", json_: bool) -> None:
    from verydeep.cli.boxes import echo_metrics
    from verydeep.localization.detections import Detections
    from verydeep.localization.scoring import merge_detections

    parts, names = [Detections.read(file) for file in files], [str(file) for file in files]
    rule = tuned.rule_for(parts[0].metadata.get("data", ""), parts[0].metadata.get("split", ""))
    together = merge_detections(parts, rule, names)
    if out:
        together.write(out)
    alone = [(name, merge_detections([part], rule), name) for name, part in zip(names, parts, strict=True)]
    echo_metrics([*alone, ("merged together", together, str(out) if out else "")], rule, json_)
