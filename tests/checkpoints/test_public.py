"""Names of public weights: the table against the peers' own, and the way from a name to a network."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.checkpoints import public
from verydeep.checkpoints.public import PUBLISHED, TIMM, Published


def test_torchvisions_own_table_says_the_same(peers):
    models = peers.torchvision.models
    for name in ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"):
        weights = getattr(models, f"{name.upper()}_Weights").IMAGENET1K_V1
        ours = PUBLISHED[f"torchvision:{name}"]
        assert ours.url == weights.url
        assert weights.url.rpartition("-")[2] == f"{ours.digest.removeprefix('sha256:')}.pth"
    assert [f"timm:{name}" for name in sorted(peers.timm.list_pretrained("vgg*"))] == sorted(TIMM)


def test_torchvisions_classes_are_ours(peers):
    from verydeep.checkpoints.class_names import class_names

    theirs = peers.torchvision.models.VGG16_Weights.IMAGENET1K_V1.meta["categories"]
    ours = [name.partition(" ")[2] for name in class_names()]
    assert len(theirs) == len(ours) == 1000
    # The two names that ILSVRC uses twice have an addition there.
    differing = [(a, b) for a, b in zip(theirs, ours, strict=True) if a != b]
    assert differing == [("crane bird", "crane"), ("maillot tank suit", "maillot")]


@pytest.mark.parametrize("depth", [16, 19])
def test_kerass_own_table_says_the_same(depth, monkeypatch):
    keras = pytest.importorskip("keras", reason="keras is not installed (it needs Python 3.11)")
    import importlib

    module = importlib.import_module(f"keras.src.applications.vgg{depth}")
    asked = []

    def get_file(name, url, cache_subdir, file_hash):
        asked.append((url, f"md5:{file_hash}"))
        raise InterruptedError

    monkeypatch.setattr(module.file_utils, "get_file", get_file)
    for top, end in ((True, ""), (False, "-notop")):
        with pytest.raises(InterruptedError):
            getattr(keras.applications, f"VGG{depth}")(include_top=top)
        ours = PUBLISHED[f"keras:vgg{depth}{end}"]
        assert asked[-1] == (ours.url, ours.digest)


def test_unknown_names():
    with pytest.raises(
        UserError, match=r"torchvision:vgg61: no such public weights \(did you mean torchvision:vgg1[69]"
    ):
        vd.load("torchvision:vgg61")


class Handler(BaseHTTPRequestHandler):
    """Serves a file as a web server, and as the hub does."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self.wfile.write(content)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files = {}
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_from_a_name_to_a_network(server, tools, photographs, tmp_path, monkeypatch):
    plain = tools.make_plain("D")
    torch.save(plain.state, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    server.files["/vgg16-1234.pth"] = content
    digest = hashlib.sha256(content).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/vgg16-1234.pth"
    monkeypatch.setitem(
        PUBLISHED, "torchvision:vgg16", Published(url, f"sha256:{digest[:8]}", {"train_scales": [1, 2]})
    )
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="--offline forbids"):
        vd.load("torchvision:vgg16", offline=True)
    net = vd.load("torchvision:vgg16")
    assert net.provenance.to_dict() == {
        "version": 1,
        "format": "torchvision",
        "file": "vgg16-1234.pth",
        "sha256": digest,
        "published_as": "torchvision:vgg16",
        "url": url,
        "train_scales": [1, 2],
    }
    expected = plain(tools.prepare(photographs(64), "torchvision"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < 1e-4
    server.files.clear()
    assert vd.load("torchvision:vgg16", offline=True).provenance == net.provenance


def run(server_port, cache, *more):
    """Fetch a timm network in a process of its own: the hub's client reads its settings when imported."""
    code = (
        "import sys, json\n"
        "from verydeep.basics.errors import UserError\n"
        "from verydeep.checkpoints.public import fetch\n"
        "try:\n"
        "    path, about = fetch('timm:vgg11', offline='offline' in sys.argv)\n"
        "    print(json.dumps([str(path), about]))\n"
        "except UserError as error:\n"
        "    print(json.dumps(str(error)))\n"
    )
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server_port}", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | settings
    done = subprocess.run([sys.executable, "-c", code, *more], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_timm_through_the_hubs_client(server, tools, tmp_path):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (make test installs it)")
    state = tools.make_plain("A").state
    heads = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    renamed = {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        shape = {"classifier.0": (24, 32, 2, 2), "classifier.3": (24, 24, 1, 1)}.get(layer)
        renamed[f"{heads.get(layer, layer)}.{part}"] = tensor.reshape(shape) if shape and part == "weight" else tensor
    port, cache = server.server_port, tmp_path / "hub"
    assert "is not in the hub's cache, and --offline forbids" in run(port, cache, "offline")
    assert "timm:vgg11.tv_in1k" in run(port, cache)  # the server has no such repository
    server.files["/timm/vgg11.tv_in1k/resolve/main/model.safetensors"] = save(renamed)
    path, about = run(port, cache)
    assert about == {"published_as": "timm:vgg11.tv_in1k"}
    assert vd.load(path).provenance.format == "timm"
    server.shutdown()
    assert run(port, cache, "offline") == [path, about]
    (blob,) = (cache / "hub" / "models--timm--vgg11.tv_in1k" / "blobs").iterdir()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\xff")
    assert "is not the published file" in run(port, cache, "offline")


def test_without_the_hubs_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub.*pip install 'verydeep\[hub\]'"):
        public.fetch("timm:vgg11.tv_in1k")
