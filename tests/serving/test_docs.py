"""The commands of docs/serving.md are run as they stand, but for the port."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.serving.conftest import Running, jpeg, random_picture

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def described(start: Callable[..., Running], folder: Path) -> Running:
    (folder / "runs" / "A").mkdir(parents=True)
    shutil.copy(folder / "a.safetensors", folder / "runs" / "A" / "best.safetensors")
    return start(str(folder / "runs" / "A"), "--localizer", str(folder / "boxes.safetensors"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(described: Running, tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(random_picture(rng)))
    lines = "".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)).splitlines()
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line.replace(":8000", f":{described.port}"))
        done = subprocess.run([*words, "-sS", "--fail"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (line, done.stderr)
        assert "heatmap" in line or '"A"' in done.stdout
    assert (tmp_path / "heatmap.png").read_bytes()[:4] == b"\x89PNG"


def test_tritons_client(described: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(jpeg(random_picture(np.random.default_rng(0))))
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code.replace(":8000", f":{described.port}"), "docs/serving.md", "exec"), {})


def test_every_status_is_in_the_table() -> None:
    source = Path(__file__).resolve().parents[2] / "src" / "verydeep" / "serving"
    code = "".join(file.read_text(encoding="utf-8") for file in source.glob("*.py"))
    for status in set(re.findall(r"RefusedError\((\d{3})", code)):
        assert re.search(rf"^\| [\d, ]*{status}", TEXT, re.MULTILINE), status
