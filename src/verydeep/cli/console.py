"""What commands print: text, whatever names of files and classes hold."""

import typer

from verydeep.basics.formatting import printable


def echo(text: str, err: bool = False) -> None:
    """Print a text whose control characters stand there as escapes: a terminal obeys what it is sent."""
    typer.echo(printable(text), err=err)
