"""`verydeep bench`: the commands of `benchmarks/`, which stand beside the package in a checkout."""

import sys
from importlib import import_module
from pathlib import Path

import typer

from verydeep.basics.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[3]


def _commands() -> typer.Typer:
    if not (CHECKOUT / "benchmarks" / "commands.py").is_file():
        missing = typer.Typer()
        missing.callback(invoke_without_command=True)(_refuse)
        return missing
    if str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    commands: typer.Typer = import_module("benchmarks.commands").app
    return commands


def _refuse() -> None:
    """Compare with the usual way of doing a thing; only in a checkout of the project."""
    raise UserError(
        "bench: the benchmarks are not part of the installed package; clone the project, install it with "
        "pip install -e . and give the command again"
    )


app = _commands()
