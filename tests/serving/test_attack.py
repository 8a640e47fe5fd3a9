"""What strangers do to a service: too much, garbage, slowly, and then they go."""

import io
import json
import os
import signal
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from tests.serving.conftest import CLASSES, Running, jpeg, network, random_picture, rounding
from tests.serving.storm import Storm

MEMORY = 256 * 2**20
LIMIT = MEMORY // 4 // 8  # of one body


@pytest.fixture(scope="module")
def one(start: Callable[..., Running], folder: Path) -> Running:
    """A service of one network."""
    return start(str(folder / "a.safetensors"), "--memory", "256MiB")


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few kilobytes that says it has so many pixels, and one line of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(3 * width + 1))) + chunk(b"IEND", b"")


def is_one_line(answer: Any) -> bool:
    return list(answer) == ["error"] and "\n" not in answer["error"] and "Traceback" not in answer["error"]


def test_uploads_over_the_limit(one: Running) -> None:
    for size in (LIMIT + 1, 2 * LIMIT):
        status, answer = one.post("/models/a/classify", bytes(size))
        assert (status, is_one_line(answer)) == (413, True)
    status, answer = one.post("/models/a/classify", iter([bytes(2**20)] * (LIMIT // 2**20 + 1)))  # chunked: no length
    assert (status, is_one_line(answer)) == (413, True)
    status, answer = one.post("/models/a/classify", bytes(LIMIT))
    assert status == 422  # no picture, but not too long


def test_bombs_and_garbage(one: Running, rng: np.random.Generator) -> None:
    whole = jpeg(random_picture(rng))
    bodies = [
        bomb(50_000, 50_000),
        bomb(2**31 - 1, 1),
        bomb(1, 2**31 - 1),
        bomb(2_000_000, 3),
        b"",
        b"GIF89a",
        b"\0" * 99,
    ]
    bodies += [whole[:2], whole[: len(whole) // 3], rng.integers(0, 256, 10_000, dtype=np.uint8).tobytes()]
    for _ in range(12):
        damaged = bytearray(whole)
        for place in rng.integers(0, 300, 8):
            damaged[place] = int(rng.integers(256))
        bodies.append(bytes(damaged))
    before = one.resident()
    for body in bodies:
        for path in ("classify", "descriptor"):
            status, content, _ = one.request("POST", f"/models/a/{path}", body)
            assert status in (200, 422)  # a few changed bytes may leave a picture
            assert status == 200 or is_one_line(json.loads(content))
    assert [one.post("/models/a/classify", body)[0] for body in bodies[:10]] == [422] * 10
    assert one.resident() - before < MEMORY


def test_what_is_no_http(one: Running) -> None:
    for text in (
        b"\x16\x03\x01\x02\0\x01",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"A" * 100_000,
    ):
        with socket.create_connection(("127.0.0.1", one.port), 30) as client:
            try:
                client.sendall(text + b"\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            except ConnectionError:  # closed while this was still sending
                continue
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b" 400 " in head
            assert is_one_line(json.loads(body))
    assert one.request("GET", "/healthz")[0] == 200


def test_paths_and_addresses_in_requests_are_bytes_like_any(one: Running, folder: Path) -> None:
    for text in (str(folder / "a.safetensors"), "file:///etc/passwd", f"http://127.0.0.1:{one.port}/healthz"):
        status, answer = one.post("/models/a/classify", text.encode())
        assert (status, "not an image" in answer["error"]) == (422, True)
        assert one.request("POST", f"/models/{text.replace('/', '%2F')}/classify", b"x")[0] == 404
    assert one.request("GET", "/models/../../etc/passwd")[0] == 404


def test_600_connections_at_once(one: Running, folder: Path, rng: np.random.Generator) -> None:
    """More than are let in: what is refused is told so and asks again. `python -m tests.serving.storm` does more."""
    files = [jpeg(random_picture(rng)) for _ in range(8)]
    weights = folder / "a.safetensors"
    expected = [p.posterior for p in vd.predict(weights, files)]
    done = Storm(one.port, "a", files, expected, rounding(weights, files)).run(connections=600, answers=800)
    assert (done["right"], done["wrong"], done["lost"]) == (800, 0, 0)
    assert set(done) <= {"right", "wrong", "lost", "refused 429", "refused 503", "not let in"}


def fits(answer: Any, posterior: Any, apart: float) -> bool:
    given = {one["class"]: one["posterior"] for one in answer["top"]}
    return np.allclose([given[name] for name in CLASSES], posterior, rtol=0, atol=apart)


def test_clients_that_vanish_or_dawdle(one: Running, rng: np.random.Generator) -> None:
    file = jpeg(random_picture(rng))
    head = f"POST /models/a/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(file)}\r\n\r\n".encode()
    slow = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(100)]
    for place, client in enumerate(slow):  # the headers in part, the headers, a part of the body
        client.sendall((head + file)[: (10, len(head), len(head) + 100)[place % 3]])
    for _ in range(50):  # all, and gone before the answer
        with socket.create_connection(("127.0.0.1", one.port)) as client:
            client.sendall(head + file)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert one.post("/models/a/classify", file)[0] == 200
    slow[1].sendall(file)
    assert b" 200 OK" in slow[1].recv(4096)
    for client in slow:
        client.close()
    for _ in range(100):
        text = one.request("GET", "/metrics")[1].decode()
        if "verydeep_requests_in_work 0" in text and "verydeep_held_bytes 0" in text:
            return
        time.sleep(0.1)
    raise AssertionError(text)


def test_every_answer_is_its_pictures_while_weights_change(
    start: Callable[..., Running], tmp_path: Path, rng: np.random.Generator
) -> None:
    """2,000 requests by 16 clients; the weights file is replaced, damaged, and replaced again meanwhile."""
    path = tmp_path / "changing.safetensors"
    nets = [network(seed) for seed in (11, 12, 13)]
    vd.save(nets[0], path)
    service = start(str(path), "--memory", "256MiB")
    sizes = ((80, 100), (100, 80), (90, 90), (64, 120))
    files = [jpeg(random_picture(rng, *sizes[k % 4])) for k in range(40)]
    expected: dict[str, list[Any]] = {}
    apart = 0.0
    for number, net in enumerate(nets):
        copy = tmp_path / f"{number}.safetensors"
        vd.save(net, copy)
        expected[vd.nets.weights.weights_hash(copy)[:16]] = [p.posterior for p in vd.predict(copy, files)]
        apart = max(apart, rounding(copy, files))
    seen: Counter[str] = Counter()
    progress = threading.Semaphore(0)

    def ask(client: int) -> int:
        connection, right = service.connection(), 0
        for turn in range(125):
            which = (client * 125 + turn * 7) % len(files)
            connection.request("POST", "/models/changing/classify?top=8", files[which])
            answer = connection.getresponse()
            content = json.loads(answer.read())
            assert answer.status == 200, content
            right += fits(content, expected[content["weights"]][which], apart)
            seen[content["weights"]] += 1
            progress.release()
            time.sleep(0.02)
        connection.close()
        return right

    def change() -> None:
        for _ in range(300):
            progress.acquire()
        vd.save(nets[1], path)
        wait_for(service, "loaded anew", 1)
        path.write_bytes(path.read_bytes()[:-5000])
        wait_for(service, "kept as it was", 1)
        vd.save(nets[2], path)
        wait_for(service, "loaded anew", 2)

    with ThreadPoolExecutor(17) as pool:
        changing = pool.submit(change)
        assert sum(pool.map(ask, range(16))) == 2000
        changing.result()
    status, answer = service.post("/models/changing/classify?top=8", files[0])
    assert status == 200
    assert fits(answer, expected[list(expected)[2]][0], apart)
    assert seen[next(iter(expected))] >= 300
    assert len(seen) >= 2
    text = service.request("GET", "/metrics")[1].decode()
    assert 'verydeep_reloads_total{model="changing",taken="true"} 2' in text
    assert 'verydeep_reloads_total{model="changing",taken="false"} 1' in text


def wait_for(service: Running, words: str, times: int) -> None:
    for _ in range(600):
        if service.said.count(words) >= times:
            return
        time.sleep(0.1)
    raise AssertionError(service.said)


def test_sigterm_finishes_what_was_accepted(
    start: Callable[..., Running], folder: Path, rng: np.random.Generator
) -> None:
    service = start(str(folder / "a.safetensors"), "--memory", "512MiB", "--wait", "2s")
    file = jpeg(random_picture(rng))
    unfinished = socket.create_connection(("127.0.0.1", service.port))
    unfinished.sendall(b"POST /models/a/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\nhalf")
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(service.post, "/models/a/classify", file) for _ in range(20)]
        for _ in range(200):
            if "verydeep_requests_in_work 21" in service.request("GET", "/metrics")[1].decode():
                break
            time.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert [answer.result()[0] for answer in answers] == [200] * 20
    unfinished.sendall(bytes(1996))
    answer = b"".join(iter(lambda: unfinished.recv(4096), b""))
    assert b" 503 " in answer
    assert is_one_line(json.loads(answer.partition(b"\r\n\r\n")[2]))
    assert service.stop() == 0
    with pytest.raises(ConnectionError):
        service.post("/models/a/classify", file)
    assert "Traceback" not in service.said


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="resident memory is read from /proc")  # noqa: PTH112
def test_memory_is_what_was_stated(start: Callable[..., Running], folder: Path, rng: np.random.Generator) -> None:
    """Large pictures, long bodies and bombs from 64 clients at once, and all that they hold."""
    service = start(str(folder / "a.safetensors"), "--memory", "256MiB")
    before = service.resident()
    large = [jpeg(random_picture(rng, *size)) for size in ((2500, 3000), (1500, 2500), (600, 4000))]
    file = io.BytesIO()
    Image.new("L", (2800, 2800)).save(file, "PNG")
    bodies = [*large, file.getvalue(), bomb(40_000, 40_000), bytes(LIMIT), bytes(2 * LIMIT)]
    ends: Counter[int] = Counter()

    def ask(turn: int) -> None:
        path = ("classify", "heatmap", "descriptor?scale=300", "classify")[turn % 4]
        ends[service.request("POST", f"/models/a/{path}", bodies[turn % len(bodies)])[0]] += 1

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(ask, range(224)))
    assert set(ends) <= {200, 413, 422, 429}
    assert min(ends[200], ends[413], ends[422]) > 0
    assert service.resident(peak=True) - before < MEMORY
    assert "Traceback" not in service.said
