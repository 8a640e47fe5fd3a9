import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from verydeep.basics.scratch import scratch_folder

HOLD = textwrap.dedent(
    """
    import time
    from verydeep.basics.scratch import scratch_folder
    with scratch_folder("some-"):
        print("held", flush=True)
        time.sleep(60)
    """
)


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "some-others").mkdir()  # of who knows no locks
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "some-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / ".lock").touch()
    kept = {tmp_path / name for name in ("some-others", "elsewhere", "some-link")}
    command, environment = [sys.executable, "-c", HOLD], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        (theirs,) = set(tmp_path.iterdir()) - kept
        with scratch_folder("some-") as mine:
            assert set(tmp_path.iterdir()) - kept == {mine, theirs}
        os.kill(other.pid, signal.SIGKILL)
    assert theirs.is_dir()
    with scratch_folder("some-") as mine:
        (mine / "file").touch()
        assert set(tmp_path.iterdir()) - kept == {mine}
    assert set(tmp_path.iterdir()) == kept
