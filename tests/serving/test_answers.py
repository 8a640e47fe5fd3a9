"""What the service answers is what the package's own functions give for the same picture."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from tests.serving.conftest import CLASSES, ENGINE_ERROR, Running, jpeg, random_picture, rounding


@pytest.fixture
def file(rng: np.random.Generator) -> bytes:
    return jpeg(random_picture(rng))


@pytest.mark.parametrize("name", ["a", "b"])
def test_classify(service: Running, folder: Path, file: bytes, name: str) -> None:
    status, answer = service.post(f"/models/{name}/classify?top=3", file)
    weights = folder / f"{name}.safetensors"
    expected = vd.predict(weights, file, top=3)
    assert status == 200
    assert answer["protocol"] == str(expected.protocol)
    assert [one["class"] for one in answer["top"]] == [label for label, _ in expected.top]
    given, wanted = [one["posterior"] for one in answer["top"]], [posterior for _, posterior in expected.top]
    np.testing.assert_allclose(given, wanted, rtol=0, atol=rounding(weights, [file]))


def test_a_form_is_a_picture_too(service: Running, file: bytes) -> None:
    edge = "a-boundary"
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="note"\r\n\r\nno file\r\n'.encode(),
        f'--{edge}\r\nContent-Disposition: form-data; name="x"; filename="p.jpg"\r\n\r\n'.encode() + file + b"\r\n",
        f'--{edge}\r\nContent-Disposition: form-data; name="y"; filename="q.jpg"\r\n\r\nsecond\r\n'.encode(),
        f"--{edge}--\r\n".encode(),
    ]
    kind = f"multipart/form-data; boundary={edge}"
    status, answer = service.post("/models/a/classify", b"".join(parts), content_type=kind)
    assert (status, answer) == service.post("/models/a/classify", file)
    for body, what in ((parts[0] + parts[3], "no file"), (b"".join(parts)[:50], "no file"), (b"xx", "damaged form")):
        status, answer = service.post("/models/a/classify", body, content_type=kind)
        assert status == 422
        assert what in answer["error"]


def test_localize(service: Running, folder: Path, file: bytes) -> None:
    status, answer = service.post("/models/a/localize", file)
    expected = vd.localize(folder / "a.safetensors", folder / "boxes.safetensors", file)
    assert (status, answer["height"], answer["width"]) == (200, 80, 100)
    assert [one["class"] for one in answer["top"]] == [one.name for one in expected.top]
    np.testing.assert_allclose(
        [one["box"] for one in answer["top"]], [one.box for one in expected.top], atol=200 * ENGINE_ERROR
    )


def test_descriptor(service: Running, folder: Path, file: bytes) -> None:
    picture = np.asarray(Image.open(io.BytesIO(file)))
    for name in ("a", "trunk"):
        status, answer = service.post(f"/models/{name}/descriptor?scale=64&scale=96", file)
        expected = vd.Descriptor(folder / f"{name}.safetensors", scales=(64, 96)).transform([picture])[0]
        assert status == 200
        np.testing.assert_allclose(answer["descriptor"], expected, rtol=0, atol=2 * ENGINE_ERROR)  # of norm 1


def test_heat_map(service: Running, folder: Path, file: bytes) -> None:
    best = vd.predict(folder / "a.safetensors", file, top=1).top[0][0]
    pictures = {}
    for query in ("", f"?class={best}", f"?class={next(c for c in CLASSES if c != best)}"):
        status, content, headers = service.request("POST", f"/models/a/heatmap{query}", file)
        assert (status, headers["content-type"]) == (200, "image/png")
        pictures[query] = np.asarray(Image.open(io.BytesIO(content)))
    usual, named, other = pictures.values()
    np.testing.assert_array_equal(usual, named)
    assert usual.shape != other.shape or not np.array_equal(usual, other)


def test_what_there_is(service: Running) -> None:
    tasks = {one["model"]: one["tasks"] for one in json.loads(service.request("GET", "/models")[1])}
    assert tasks == {
        "a": ["classify", "localize", "heatmap", "descriptor", "distance", "scoremap"],
        "b": ["classify", "heatmap", "descriptor", "distance", "scoremap"],
        "trunk": ["descriptor", "distance"],
    }
    described = json.loads(service.request("GET", "/openapi.json")[1])
    page = service.request("GET", "/docs")[1].decode()
    assert len(described["paths"]) >= 14
    assert all(path in page for path in described["paths"])
    assert "http://" not in page
    assert "https://" not in page


def test_metrics_are_prometheus_text(service: Running, file: bytes) -> None:
    before = _metrics(service)
    for _ in range(3):
        assert service.post("/models/b/classify", file)[0] == 200
    after = _metrics(service)
    path = 'path="/models/{name}/classify"'
    requests = f'verydeep_requests_total{{{path},status="200"}}'
    assert after[requests] - before.get(requests, 0) == 3
    assert (
        after[f"verydeep_request_seconds_count{{{path}}}"]
        == after[f'verydeep_request_seconds_bucket{{{path},le="+Inf"}}']
    )
    assert after["verydeep_queue_pictures"] == after["verydeep_held_bytes"] == 0
    assert after["verydeep_resident_memory_bytes"] > 2**26


def _metrics(service: Running) -> dict[str, float]:
    lines = service.request("GET", "/metrics")[1].decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/models/z/classify", 404, "served here: a, b, trunk"),
        ("/models/b/localize", 404, "no localizer"),
        ("/models/trunk/classify", 404, "descriptors alone"),
        ("/models/trunk/heatmap", 404, "descriptors alone"),
        ("/models/a/heatmap?class=zebra", 422, "zebra"),
        ("/models/a/classify?top=0", 422, "query.top"),
        ("/models/a/descriptor?scale=8", 422, "least is"),
        ("/models/a/descriptor?scale=99999", 422, "--memory allows"),
        ("/models/a/descriptor?scale=" + "9" * 40, 422, "query.scale.0"),
        ("/models/a/descriptor?" + "&".join(f"scale={64 + k}" for k in range(9)), 422, "query.scale"),
        ("/models/a", 404, "/docs"),
        ("/models", 405, "/docs"),
    ],
)
def test_requests_that_cannot_be_carried_out(service: Running, file: bytes, path: str, status: int, words: str) -> None:
    code, answer = service.post(path, file)
    assert code == status
    assert list(answer) == ["error"]
    assert words in answer["error"]
    assert "\n" not in answer["error"]
