"""`verydeep report`: a study to look at, while it goes on or later."""

from pathlib import Path
from typing import Annotated

import typer

from verydeep.cli.console import echo

EXAMPLE = "verydeep report demo --serve"


def report(
    study: Annotated[Path, typer.Argument(help="Folder with runs and posteriors, in it or below.")],
    serve: Annotated[bool, typer.Option("--serve", help="Show it live in a browser, until Ctrl-C.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Where the test pictures are; default: where the study had them.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one, which is printed.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="VERYDEEP_TOKEN", help="That requests must bring: Authorization: Bearer TOKEN.")
    ] = None,
) -> None:
    """Look at a study: tables, curves, hits and misses, two networks compared picture by picture.

    With --serve it is a page that follows the study as it goes on. Without, the place of the report that
    `verydeep reproduce` wrote is printed.

    Example: verydeep report demo --serve
    """
    from verydeep.basics.errors import UserError
    from verydeep.results.study import StudyFolder

    if not serve:
        written = StudyFolder(study).report
        if not written.is_file():
            raise UserError(
                f"{written}: not there; verydeep reproduce writes it, and --serve shows what there is so far"
            )
        echo(str(written.resolve()))
        return
    from verydeep.basics.extras import need

    for module in ("fastapi", "uvicorn", "python_multipart"):
        need(module, "serve")
    from verydeep.serving.serve import Address, serve_study

    serve_study(study, data, Address(host, port, token))
