"""`verydeep tables`: the paper's Tables 3 to 6 from the posteriors of a study."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLE = "verydeep tables demo --format markdown"


def tables(
    study: Annotated[Path, typer.Argument(help="Folder with posteriors files, in it or below.")],
    format_: Annotated[
        Literal["text", "markdown", "csv", "json", "html"], typer.Option("--format", help="How to print them.")
    ] = "text",
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the paper's Tables 3 to 6 from whatever posteriors a folder holds; no network is run.

    Errors come with 95 % bootstrap intervals. On ILSVRC-2012 the paper's figures stand beside them. A cell is empty
    where a run is missing.

    Example: verydeep tables demo --format markdown
    """
    from verydeep.study.render import render
    from verydeep.study.tables import read_tables

    typer.echo(render(read_tables(study), "json" if json_ else format_))
