"""The frame of the command line: start-up time, help, and how errors come out."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from verydeep.cli.main import COMMANDS, GROUPS, app


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "verydeep", *words], capture_output=True, text=True)


@pytest.mark.parametrize("name", [name for name, _ in (*COMMANDS, *GROUPS)])
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("name", ["", *(name for name, _ in (*COMMANDS, *GROUPS))])
def test_help_shows_an_example(name: str) -> None:
    text = " ".join(CliRunner().invoke(app, [*name.split(), "--help"]).output.split())
    assert f"Example: verydeep {name} ".replace("  ", " ") in text


def test_a_wrong_request_is_one_line_and_status_2() -> None:
    done = run("describe", "VGG16")
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"verydeep: error: no configuration 'VGG16'.*\n", done.stderr)
    assert run("describe", "D", "--image-size", "ten").returncode == 2
    for words, said in (
        (["nonsense"], "No such command"),
        (["train", "--net", "A"], "Missing option"),
        (["train", "--net", "A", "--data", "scenes", "--out", "r", "--workers", "-3"], "--workers"),
    ):
        done = run(*words)
        assert done.returncode == 2
        assert re.fullmatch(rf"verydeep: error: .*{said}.* \(see .*verydeep.*--help\)\n", done.stderr)
    assert run().returncode == 2


def test_debug_shows_the_traceback() -> None:
    done = run("--debug", "describe", "VGG16")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_starting_up_imports_nothing_heavy() -> None:
    code = (
        "import sys, verydeep, verydeep.cli.main\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'matplotlib', 'sklearn', 'PIL', 'cv2', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_version() -> None:
    from verydeep import __version__

    assert run("--version").stdout == f"verydeep {__version__}\n"
