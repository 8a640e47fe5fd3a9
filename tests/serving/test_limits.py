"""The limits one by one, in this process: tokens, a full queue, a service that stops, deadlines, batches."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import pytest

from verydeep.basics.errors import UserError
from verydeep.inference.runtime import Runtime
from verydeep.serving import batching, connections, guard
from verydeep.serving.batching import Batcher
from verydeep.serving.guard import Guard
from verydeep.serving.metrics import Metrics
from verydeep.serving.models import name_of
from verydeep.serving.refusal import RefusedError
from verydeep.serving.serve import Address, _bound, _Server, parse_wait, serve


class Echo:
    """An application that answers with the body's length, when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.cancelled = 0
        self.chunk = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.chunk or json.dumps(size).encode()})


class Client:
    """One request by hand."""

    def __init__(self, body: Sequence[bytes] = (b"",), method: str = "POST", **headers: str) -> None:
        self.messages: list[Any] = []
        self.parts = list(body)
        self.gone = asyncio.Event()
        given = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        self.scope = {"type": "http", "method": method, "path": "/x", "headers": given}

    async def receive(self) -> Any:
        if self.parts:
            part = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def error(self) -> str:
        (key, text), *more = json.loads(self.messages[1]["body"]).items()
        assert (key, more) == ("error", [])
        return str(text)


def asked(guarded: Guard, *clients: Client) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(guarded(client.scope, client.receive, client.send) for client in clients))

    asyncio.run(all_of_them())


def test_a_token_is_asked_for_everywhere_but_where_balancers_look() -> None:
    guarded = Guard(Echo(), 2**20, "secret", Metrics())
    clients = [
        Client(),
        Client(authorization="Bearer wrong"),
        Client(authorization="Bearer secret"),
        Client(method="GET"),
    ]
    healthy = Client(method="GET")
    healthy.scope["path"] = "/healthz"
    asked(guarded, *clients, healthy)
    assert [client.status for client in (*clients, healthy)] == [401, 401, 200, 401, 200]
    assert "Bearer" in clients[0].error


def test_too_long_by_header_and_by_what_comes() -> None:
    guarded = Guard(Echo(), 8000, None, Metrics())
    clients = [Client(content_length="1001"), Client([b"x" * 600] * 2), Client([b"x" * 1000])]
    for client in clients:
        asked(guarded, client)
    assert [client.status for client in clients] == [413, 413, 200]
    assert guarded.held == guarded.working == 0


def test_a_full_queue_and_full_memory() -> None:
    async def run() -> None:
        app = Echo()
        guarded = Guard(app, 8000, None, Metrics())
        app.may.clear()
        first = [Client([b"x" * 800]) for _ in range(5)]
        held = [asyncio.ensure_future(guarded(c.scope, c.receive, c.send)) for c in first]
        await asyncio.sleep(0.05)
        assert guarded.held == 8000
        late = Client([b"x"])
        await guarded(late.scope, late.receive, late.send)
        assert (late.status, "memory" in late.error) == (429, True)
        empty = [Client() for _ in range(batching.QUEUE - 5)]
        held += [asyncio.ensure_future(guarded(c.scope, c.receive, c.send)) for c in empty]
        await asyncio.sleep(0.05)
        late = Client()
        await guarded(late.scope, late.receive, late.send)
        assert (late.status, str(batching.QUEUE) in late.error) == (429, True)
        app.may.set()
        await asyncio.gather(*held)
        assert {client.status for client in (*first, *empty)} == {200}
        assert guarded.held == guarded.working == 0

    asyncio.run(run())


def test_stopping() -> None:
    guarded = Guard(Echo(), 2**20, None, Metrics())
    guarded.stopping = True
    client, look = Client(), Client(method="GET")
    asked(guarded, client, look)
    assert (client.status, look.status, client.error) == (503, 200, "the service is stopping")


def test_who_goes_is_not_worked_for() -> None:
    async def run() -> None:
        app = Echo()
        app.may.clear()
        guarded = Guard(app, 2**20, None, Metrics())
        client = Client([b"x"])
        work = asyncio.ensure_future(guarded(client.scope, client.receive, client.send))
        await asyncio.sleep(0.02)
        client.gone.set()
        await work
        assert (app.cancelled, client.messages, guarded.held, guarded.working) == (1, [], 0, 0)

    asyncio.run(run())


def test_a_fault_of_ours_is_one_line_outside(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a secret place")

    client = Client()
    asked(Guard(app, 2**20, None, Metrics()), client)
    assert (client.status, "secret" in client.error) == (500, False)
    assert "a secret place" in caplog.text


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Echo, Guard]]:
    """A server with deadlines of 0.4 seconds and 20 connections at most."""
    for module in (guard, connections):
        monkeypatch.setattr(module, "WITHIN", 0.4)
    monkeypatch.setattr(connections, "MOST", 20)
    app = Echo()
    guarded = Guard(app, 2**20, None, Metrics())
    listener = _bound(Address(port=0))
    server = _Server(guarded)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1], app, guarded
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"), [(b"", b""), (HEAD[:20], b""), (HEAD, b" 408 "), (HEAD + b"x" * 50, b" 408 ")]
)
def test_slow_clients_are_not_waited_for(listening: tuple[int, Echo, Guard], sent: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", listening[0]), 20) as client:
        client.sendall(sent)
        assert status in _all(client)


def test_bytes_one_by_one_are_slow_too(listening: tuple[int, Echo, Guard]) -> None:
    with socket.create_connection(("127.0.0.1", listening[0]), 20) as client:
        for _ in range(200):
            try:
                client.sendall(b"X")
            except ConnectionError:
                return
            time.sleep(0.05)
    raise AssertionError("waited for")


def test_an_answer_that_is_not_taken(listening: tuple[int, Echo, Guard]) -> None:
    port, app, guarded = listening
    app.chunk = bytes(50_000_000)
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(HEAD + b"x" * 100)
        time.sleep(2.5)
        assert len(_all(client)) < 50_000_000
    assert guarded.working == guarded.held == 0


def test_one_connection_too_many(listening: tuple[int, Echo, Guard]) -> None:
    open_ = [socket.create_connection(("127.0.0.1", listening[0]), 20) for _ in range(20)]
    time.sleep(0.1)
    with socket.create_connection(("127.0.0.1", listening[0]), 20) as client:
        head, _, body = _all(client).partition(b"\r\n\r\n")
    assert b" 503 " in head
    assert list(json.loads(body)) == ["error"]
    for client in open_:
        client.close()


def _all(client: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: client.recv(1 << 16), b""))
    except ConnectionError:
        return b""


