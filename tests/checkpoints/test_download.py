"""Downloads, from a server on this machine that cuts off, refuses and lies."""

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tests.conftest import SEED
from verydeep.basics.errors import UserError
from verydeep.basics.files import cache_folder
from verydeep.checkpoints import download as module
from verydeep.checkpoints.download import download

CONTENT = np.random.default_rng(SEED).bytes(3_000_000)
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path; remembers requests; `cut` bytes at a time, with or without ranges."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.cut, self.ranges, self.status = [], None, True, 200
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def base(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def starts(self):
        return [int(value.removeprefix("bytes=").rstrip("-")) if value else 0 for _, value in self.requests]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        start = server.starts[-1] if server.ranges else 0
        if server.status != 200:
            return self.send_error(server.status)
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = start + server.cut if server.cut else None
        self.wfile.write(CONTENT[start:stop])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Server()
    yield made
    made.shutdown()
    made.server_close()


def fetch(server, folder, digest=SHA, **more):
    return download(f"{server.base}/models/w.pth", digest, folder, pause=0.01, **more)


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_a_file_is_fetched_once(kind, server, tmp_path):
    digest = hashlib.new(kind, CONTENT).hexdigest()
    path = fetch(server, tmp_path / "new", f"{kind}:{digest[:8]}")
    assert path == tmp_path / "new" / "w.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(server, tmp_path / "new") == path
    assert fetch(server, tmp_path / "new", offline=True) == path
    assert server.requests == [("/models/w.pth", None)]
    assert list(path.parent.iterdir()) == [path]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.cut = 1_100_000
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts == [0, 1_100_000, 2_200_000]


def test_a_later_call_continues(server, tmp_path):
    server.cut = 400_000
    with pytest.raises(UserError, match=r"cannot be downloaded .*what arrived is kept and continued next time"):
        fetch(server, tmp_path)
    assert (tmp_path / "w.pth.part").stat().st_size == 2_000_000
    assert not (tmp_path / "w.pth").exists()
    server.cut = None
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.starts[-1] == 2_000_000


def test_a_whole_part_is_taken(server, tmp_path):
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "w.pth.part").write_bytes(b"x" * 1000)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_other_content_is_refused_and_removed(server, tmp_path):
    with pytest.raises(UserError, match=r"not the published file \(sha256 .{8}, expected 01234567\)"):
        fetch(server, tmp_path, "sha256:01234567")
    assert not list(tmp_path.iterdir())
    (tmp_path / "w.pth.part").write_bytes(b"x" * 1000)  # what came before was of another file
    with pytest.raises(UserError, match="not the published file"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_offline(server, tmp_path):
    with pytest.raises(UserError, match=r"w.pth is not in the cache \(.*\), and --offline forbids") as caught:
        fetch(server, tmp_path, offline=True)
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert not server.requests


def test_a_refusal_is_not_repeated(server, tmp_path):
    server.status = 404
    with pytest.raises(UserError, match=r"w\.pth: the server answers 404 Not Found"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1


def test_an_unreachable_network(server, tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w.pth"
        with pytest.raises(UserError, match=r"cannot be downloaded \(.*refused\): check the network and the proxy"):
            download(url, SHA, tmp_path, pause=0.001)
    with pytest.raises(UserError, match=r"no\.such\.host\.invalid/w\.pth cannot be downloaded"):
        download("http://no.such.host.invalid/w.pth", SHA, tmp_path, pause=0.001)


def test_a_silent_server_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/w.pth"
        with pytest.raises(UserError, match=r"cannot be downloaded .*timed out"):
            download(url, SHA, tmp_path, pause=0.001)


def test_proxies_of_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.base)
    path = download("http://no.such.host.invalid/models/w.pth", SHA, tmp_path, pause=0.01)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("http://no.such.host.invalid/models/w.pth", None)]


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("VERYDEEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "verydeep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "verydeep"
