"""Connections of clients that may be slow, or many."""

import asyncio
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

from verydeep.serving.guard import WITHIN

MOST = 512
"""Connections at a time; one more is answered with 503 and closed."""


class PatientProtocol(H11Protocol):
    """HTTP, with an end to waiting: for the headers of a request, and for an answer to be taken.

    The body's deadline is the guard's.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST:
            self._write_error(503, "Service Unavailable", f"{MOST} connections are open; try again")
            return
        self._watch = self.loop.call_later(WITHIN, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if watch := getattr(self, "_watch", None):
            watch.cancel()

    def _look(self, before: object) -> None:
        """End the connection where nothing has come of it since the last look."""
        cycle = self.cycle
        idle = cycle is None or cycle.response_complete
        waits = ("idle", cycle) if idle else ("unread", cycle) if self.flow.write_paused else None
        if waits is not None and (waits == before or cycle is None):
            self.transport.abort()
            return
        self._watch = self.loop.call_later(WITHIN, self._look, waits)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._write_error(400, "Bad Request", msg)

    def _write_error(self, status: int, phrase: str, message: str) -> None:
        body = json.dumps({"error": message}) + "\n"
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n{body}".encode("ascii"))
        self.transport.close()
