"""`python -m verydeep` is the command `verydeep`."""

from verydeep.cli.main import run

run()
