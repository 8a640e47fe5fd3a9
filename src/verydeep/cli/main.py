"""The command `verydeep`: registers the commands, turns errors into one line and an exit status."""

import sys
from importlib import import_module
from typing import Any, NoReturn

import typer

from verydeep.basics.errors import SharedError, UserError, WorkError
from verydeep.basics.formatting import printable
from verydeep.basics.memory import keep_memory
from verydeep.basics.version import VERSION

app = typer.Typer(
    name="verydeep",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Very deep ConvNets, trained and tested as in the paper (Simonyan & Zisserman 2014).\n\n"
    "Example: verydeep describe D --image-size 384",
    context_settings={"help_option_names": ["-h", "--help"]},
)

TRAINING = ("train", "reproduce")
# Command, module of cli/, function; in the order in which --help lists them.
COMMANDS = (
    ("describe", "describe"),
    ("train", "train"),
    ("evaluate", "evaluate"),
    ("fuse", "fuse"),
    ("tables", "tables"),
    ("reproduce", "reproduce"),
    ("report", "report"),
    ("predict", "predict"),
    ("localize", "localize"),
    ("segment", "segment"),
    ("tune", "tune"),
    ("scoremap", "scoremap"),
    ("convert", "convert"),
    ("export", "export"),
    ("features", "features"),
    ("transfer", "transfer"),
    ("perceive", "perceive"),
    ("serve", "serve"),
    ("stylize", "stylize"),
    ("explain", "explain"),
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
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") in TRAINING:
        keep_memory()  # here and not in the commands: it is the whole process's, from its first tensor on
    try:
        status = app(standalone_mode=False)
    except SharedError as error:
        if error.first:
            _say(str(error))
        error.wait()
        raise SystemExit(2) from error if debug else None
    except UserError as error:
        if debug:
            raise
        _stop(str(error), 2)
    except WorkError as error:
        if debug:
            raise
        _stop(str(error), 1)
    except OSError as error:  # a full or read-only disk, a file that is gone
        if debug:
            raise
        _stop(f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 2)
    except MemoryError:
        if debug:
            raise
        _stop("not enough memory: give a lower --memory, smaller scales or fewer pictures at once", 1)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted", 130)
    except Exception as error:
        if debug:
            raise
        if hasattr(error, "format_message"):  # a wrong word on the command line, by typer's private classes
            _stop_usage(error)
        _stop(f"{type(error).__name__}: {error} (verydeep --debug COMMAND ... shows the traceback)", 1)
    raise SystemExit(status if isinstance(status, int) else 0)


def _stop_usage(error: Any) -> NoReturn:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
        raise SystemExit(2)
    command = error.ctx.command_path if getattr(error, "ctx", None) else "verydeep"
    _stop(f"{error.format_message()} (see {command} --help)", 2)


def _stop(message: str, status: int) -> NoReturn:
    _say(message)
    raise SystemExit(status)


def _say(message: str) -> None:
    print(f"verydeep: error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
