"""A network behind HTTP, with the bare engine and with other projects' servers around the same network."""

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.serving_peers import SERVER, WEIGHTS, central, is_installed
from verydeep.basics.errors import UserError, WorkError
from verydeep.basics.machine import describe_machine
from verydeep.nets.families import create
from verydeep.nets.weights import save

TARGET = 0.9
"""Share of the bare engine's throughput that the service should reach."""
PEERS = ("litserve", "bentoml")
_STARTS = 180.0
_ALIKE = 1e-3


@dataclass(frozen=True)
class Load:
    """What clients do: `clients` at a time, `requests` in all, in each of `repeats` rounds."""

    clients: int
    requests: int
    repeats: int


def run(net: str = "D", clients: int = 32, requests: int = 64, repeats: int = 5, width: float = 1.0) -> dict[str, Any]:
    """Ask each server for the classes of JPEG files, in turn, and run the engine on the same pictures in memory.

    All look at the central crop at 8/7 of the network's side. The bare engine begins with prepared pictures, and runs
    them in the batches that it would choose. LitServe and BentoML run the network by torch, as their users would, with
    batches of up to 16 and the same wait, and decode and rescale by the same functions.

    Parameters
    ----------
    net : str
        Configuration; its weights are random.
    clients : int
        That ask at the same time, each its next request when the last is answered.
    requests : int
        In each round.
    repeats : int
        Rounds of each way; medians are reported.
    width : float
        Factor on the network's channels; 1 is the paper's.

    Returns
    -------
    dict
        ``rows``: for each way pictures a second, milliseconds to the answer (p50, p99), and ``ratio`` to the bare
        engine; ``missing`` servers; ``machine``.

    Raises
    ------
    UserError
        Counts that make no benchmark.
    WorkError
        A server does not start, or answers otherwise than the engine.
    """
    if min(clients, requests, repeats) < 1:
        raise UserError(f"clients {clients}, requests {requests}, repeats {repeats}: at least one of each is needed")
    load = Load(clients, requests, repeats)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "net.safetensors"
        size = {"width": width, "fc_width": max(1, round(4096 * width))}
        save(create(net, initialization="he", seed=0, **size).eval(), weights)  # type: ignore[arg-type]
        files = _files()
        bare = Bare(weights, files)
        servers = ("verydeep", *(peer for peer in PEERS if is_installed(peer)))
        times: dict[str, list[tuple[float, list[float]]]] = {"bare engine": [], **{name: [] for name in servers}}
        with ExitStack() as running:  # all of them all the time, so that short rounds of each follow one another
            asks = {name: running.enter_context(_server(name, weights, Path(folder))) for name in servers}
            for number in range(repeats + 1):
                found = {"bare engine": bare.round(load)}
                found |= {name: _round(ask, files, bare.best, load) for name, ask in asks.items()}
                for name, measured in found.items() if number else ():  # the first round warms up
                    times[name].append(measured)
    rows = _rows(times, load)
    missing = {peer: "not installed (pip install " + peer + ")" for peer in PEERS if peer not in servers}
    about = {"net": net, "width": width, "clients": clients, "requests": requests, "repeats": repeats}
    versions = {peer: metadata.version(peer) for peer in PEERS if peer in servers}
    return {**about, "target": TARGET, "rows": rows, "missing": missing, "machine": describe_machine() | versions}


def text(result: dict[str, Any]) -> str:
    """Return what `run` measured, for people."""
    lines = [
        f"{result['net']}, width {result['width']}, {result['clients']} clients, "
        f"{result['requests']} requests a round, median of {result['repeats']}",
        f"{'':14}{'images/s':>10}{'ratio':>8}{'p50 ms':>10}{'p99 ms':>10}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['server']:14}{row['images_per_second']:10.2f}{row['ratio']:8.2f}{row['p50']:10.0f}{row['p99']:10.0f}"
        )
    missing = [f"not measured: {name}: {reason}" for name, reason in result["missing"].items()]
    return "\n".join([*lines, f"ratio: to the bare engine's images a second; target {result['target']}", *missing])


def _files(count: int = 16) -> list[bytes]:
    """Return JPEG files of 500 x 375 pixels, cut from two photographs."""
    found = []
    for index in range(count):
        photograph = load_sample_images().images[index % 2]
        file = io.BytesIO()
        Image.fromarray(photograph[4 * index : 4 * index + 375, 8 * index : 8 * index + 500]).save(file, "JPEG")
        found.append(file.getvalue())
    return found


