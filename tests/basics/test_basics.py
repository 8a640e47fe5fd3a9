import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.basics.device import pick_device
from verydeep.basics.errors import BadImageError, UserError
from verydeep.basics.files import claim, file_hash, write_aside, write_text
from verydeep.basics.machine import describe_machine
from verydeep.basics.progress import track
from verydeep.basics.rng import generator

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="this kernel gives no huge pages")
def test_tensors_memory_is_kept_in_huge_pages() -> None:
    program = (
        "from pathlib import Path; from verydeep.basics.memory import keep_memory, resident; keep_memory();"
        "import torch; x = torch.ones(2**24);"
        "lines = Path('/proc/self/smaps').read_text().splitlines();"
        "print(sum(int(line.split()[1]) for line in lines if line.startswith('AnonHugePages')));"
        "before = resident(); del x; print(before - resident())"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "THP_"))}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    kibibytes, given_back = map(int, ran.stdout.split())
    assert kibibytes > 2**24 * 4 / 1024 / 2
    assert given_back < 2**20


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        _write_half(path)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def _write_half(path: Path) -> None:
    with write_aside(path) as aside:
        aside.write_text("half")
        raise ZeroDivisionError


def test_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_belongs_to_what_claimed_it_first(tmp_path: Path) -> None:
    folder, one = tmp_path / "deep" / "own", {"seed": 1, "data": {"name": "a", "sizes": [1, 2]}}
    claim(folder, one, "thing.toml", "thing", look_only=True)
    assert not folder.exists()
    claim(folder, one, "thing.toml", "thing")
    before = (folder / "thing.toml").read_bytes()
    claim(folder, one, "thing.toml", "thing")
    for other, words in (
        ({**one, "seed": 2}, "holds another thing (seed is 1 there, 2 here)"),
        ({**one, "data": {"name": "a", "sizes": [1]}}, "(data.sizes is [1, 2] there, [1] here)"),
        ({"seed": 1}, "(data is {'name': 'a', 'sizes': [1, 2]} there, None here)"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            claim(folder, other, "thing.toml", "thing")
    claim(folder, {**one, "seed": 2}, "thing.toml", "thing", difference=lambda there, here: "")
    assert (folder / "thing.toml").read_bytes() == before
    (folder / "thing.toml").write_text("seed = ")
    with pytest.raises(UserError, match=r"thing\.toml: not valid TOML"):
        claim(folder, one, "thing.toml", "thing")


def test_a_folder_that_holds_something_else_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(UserError, match="is there already and holds no thing"):
        claim(tmp_path, {}, "thing.toml", "thing")
    with pytest.raises(UserError, match="is no folder"):
        claim(tmp_path / "thesis.doc", {}, "thing.toml", "thing")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]
    claim(tmp_path, {}, "thing.toml", "thing", taken_over="thesis.doc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.doc", "thing.toml"]


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**31), max_size=4), st.lists(st.integers(0, 2**31), max_size=4))
def test_chance_depends_on_all_of_its_key_and_nothing_else(seed: int, a: list[int], b: list[int]) -> None:
    first, second = (generator(seed, *key).integers(2**62, size=4) for key in (a, b))
    assert (a == b) == bool(np.array_equal(first, second))


def test_trailing_zeros_are_part_of_the_key() -> None:
    assert generator(1, 2).integers(2**62) != generator(1, 2, 0).integers(2**62)


def test_bad_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BadImageError("a/b.jpg", "truncated")))
    assert (str(error), error.name, error.reason) == ("a/b.jpg: truncated", "a/b.jpg", "truncated")
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)


def test_progress_passes_everything_through_and_is_silent_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(track(iter("abc"), 3, "letters", patience=0)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_progress_draws_on_a_terminal() -> None:
    import os
    import pty

    code = (
        "import time\nfrom verydeep.basics.progress import track\n"
        "for _ in track(range(5), 5, 'counting', 'sheep', patience=0): time.sleep(0.1)"
    )
    leader, follower = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", code], stderr=follower, stdout=subprocess.PIPE)
    os.close(follower)
    drawn = b""
    try:
        while part := os.read(leader, 4096):
            drawn += part
    except OSError:  # Linux says so when the other end is closed
        pass
    assert done.wait() == 0
    assert b"counting" in drawn
    assert b"sheep" in drawn
    assert done.stdout is not None
    assert done.stdout.read() == b""


def test_unknown_device_is_named() -> None:
    with pytest.raises(UserError, match=r"device 'cuda:99'|device 'gpu' is not available here; usable: auto"):
        pick_device("gpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


def test_machine_is_json_and_names_no_host() -> None:
    import socket

    text = json.dumps(describe_machine())
    assert "torch" in text
    if len(socket.gethostname()) > 9:  # short names ("localhost") may be part of other words
        assert socket.gethostname() not in text
