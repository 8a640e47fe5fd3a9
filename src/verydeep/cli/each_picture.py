"""Picture after picture, a damaged one being no reason to leave out the others."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

Result = TypeVar("Result")
Row = dict[str, Any]


def each_picture(files: Sequence[Path], work: Callable[[Path], Result], rows: list[Row]) -> Iterator[Result]:
    """Yield what `work` makes of each picture; a damaged one is named on stderr and entered into `rows`."""
    from verydeep.basics.errors import BadImageError

    for file in files:
        try:
            result = work(file)
        except BadImageError as error:
            rows.append({"image": str(file), "error": error.reason})
            typer.echo(f"verydeep: error: {error}", err=True)
        else:
            yield result


def finish(rows: Sequence[Row], as_json: bool) -> None:
    """Print the rows where JSON is asked for, and exit with 2 where one is of a damaged picture."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    if any("error" in row for row in rows):
        raise typer.Exit(2)
