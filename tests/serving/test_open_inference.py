"""The Open Inference Protocol, by Triton's own client and by requests as its description shows them."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import verydeep as vd
from tests.serving.conftest import Running, jpeg, random_picture, rounding


@pytest.fixture
def pictures(rng: np.random.Generator) -> list[Any]:
    return [random_picture(rng) for _ in range(3)]


def expected(folder: Path, images: list[Any]) -> Any:
    return np.stack([one.posterior for one in vd.predict(folder / "a.safetensors", images)])


def test_tritons_client(service: Running, folder: Path, pictures: list[Any]) -> None:
    client_module = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    client = client_module.InferenceServerClient(f"127.0.0.1:{service.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("a")
    assert client.get_server_metadata()["name"] == "verydeep"
    described = client.get_model_metadata("a")
    assert {one["name"]: one["shape"] for one in described["outputs"]} == {"posterior": [-1, 8], "label": [-1]}
    files = [jpeg(picture) for picture in pictures]
    for name, kind, data, images in (
        ("pixels", "UINT8", np.stack(pictures), pictures),
        ("image", "BYTES", np.array(files, object), files),
    ):
        wanted = expected(folder, images)
        apart = rounding(folder / "a.safetensors", images)
        for binary in (True, False):
            if kind == "BYTES" and not binary:
                continue  # the client sends text there, and a picture is none
            tensor = client_module.InferInput(name, list(data.shape), kind)
            tensor.set_data_from_numpy(data, binary_data=binary)
            outputs = [client_module.InferRequestedOutput(one, binary_data=binary) for one in ("posterior", "label")]
            for asked in (None, outputs):
                answer = client.infer("a", [tensor], outputs=asked, request_id="seven")
                np.testing.assert_allclose(answer.as_numpy("posterior"), wanted, rtol=0, atol=apart)
                labels = [one.decode() if isinstance(one, bytes) else one for one in answer.as_numpy("label")]
                assert labels == [vd.load(folder / "a.safetensors").classes[k] for k in wanted.argmax(1)]
                assert answer.get_response()["id"] == "seven"


def test_base64_in_json_and_a_raw_picture(service: Running, folder: Path, pictures: list[Any]) -> None:
    file = jpeg(pictures[0])
    wanted = expected(folder, [file])
    apart = rounding(folder / "a.safetensors", [file])
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(file).decode()]}
    outputs = [{"name": "posterior"}]
    status, answer = service.post("/v2/models/a/infer", json.dumps({"inputs": [tensor], "outputs": outputs}))
    assert status == 200
    assert answer["model_name"] == "a"
    (one,) = answer["outputs"]
    assert (one["datatype"], one["shape"]) == ("FP32", [1, 8])
    np.testing.assert_allclose(one["data"], wanted[0], rtol=0, atol=apart)
    status, answer = service.post("/v2/models/a/infer", file, **{"Inference_Header_Content_Length": "0"})
    assert status == 200
    np.testing.assert_allclose(answer["outputs"][0]["data"], wanted[0], rtol=0, atol=apart)


PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, 64, 64, 3]}
IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xd8 garbage",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"inputs": 3}',
        {"inputs": [PIXELS, PIXELS]},
        {"inputs": [{**PIXELS, "datatype": "FP32", "data": [0.5]}]},
        {"inputs": [{**PIXELS, "data": [1, 2, 3]}]},
        {"inputs": [{**PIXELS, "data": [256] * (64 * 64 * 3)}]},
        {"inputs": [{**PIXELS, "data": [0.5] * (64 * 64 * 3)}]},
        {"inputs": [{**PIXELS, "data": [[1], [1, 2]]}]},
        {"inputs": [{**PIXELS, "data": None}]},
        {"inputs": [{**PIXELS, "shape": [10**12, 10**12, 10**12, 3], "data": [1]}]},
        {"inputs": [{**PIXELS, "shape": [1, 64, 64, True], "data": [1]}]},
        {"inputs": [{**PIXELS, "shape": [1, 1, 1, 3], "parameters": {"binary_data_size": 3}}]},
        {"inputs": [{**PIXELS, "parameters": [1], "data": []}]},
        {"inputs": [{**IMAGE, "data": ["not base64!"]}]},
        {"inputs": [{**IMAGE, "data": ["aGVsbG8="]}]},
        {"inputs": [{**IMAGE, "data": 5}]},
        {"inputs": [{**IMAGE, "data": []}]},
        {"inputs": [{**IMAGE, "data": ["aGVsbG8="]}], "outputs": [{"name": "scores"}]},
        {"inputs": [{**IMAGE, "data": ["aGVsbG8="]}], "outputs": "all"},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["http://127.0.0.1/photo.jpg"]}]},
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["/etc/passwd"]}]},
    ],
)
def test_garbage_is_one_line(service: Running, body: Any) -> None:
    text = body if isinstance(body, bytes) else json.dumps(body)
    status, answer = service.post("/v2/models/a/infer", text)
    assert status == 422
    assert list(answer) == ["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("length", ["-1", "x", "10", "99999"])
def test_bytes_that_do_not_fit(service: Running, length: str) -> None:
    head = json.dumps({"inputs": [{**IMAGE, "parameters": {"binary_data_size": 8}}]}).encode()
    for behind in (struct.pack("<I", 2**32 - 1) + b"abcd", b"abc", struct.pack("<I", 4) + b"abcd"):
        for said in (length, str(len(head))):
            status, answer = service.post(
                "/v2/models/a/infer", head + behind, **{"Inference_Header_Content_Length": said}
            )
            assert status == 422
            assert list(answer) == ["error"]