@dataclass(frozen=True)
class Doubled:
    """A task that doubles numbers, four at once, and fails at 13."""

    name: str = "doubled"
    batches: list[list[int]] = field(default_factory=list, hash=False, compare=False)
    may: threading.Event = field(default_factory=threading.Event, hash=False, compare=False)

    def at_once(self, prepared: int) -> int:
        return 4

    def run(self, prepared: Sequence[int]) -> list[int]:
        self.may.wait(60)
        self.batches.append(list(prepared))
        if 13 in prepared:
            raise UserError("unlucky")
        return [2 * number for number in prepared]


def test_batches_are_of_one_task_and_size_and_lose_nothing() -> None:
    task, other = Doubled(), Doubled("other")
    other.may.set()
    batcher = Batcher(0.01, Metrics())
    futures = [batcher.submit(task if n % 3 else other, [(n % 2, n)])[0] for n in range(24)]
    futures[23].cancel()
    task.may.set()
    assert [f.result(60) for f in futures[:13]] == [2 * n for n in range(13)]
    with pytest.raises(UserError, match="unlucky"):
        futures[13].result(60)
    assert [f.result(60) for f in futures[14:23]] == [2 * n for n in range(14, 23)]
    with pytest.raises(CancelledError):
        futures[23].result(60)
    for batch in (*task.batches, *other.batches):
        assert len(batch) <= 4
        assert len({n % 2 for n in batch}) == 1
    assert not any(23 in batch for batch in task.batches)
    batcher.stop()


def test_a_batch_is_full_or_waited_for_and_no_longer() -> None:
    task = Doubled()
    task.may.set()
    batcher = Batcher(0.5, Metrics())
    begin = time.monotonic()
    for future in batcher.submit(task, [(0, n) for n in range(4)]):
        future.result(60)
    assert time.monotonic() - begin < 0.4
    (alone,) = batcher.submit(task, [(0, 1)])
    alone.result(60)
    assert time.monotonic() - begin > 0.5
    assert task.batches == [[0, 1, 2, 3], [1]]
    batcher.stop()


def test_a_queue_takes_all_of_a_request_or_none() -> None:
    task = Doubled()
    batcher = Batcher(0.0, Metrics(), most=6)
    first = batcher.submit(task, [(0, n) for n in range(4)])
    while len(batcher):
        time.sleep(0.001)  # taken, and held by the task
    waiting = batcher.submit(task, [(0, n) for n in range(4)])
    with pytest.raises(RefusedError) as refused:
        batcher.submit(task, [(0, n) for n in range(3)])
    assert (refused.value.status, len(batcher)) == (429, 4)
    with pytest.raises(RefusedError) as refused:
        batcher.submit(task, [(0, n) for n in range(7)])
    assert refused.value.status == 413
    task.may.set()
    batcher.stop()  # finishes what waits
    assert [f.result(0) for f in (*first, *waiting)] == [0, 2, 4, 6] * 2


@pytest.mark.parametrize("text", ["5", "ms", "-1ms", "11s", "1h", ""])
def test_waits_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="for example 5ms"):
        parse_wait(text)


def test_requests_that_make_no_service(folder: Any) -> None:
    a, boxes, trunk = (str(folder / f"{name}.safetensors") for name in ("a", "boxes", "trunk"))
    here, enough = Address(port=0), Runtime(memory=2**28)
    for words, match in (
        (([a, a], None, None, here, enough, 0.0), "served as a, too"),
        (([boxes], None, None, here, enough, 0.0), "is a localizer"),
        (([a], a, None, here, enough, 0.0), "expected a localizer"),
        (([trunk], boxes, None, here, enough, 0.0), "is a trunk"),
        (([a], None, "dense@8", here, enough, 0.0), "too small"),
        (([a], None, "sparse@64", here, enough, 0.0), "dense@256"),
        (([a], None, None, here, Runtime(memory=2**20), 0.0), "128 MiB at least"),
        (([a], None, None, Address(port=0, token=" "), enough, 0.0), "--token"),
        (([a], None, None, Address("no.such.host.invalid", 0), enough, 0.0), "cannot listen"),
        (([str(folder / "none")], None, None, here, enough, 0.0), "no such weights file"),
    ):
        with pytest.raises(UserError, match=match):
            serve(*words)


def test_names(tmp_path: Any) -> None:
    (tmp_path / "runs" / "D").mkdir(parents=True)
    assert name_of(str(tmp_path / "runs" / "D")) == "D"
    assert name_of("a b/ü ?.safetensors") == "ü--"