class Bare:
    """The engine with nothing around it: pictures in memory, batches that it chooses."""

    def __init__(self, weights: Path, files: list[bytes]) -> None:
        self.predictor = central(weights)
        self.prepared = [self.predictor.prepare(file) for file in files]
        self.best = [self.predictor(file).top[0] for file in files]

    def round(self, load: Load) -> tuple[float, list[float]]:
        """Return the seconds of a round, and those of its batches."""
        size = min(load.clients, self.predictor.pictures_at_once(self.prepared[0]))
        waits = []
        for start in range(0, load.requests, size):
            batch = [self.prepared[i % len(self.prepared)] for i in range(start, min(start + size, load.requests))]
            begin = time.perf_counter()
            self.predictor.predictions(batch, [""] * len(batch))
            waits.append(time.perf_counter() - begin)
        return sum(waits), waits


Ask = Callable[[bytes], tuple[str, float]]
"""Sends a picture to a server; returns the most probable class and its posterior."""


def _round(ask: Ask, files: list[bytes], best: list[tuple[str, float]], load: Load) -> tuple[float, list[float]]:
    def one(index: int) -> float:
        begin = time.perf_counter()
        try:
            label, value = ask(files[index % len(files)])
        except ValueError as error:
            raise WorkError(f"a server under load: {error}") from None
        seconds = time.perf_counter() - begin
        expected = best[index % len(best)]
        if label != expected[0] or abs(value - expected[1]) > _ALIKE:
            raise WorkError(
                f"a server says {label} ({value:.4f}) where the engine says {expected[0]} ({expected[1]:.4f})"
            )
        return seconds

    with ThreadPoolExecutor(load.clients) as pool:
        begin = time.perf_counter()
        waits = list(pool.map(one, range(load.requests)))
        return time.perf_counter() - begin, waits


def _rows(times: dict[str, list[tuple[float, list[float]]]], load: Load) -> list[dict[str, Any]]:
    rate = {name: load.requests / median(seconds for seconds, _ in rounds) for name, rounds in times.items()}
    return [
        {
            "server": name,
            "images_per_second": rate[name],
            "ratio": rate[name] / rate["bare engine"],
            "p50": 1e3 * float(np.percentile([wait for _, waits in rounds for wait in waits], 50)),
            "p99": 1e3 * float(np.percentile([wait for _, waits in rounds for wait in waits], 99)),
        }
        for name, rounds in times.items()
    ]


@contextmanager
def _server(name: str, weights: Path, folder: Path) -> Iterator[Ask]:
    """Start a server in processes of its own, wait until it answers, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = [sys.executable, "-m"]
    words = {
        "verydeep": ["verydeep", "serve", str(weights), "--protocol", str(central(weights).protocol), "--port"],
        "litserve": ["benchmarks.serving_peers"],
        "bentoml": ["bentoml", "serve", "benchmarks.serving_peers:Bento", "--host", "127.0.0.1", "--port"],
    }[name]
    own = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(folder / "bentoml"), WEIGHTS: str(weights), SERVER: name}
    environment = {**os.environ, **own}
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*python, *words, str(port)], stdout=out, stderr=out, env=environment, start_new_session=True
        )
    ask = _asker(name, port)
    try:
        for _ in range(int(_STARTS / 0.2)):
            if process.poll() is not None:
                break
            try:
                ask(_files(1)[0])
            except ValueError:
                time.sleep(0.2)
            else:
                break
        else:
            raise WorkError(f"{name} does not answer")
        if process.poll() is not None:
            said = " ".join(log.read_text(errors="replace").split())[-500:]
            raise WorkError(f"{name} does not start: {said}")
        yield ask
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and the processes it started, which are a group of their own."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _asker(name: str, port: int) -> Ask:
    local = threading.local()
    path = "/models/net/classify?top=1" if name == "verydeep" else "/classify"

    def ask(file: bytes) -> tuple[str, float]:
        body, kind = file, "application/octet-stream"
        if name != "verydeep":  # the others gather batches of what came as JSON
            word = base64.b64encode(file).decode()
            body = json.dumps({"files": [word]} if name == "bentoml" else {"file": word}).encode()
            kind = "application/json"
        connection: http.client.HTTPConnection | None = getattr(local, "connection", None)
        for kept in (connection, None):  # a server may have closed one that was idle
            if kept is None:
                local.connection = kept = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            try:
                kept.request("POST", path, body, {"Content-Type": kind})
                answer = kept.getresponse()
                said = answer.read().decode()
                break
            except (OSError, http.client.HTTPException):
                kept.close()
                local.connection = None
        else:
            raise ValueError("no answer")
        found = re.search(r'"class": ?"([^"]*)", ?"posterior": ?([0-9.e-]+)', said)
        if answer.status != 200 or not found:
            raise ValueError(f"{answer.status}: {said:.200}")
        return found[1], float(found[2])

    return ask
