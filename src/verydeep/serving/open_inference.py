"""The Open Inference Protocol, version 2, over HTTP: tensors in JSON, or as bytes behind it."""

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.version import VERSION
from verydeep.evaluation.predict import Prediction
from verydeep.serving.models import Model
from verydeep.serving.refusal import RefusedError
from verydeep.serving.tasks import Upload

LENGTH = "Inference-Header-Content-Length"
JSON_COST = 32
"""Bytes of Python's objects for a byte of JSON, at most."""

IMAGE, PIXELS = "image", "pixels"
OUTPUTS = ("posterior", "label")


def server() -> dict[str, Any]:
    """Return what the service says of itself."""
    return {"name": "verydeep", "version": VERSION, "extensions": ["binary_tensor_data"]}


def metadata(name: str, model: Model) -> dict[str, Any]:
    """Return what goes into a network and what comes out."""
    return {
        "name": name,
        "versions": [model.hash[:16]],
        "platform": "verydeep",
        "inputs": [
            {"name": IMAGE, "datatype": "BYTES", "shape": [-1], "parameters": {"optional": True}},
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3], "parameters": {"optional": True}},
        ],
        "outputs": [
            {"name": "posterior", "datatype": "FP32", "shape": [-1, len(model.net.classes)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }


class Inference:
    """A request of the protocol: `pictures` to run, and how to answer."""

    def __init__(self, body: bytes, length: str | None) -> None:
        if length == "0":  # Triton's raw binary request: the body is the one tensor
            self._request: dict[str, Any] = {}
            self.pictures: list[Upload] = [body]
            return
        if length is not None and not (length.isdecimal() and int(length) <= len(body)):
            raise RefusedError(422, f"{LENGTH}: expected a whole number, at most the body's length")
        end = len(body) if length is None else int(length)
        try:
            request = json.loads(body[:end])
        except (ValueError, RecursionError):
            raise RefusedError(422, "the body is no JSON") from None
        if not isinstance(request, dict):
            raise RefusedError(422, "the body is JSON, but no object")
        self._request = request
        self.pictures = list(_pictures(_one_input(request), memoryview(body)[end:]))
        self._wanted()

    def answer(self, name: str, model: Model, predictions: Sequence[Prediction]) -> tuple[bytes, dict[str, str]]:
        """Return the body of the answer and its headers."""
        posteriors = np.stack([one.posterior for one in predictions])
        labels = [one.top[0][0] for one in predictions]
        outputs, behind = [], []
        for output, binary in self._wanted():
            is_label = output == "label"
            shape = [len(labels)] if is_label else list(posteriors.shape)
            about: dict[str, Any] = {"name": output, "datatype": "BYTES" if is_label else "FP32", "shape": shape}
            if binary:
                data = b"".join(map(_with_length, labels)) if is_label else posteriors.astype("<f4").tobytes()
                about["parameters"] = {"binary_data_size": len(data)}
                behind.append(data)
            else:
                about["data"] = labels if is_label else posteriors.ravel().tolist()
            outputs.append(about)
        said = {"id": self._request["id"]} if isinstance(self._request.get("id"), str) else {}
        head = {"model_name": name, "model_version": model.hash[:16], **said, "outputs": outputs}
        text = json.dumps(head).encode()
        if not behind:
            return text, {"content-type": "application/json"}
        headers = {"content-type": "application/octet-stream", LENGTH.lower(): str(len(text))}
        return b"".join([text, *behind]), headers

    def _wanted(self) -> list[tuple[str, bool]]:
        """Return the outputs asked for, and whether each goes behind the JSON."""
        usual = bool(_parameters(self._request).get("binary_data_output", False))
        outputs = self._request.get("outputs") or [{"name": name} for name in OUTPUTS]
        if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
            raise RefusedError(422, "outputs: expected a list of objects")
        for output in outputs:
            if output.get("name") not in OUTPUTS:
                raise RefusedError(422, f"output {output.get('name')!s:.80}: expected one of {', '.join(OUTPUTS)}")
        return [(output["name"], bool(_parameters(output).get("binary_data", usual))) for output in outputs]


def _parameters(about: dict[str, Any]) -> dict[str, Any]:
    parameters = about.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RefusedError(422, "parameters: expected an object")
    return parameters


def _one_input(request: dict[str, Any]) -> dict[str, Any]:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RefusedError(422, f"inputs: expected a list of one tensor, {IMAGE} or {PIXELS}")
    tensor: dict[str, Any] = inputs[0]
    shape, kind = tensor.get("shape"), (tensor.get("name"), tensor.get("datatype"))
    sizes = shape if isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape) else []
    fits = (kind == (IMAGE, "BYTES") and len(sizes) == 1) or (kind == (PIXELS, "UINT8") and sizes[3:] == [3])
    if not fits:
        raise RefusedError(422, f"expected {IMAGE}: BYTES of shape [N], or {PIXELS}: UINT8 of shape [N, H, W, 3], RGB")
    return tensor


def _pictures(tensor: dict[str, Any], behind: memoryview) -> Iterator[Upload]:
    shape, size = tensor["shape"], _parameters(tensor).get("binary_data_size")
    if size is not None and size != len(behind):
        raise RefusedError(422, f"binary_data_size: {len(behind)} bytes stand behind the JSON")
    if tensor["datatype"] == "UINT8":
        values = np.frombuffer(behind, np.uint8) if size is not None else _numbers(tensor.get("data"))
        if values.size != prod(shape):
            raise RefusedError(422, f"{PIXELS}: {values.size} numbers, which are not those of the shape {shape}")
        yield from values.reshape(shape)
        return
    files = list(_split(behind)) if size is not None else _decoded(tensor.get("data"))
    if len(files) != shape[0]:
        raise RefusedError(422, f"{IMAGE}: {len(files)} files, and the shape says {shape[0]}")
    yield from files


def _numbers(data: Any) -> NDArray[np.uint8]:
    try:
        values = np.asarray(data)
    except ValueError:
        values = np.empty(0, object)
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0 or values.max() > 255:
        raise RefusedError(422, f"{PIXELS}: data: expected whole numbers from 0 to 255")
    return values.astype(np.uint8).ravel()


def _decoded(data: Any) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (TypeError, ValueError):
        raise RefusedError(422, f"{IMAGE}: data: expected a list of picture files in base64") from None


def _split(behind: memoryview) -> Iterator[bytes]:
    """Yield elements, each behind its length in four bytes."""
    place = 0
    while place < len(behind):
        length = int.from_bytes(behind[place : place + 4], "little")
        place += 4
        if place + length > len(behind):
            raise RefusedError(422, f"{IMAGE}: an element is said to be longer than what is there")
        yield bytes(behind[place : place + length])
        place += length


def _with_length(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data
