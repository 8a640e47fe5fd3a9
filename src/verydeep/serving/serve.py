"""The service from its start to its end."""

import ipaddress
import re
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from verydeep.basics.errors import UserError
from verydeep.inference.memory import give_back_early
from verydeep.inference.runtime import Runtime
from verydeep.serving.app import make_app
from verydeep.serving.connections import PatientProtocol
from verydeep.serving.guard import WITHIN, Guard
from verydeep.serving.label_studio_paths import add_label_studio
from verydeep.serving.metrics import Metrics
from verydeep.serving.models import Models
from verydeep.serving.picture_folder import PictureFolder
from verydeep.serving.service import Service, shares_of
from verydeep.serving.study import StudyView
from verydeep.serving.study_app import make_study_app

LEAST_MEMORY = 128 * 2**20
MOST_WAIT = 10.0
STUDY_SHARE = 2**24
"""Bytes that the requests of a study's page may hold together: they have no bodies."""


@dataclass(frozen=True)
class Address:
    """Where a service listens, and the token that it asks for."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None


@dataclass(frozen=True)
class Labeling:
    """That Label Studio is answered, and where pictures are that its tasks name as files."""

    folder: PictureFolder | None = None


def parse_wait(text: str) -> float:
    """Return the seconds that a text such as ``5ms`` or ``0.1s`` names.

    UserError where it names none, or more than ten.

    Examples
    --------
    >>> parse_wait("5ms"), parse_wait("0.1s")
    (0.005, 0.1)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(ms|s)\s*", text)
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1) if match else MOST_WAIT + 1
    if seconds > MOST_WAIT:
        raise UserError(f"--wait {text}: expected a time up to {MOST_WAIT:g}s, for example 5ms")
    return seconds


def serve(
    weights: Sequence[str],
    localizer: str | None,
    protocol: str | None,
    address: Address,
    runtime: Runtime,
    wait: float,
    labeling: Labeling | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish those that were accepted.

    `runtime.memory` is for all that requests take, beside weights; `labeling` adds Label Studio's paths. UserError
    where the networks cannot be served, or nothing can listen there.
    """
    if runtime.memory < LEAST_MEMORY:
        raise UserError(f"--memory: a service needs {LEAST_MEMORY >> 20} MiB at least")
    if address.token is not None and not address.token.strip():
        raise UserError("--token: is empty; give one, or leave it out")
    listener = _bound(address)
    give_back_early()
    try:
        metrics = Metrics()
        shares, runtime = shares_of(runtime)
        service = Service(Models(weights, localizer, protocol, runtime, metrics), wait, shares, metrics)
        service.warm_up()
        app = make_app(service)
        if labeling:
            add_label_studio(app, service, labeling.folder)
        guard = app.state.guard = Guard(app, shares.requests, address.token, metrics)
        _say(", ".join(service.models.names), "/docs says how", listener, address)
        _Server(guard).run([listener])
        service.stop()
    finally:
        listener.close()


def serve_study(folder: Path, data: str | None, address: Address) -> None:
    """Show what a study has come to, as long as it goes on, until SIGTERM or Ctrl-C; UserError where there is none."""
    view = StudyView(folder, data)
    listener = _bound(address)
    try:
        metrics = Metrics()
        app = make_study_app(view)
        guard = app.state.guard = Guard(app, STUDY_SHARE, address.token, metrics)
        _say(str(folder), "Ctrl-C ends it", listener, address)
        _Server(guard).run([listener])
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """Tells the guard of the end before connections are closed, so that nothing is accepted that will not be done."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        config = uvicorn.Config(
            guard,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(WITHIN),
            proxy_headers=False,
        )
        super().__init__(config)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Run until a signal comes; SIGTERM is a usual end."""
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises it anew at its end
        try:
            super().run(sockets)
        finally:
            signal.signal(signal.SIGTERM, before)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._guard.stopping = True
        super().handle_exit(sig, frame)


def _bound(address: Address) -> socket.socket:
    host, port = address.host, address.port
    try:
        ((family, kind, proto, _, where), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}); choose others") from None
    return listener


def _say(what: str, more: str, listener: socket.socket, address: Address) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    hint = f"{url}{more}" if more.startswith("/") else more
    print(f"verydeep: serving {what} at {url} ({hint})", file=sys.stderr, flush=True)
    if not ipaddress.ip_address(host).is_loopback and not address.token:
        print("verydeep: warning: anyone who reaches this address may ask: give a --token", file=sys.stderr, flush=True)
