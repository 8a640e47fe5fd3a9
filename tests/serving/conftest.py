"""Small networks, and a service that runs them in a process of its own."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import verydeep as vd
from tests.conftest import SEED
from tests.serving.browser import browser as browser  # a fixture for the whole folder

pytest.importorskip("fastapi", reason="fastapi is not installed (make test installs it)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (make test installs it)")

CLASSES = tuple("abcdefgh")
SHAPE = {"width": 1 / 16, "image_size": 64, "fc_width": 24}
ENGINE_ERROR = 5e-6
"""Of a layer's values, relative to their norm: the greatest that docs/engine.md and tests/engines know in float32."""


def network(seed: int, **more: Any) -> vd.VGG:
    """A network whose answers differ from picture to picture."""
    net = vd.create("A", CLASSES, **SHAPE, seed=seed, initialization="he", **more).eval()
    noise = np.random.default_rng(seed).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    import torch

    with torch.inference_mode():
        scores = net(net.preprocessing(torch.from_numpy(noise)))
        factor = (0.2 if more else 2.0) / float(scores.std(dim=0).mean())
        net.fc8.weight *= factor
        if not more:  # without what all pictures have in common, no class is certain
            net.fc8.bias.copy_(-factor * scores.mean(dim=0))
    return net


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def random_picture(rng: np.random.Generator, height: int = 80, width: int = 100) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(10, 0).repeat(10, 1)[:height, :width])


def rounding(weights: Path, files: Sequence[bytes | NDArray[np.uint8]]) -> float:
    """Return how far two right posteriors of a picture may be apart.

    Another batch size or processor sums float32 in another order. Each of two computations is ENGINE_ERROR of the
    norm of the scores (before their bias, which cancels some) from the truth, so scores differ by twice that; and no
    posterior changes by more than half of the greatest change of a score, for its derivatives are p (1 - p) and -p q.
    """
    import torch

    net = vd.load(weights)
    largest = 0.0
    for file in files:
        pixels = np.array(Image.open(io.BytesIO(file))) if isinstance(file, bytes) else file
        with torch.inference_mode():
            scores = net(net.preprocessing(torch.from_numpy(pixels)[None]))
            largest = max(largest, float((scores - net.fc8.bias).norm()))
    return ENGINE_ERROR * largest


class Running:
    """`verydeep serve` in a process of its own."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.log = folder / f"log-{time.monotonic_ns()}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "verydeep", "serve", *words, "--port", "0"], stderr=log, env=environment
            )
        self.port = 0
        for _ in range(1200):
            assert self.process.poll() is None, self.said
            if found := re.search(r"serving .* at http://127\.0\.0\.1:(\d+) ", self.said):
                self.port = int(found[1])
                if self._is_ready():
                    return
            time.sleep(0.05)
        raise AssertionError(self.said)

    def _is_ready(self) -> bool:
        try:
            return self.request("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def connection(self, timeout: float = 120) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = self.connection()
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        status, text, _ = self.request("POST", path, body, given)
        return status, json.loads(text)

    def resident(self, peak: bool = False) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", text)
        assert found
        return 1024 * int(found[1])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights files: a, b, boxes (fits a), trunk."""
    path = tmp_path_factory.mktemp("weights")
    for name, seed, more in (("a", SEED % 2**31, {}), ("b", SEED % 2**31 + 1, {}), ("boxes", 5, {"regression": "pcr"})):
        vd.save(network(seed, **more), path / f"{name}.safetensors")
    vd.save(vd.create("A", 0, width=1 / 16, image_size=64, trunk="pool5", seed=3).eval(), path / "trunk.safetensors")
    return path


@pytest.fixture(scope="module")
def start(folder: Path) -> Iterator[Callable[..., Running]]:
    """Start services with words of the command; they end with the tests of a file."""
    running: list[Running] = []

    def begin(*words: str) -> Running:
        running.append(Running([*words], folder))
        return running[-1]

    yield begin
    for service in running:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait(60)


@pytest.fixture(scope="module")
def service(start: Callable[..., Running], folder: Path) -> Running:
    """A service of a with boxes, b and a trunk."""
    weights = [str(folder / f"{name}.safetensors") for name in ("a", "b", "trunk")]
    return start(*weights, "--localizer", str(folder / "boxes.safetensors"), "--memory", "256MiB")
