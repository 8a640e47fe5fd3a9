"""`verydeep tables`: the paper's Tables 3 to 6, 8 and 9 from the posteriors and boxes of a study."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLE = "verydeep tables demo --format markdown"


def tables(
    study: Annotated[Path, typer.Argument(help="Folder with files of posteriors or boxes, in it or below.")],
    format_: Annotated[
        Literal["text", "markdown", "csv", "json", "html"], typer.Option("--format", help="How to print them.")
    ] = "text",
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Print the paper's Tables 3 to 6, 8 and 9 from whatever posteriors and boxes a folder holds; no network is run.

    Errors come with 95 % bootstrap intervals. On ILSVRC-2012 the paper's figures stand beside them. A cell is empty
    where a run is missing.

    Example: verydeep tables demo --format markdown
    """
    from verydeep.study.box_tables import every_table
    from verydeep.study.render import render

    typer.echo(render(every_table(study), "json" if json_ else format_))
