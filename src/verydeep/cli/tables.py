"""`verydeep tables`: the paper's Tables 3 to 9, 11 and 12 from what a study's folder holds."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from verydeep.cli.console import echo

EXAMPLE = "verydeep tables demo --format markdown"


def tables(
    study: Annotated[Path, typer.Argument(help="Folder with posteriors, boxes or transfers, in it or below.")],
    format_: Annotated[
        Literal["text", "markdown", "csv", "json", "html"], typer.Option("--format", help="How to print them.")
    ] = "text",
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the paper's tables from what a folder holds: 3 to 9 of tests, 11 and 12 of transfers.

    No network is run. Errors come with 95 % bootstrap intervals. On the paper's data its figures stand beside them.
    A cell is empty where a run is missing.

    Example: verydeep tables demo --format markdown
    """
    from verydeep.results.result import read_results
    from verydeep.results.table import render
    from verydeep.results.tables import make_tables

    echo(render(make_tables(read_results(study)), "json" if json_ else format_))
