"""`verydeep fuse`: average posteriors of networks and protocols."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "verydeep fuse posteriors/D/dense@64.parquet posteriors/E/dense@64.parquet --out fused.parquet"


def fuse(
    files: Annotated[list[Path], typer.Argument(help="Posteriors files that verydeep evaluate wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write the mean to this posteriors file.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Average posteriors with equal weights; print the errors of each and of the mean.

    The files must be of the same images, labels and classes; their rows are matched by image id. For two files
    McNemar's exact test says whether they err equally often.

    Example: verydeep fuse posteriors/D/dense@64.parquet posteriors/E/dense@64.parquet --out fused.parquet
    """
    import json

    from verydeep.cli.errors_table import HEAD, NOTE, cells, table, values
    from verydeep.evaluation.fuse import fuse as average
    from verydeep.evaluation.metrics import mcnemar_of
    from verydeep.evaluation.posteriors import Posteriors

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
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(table([("system", *HEAD), *((name, *cells(part)) for name, part in systems)]))
    typer.echo(NOTE)
    for k, test in tests.items():
        first, second = test.only_first_wrong, test.only_second_wrong
        typer.echo(f"McNemar, top-{k}: only the first wrong {first}, only the second {second}, p = {test.p_value:.3g}")
    if out:
        typer.echo(str(out))
