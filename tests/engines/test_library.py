"""Without a compiler the package works, and says what is missing."""

import subprocess
import sys

import pytest

from verydeep.basics.errors import UserError
from verydeep.engines import library

pytestmark = pytest.mark.needs_no_library


@pytest.fixture
def missing(monkeypatch):
    monkeypatch.setattr(library, "find", lambda: None)


def test_it_was_built_here_if_a_compiler_is():
    from shutil import which

    assert (library.find() is not None) == (which("c++") is not None or which("g++") is not None)


def test_what_is_missing_is_said_in_one_line(missing):
    with pytest.raises(UserError, match="install a C\\+\\+ compiler") as caught:
        library.load()
    assert "\n" not in str(caught.value)


def test_auto_is_torch_then(missing):
    import torch

    from verydeep.inference.runtime import pick_engine

    assert pick_engine("auto", torch.device("cpu")) == "torch"
    with pytest.raises(UserError, match="was not built"):
        pick_engine("native", torch.device("cpu"))


def test_importing_the_package_does_not_load_it():
    code = "import sys, verydeep; sys.exit('verydeep.engines.library' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
