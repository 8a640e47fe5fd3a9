"""The command `verydeep`: registers the commands, turns errors into one line and an exit status."""

import sys
from importlib import import_module

import typer

from verydeep.basics.errors import UserError
from verydeep.basics.version import VERSION

app = typer.Typer(
    name="verydeep",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Very deep ConvNets, trained and tested as in the paper (Simonyan & Zisserman 2014).",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Command, module of cli/, function; in the order in which --help lists them.
COMMANDS = (
    ("describe", "describe"),
    ("train", "train"),
    ("evaluate", "evaluate"),
    ("fuse", "fuse"),
    ("tables", "tables"),
    ("reproduce", "reproduce"),
    ("predict", "predict"),
)
GROUPS = (("data", "data"), ("bench", "bench"))

for _name, _module in COMMANDS:
    app.command(_name)(getattr(import_module(f"verydeep.cli.{_module}"), _name))
for _name, _module in GROUPS:
    app.add_typer(import_module(f"verydeep.cli.{_module}").app, name=_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"verydeep {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Take the options that stand before the command."""


def run() -> None:
    """Run the command line: exit status 0 success, 1 the work failed, 2 the request was wrong, 130 Ctrl-C."""
    debug = "--debug" in sys.argv[1:]
    try:
        app()
    except UserError as error:
        if debug:
            raise
        _stop(str(error), 2)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except Exception as error:
        if debug:
            raise
        _stop(f"{type(error).__name__}: {error} (verydeep --debug COMMAND ... shows the traceback)", 1)


def _stop(message: str, status: int) -> None:
    line = " ".join(message.split())
    print(f"verydeep: error: {line}", file=sys.stderr)
    raise SystemExit(status)
