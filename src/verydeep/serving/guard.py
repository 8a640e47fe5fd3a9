"""Limits and deadlines before the application, and one line of JSON for whatever goes wrong."""

import asyncio
import base64
import binascii
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

from verydeep.serving.batching import QUEUE
from verydeep.serving.metrics import Metrics
from verydeep.serving.refusal import RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

WITHIN = 30.0
"""Seconds that a client may take to send its request, and to take its answer."""
OPEN = ("/healthz", "/v2/health/live", "/v2/health/ready", "/")
"""Paths that need no token: who balances load has none, and the page, like its files, asks for one."""
SERVER_LOG = logging.getLogger("uvicorn.error")


class VanishedError(Exception):
    """The client has gone."""


class Guard:
    """Lets requests through to `app` as long as there is room: `share` bytes for all that they hold together.

    A body may have an eighth of the share, and counts twice: as received, and as one piece.
    """

    def __init__(self, app: App, share: int, token: str | None, metrics: Metrics) -> None:
        self.app, self.share, self.token, self.metrics = app, share, token, metrics
        self.limit = share // 8
        self.held = self.working = 0
        self.stopping = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Exchange(self, scope, receive, send).run()
        else:
            await self.app(scope, receive, send)

    def admit(self, scope: MutableMapping[str, Any]) -> None:
        """Refuse a request by what its headers say."""
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        path = scope["path"]
        closed = path not in OPEN and not path.startswith("/page/")
        if closed and self.token is not None and not _brings(given, self.token):
            raise RefusedError(401, "a token is needed: Authorization: Bearer TOKEN")
        if scope["method"] != "POST":
            return
        if self.stopping:
            raise RefusedError(503, "the service is stopping")
        if self.working >= QUEUE:
            raise RefusedError(429, f"{self.working} requests are in work; try again")
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limit:
            raise self.too_long()

    def too_long(self) -> RefusedError:
        """Return the refusal of a body over the limit."""
        return RefusedError(413, f"the body is longer than {self.limit:,} bytes, which --memory allows")


class Exchange:
    """A request and its answer."""

    def __init__(self, guard: Guard, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        self._start = monotonic()
        self._received = self._held = self._status = 0
        self._complete = asyncio.Event()  # the body
        self._answered = False
        scope["exchange"] = self
        # What is sent in parts ends by cancellation when its client has gone: the application need not look for that.
        scope["asgi"] = {**scope.get("asgi", {}), "spec_version": "2.4"}

    def hold(self, size: int) -> None:
        """Count bytes that are held until the answer is sent, or `let_go`."""
        if self._held + size > self.guard.share:
            raise RefusedError(
                413, f"this takes more than the {self.guard.share:,} bytes that --memory allows for requests"
            )
        if self.guard.held + size > self.guard.share:
            raise RefusedError(429, "the memory for requests is taken; try again")
        self._held += size
        self.guard.held += size

    def let_go(self, but: int = 0) -> None:
        """Count nothing as held any more, but these bytes."""
        self.guard.held -= self._held - but
        self._held = but

    @property
    def held(self) -> int:
        """The bytes that are counted as held."""
        return self._held

    async def run(self) -> None:
        """Carry the request out, unless its client vanishes; whatever happens is one line outside."""
        counted = self.scope["method"] == "POST"
        try:
            self.guard.admit(self.scope)
            self.guard.working += counted
            try:
                await self._until_gone()
            finally:
                self.guard.working -= counted
        except RefusedError as refused:
            await self._refuse(refused.status, str(refused))
        except VanishedError:
            self._status = 499
        except Exception as error:
            SERVER_LOG.error("a request failed", exc_info=error)
            await self._refuse(500, "internal error; the service's log says more")
        finally:
            self.let_go()
            path = getattr(self.scope.get("route"), "path", "")
            self.guard.metrics.request(path, self._status, monotonic() - self._start)

    async def _until_gone(self) -> None:
        work = asyncio.ensure_future(self.guard.app(self.scope, self.receive, self.send))
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not self._answered:
                work.cancel()
            await work
        except asyncio.CancelledError:
            if not work.done():  # this task itself was cancelled
                work.cancel()
            raise VanishedError from None
        finally:
            gone.cancel()

    async def _gone(self) -> None:
        await self._complete.wait()
        await self._receive()  # after the body nothing comes but the end

    async def receive(self) -> Message:
        """Return the next part of the body; RefusedError where it is too long, too slow, or there is no room."""
        if self._complete.is_set():
            return {"type": "http.request", "body": b"", "more_body": False}
        try:
            left = max(0.0, self._start + WITHIN - monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            raise RefusedError(408, f"the body did not come within {WITHIN:g} seconds") from None
        if message["type"] == "http.disconnect":
            raise VanishedError
        size = len(message.get("body", b""))
        self._received += size
        if not message.get("more_body"):
            self._complete.set()
        if self._received > self.guard.limit:
            raise self.guard.too_long()
        self.hold(2 * size)
        if self._complete.is_set() and self.guard.stopping and self.scope["method"] == "POST":
            raise RefusedError(503, "the service is stopping")
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, once the body has come: a client that still sends would not read it."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            await self._drain()
        elif not message.get("more_body"):
            self._answered = True
        try:
            await asyncio.wait_for(self._send(message), WITHIN)
        except asyncio.TimeoutError:
            raise VanishedError from None

    async def _drain(self) -> None:
        """Read what is left of the body, as much again as is allowed, and forget it."""
        try:
            while not self._complete.is_set() and self._received <= 2 * self.guard.limit:
                message = await asyncio.wait_for(self._receive(), max(0.0, self._start + WITHIN - monotonic()))
                self._received += len(message.get("body", b""))
                if not message.get("more_body"):
                    self._complete.set()
        except asyncio.TimeoutError:
            return

    async def _refuse(self, status: int, message: str) -> None:
        if self._status:  # an answer was begun: there is no way to say more
            return
        await self._drain()
        body = json.dumps({"error": message}).encode() + b"\n"
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        headers += [(b"retry-after", b"1")] if status in (429, 503) else []
        headers += [] if self._complete.is_set() else [(b"connection", b"close")]
        try:
            await self.send({"type": "http.response.start", "status": status, "headers": headers})
            await self.send({"type": "http.response.body", "body": body})
        except VanishedError:
            self._status = 499


def _brings(given: bytes, token: str) -> bool:
    """Say whether a header brings the token, or has it as the password of a user, as Label Studio sends it."""
    kind, _, value = given.partition(b" ")
    if kind == b"Basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    return kind in (b"Bearer", b"Basic") and hmac.compare_digest(value, token.encode())
