import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer

HOLD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from verydeep.basics.lock import sole_writer
    with sole_writer(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
    """
)


def test_a_folder_has_one_writer_who_is_named_and_whose_death_frees_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {other.pid} on .* is at work in it"), sole_writer(folder):
            pass
        assert (folder / ".lock").exists(), "who is refused takes nothing away"
        os.kill(other.pid, signal.SIGKILL)
    with sole_writer(folder):
        (folder / "kept").write_text("x")
    assert [file.name for file in folder.iterdir()] == ["kept"]


def test_a_request_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), sole_writer(tmp_path / "out"):
        raise ValueError("wrong")
    assert not (tmp_path / "out").exists()


def _count(folder: Path, times: int) -> None:
    for _ in range(times):
        while True:
            try:
                with sole_writer(folder):
                    number = folder / "number"
                    number.write_text(str(int(number.read_text()) + 1))
                    break
            except UserError:
                pass


def test_no_two_processes_ever_hold_it_together(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(tmp_path, 200)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert (tmp_path / "number").read_text() == "600"


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_what_cannot_be_written_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("")
    elif os.geteuid() == 0:
        path = Path("/proc/verydeep")
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"), sole_writer(path):
        pass
