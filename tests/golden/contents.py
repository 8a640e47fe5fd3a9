"""Arrays in files of other projects, read without verydeep."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def read(path: Path) -> Arrays:
    """Return a file's arrays by the names that they have there."""
    return _READERS[path.suffix](path)


def _safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return dict(sorted(load_file(path).items()))


def _pickle(path: Path) -> Arrays:
    import torch

    return {
        name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items() if hasattr(tensor, "numpy")
    }


def _hdf5(path: Path) -> Arrays:
    import h5py

    found: Arrays = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of a protocol buffer's fields: whole numbers and bytes; floats are passed over."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        size = varint() if kind == 2 else {1: 8, 5: 4}[kind]
        at += size
        if kind == 2:
            yield number, data[at - size : at]


def _caffe(path: Path) -> Arrays:
    """NetParameter.layer = 100, its name = 1 and blobs = 7, a blob's data = 5, packed, and shape = 7, whose dim = 1."""
    found: Arrays = {}
    for number, layer in _fields(path.read_bytes()):
        if number == 100:
            parts = list(_fields(layer))
            name = next(content.decode() for key, content in parts if key == 1)
            for i, blob in enumerate(content for key, content in parts if key == 7):
                about = dict(_fields(blob))
                shape = [dim for _, dim in _fields(about[7])]
                found[f"{name} blob {i}"] = np.frombuffer(about[5], "<f4").reshape(shape)
    return found


def _onnx(path: Path) -> Arrays:
    import onnx

    graph = onnx.load(path).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def nodes(path: Path) -> list[str]:
    """Return an ONNX file's nodes, inputs and outputs in words."""
    import onnx

    graph = onnx.load(path).graph
    said = [f"{value.name}: {onnx.helper.printable_type(value.type)}" for value in (*graph.input, *graph.output)]
    return said + [onnx.helper.printable_node(node) for node in graph.node]


def _openvino(path: Path) -> Arrays:
    import openvino

    operations = openvino.Core().read_model(str(path)).get_ordered_ops()
    constants = [op for op in operations if op.get_type_name() == "Constant"]
    # Constants without a name of their own are numbered through the process.
    names = [re.sub(r"^Constant_\d+$", "constant", op.get_friendly_name()) for op in constants]
    return {f"{i} {name}": np.array(op.get_data()) for i, (name, op) in enumerate(zip(names, constants, strict=True))}


def _program(path: Path) -> Arrays:
    import torch

    program = torch.export.load(path)
    every = {**program.state_dict, **program.constants}
    return {name: value.detach().numpy() for name, value in every.items() if isinstance(value, torch.Tensor)}


_READERS = {
    ".safetensors": _safetensors,
    ".pth": _pickle,
    ".h5": _hdf5,
    ".caffemodel": _caffe,
    ".onnx": _onnx,
    ".xml": _openvino,
    ".pt2": _program,
}
