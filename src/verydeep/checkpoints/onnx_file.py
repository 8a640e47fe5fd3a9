"""ONNX files of VGGs, whoever exported them: the graph followed from its input, node by node."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.checkpoints import layers as kinds
from verydeep.checkpoints.inputs import TORCHVISION
from verydeep.checkpoints.layers import Array, Checkpoint, Layer
from verydeep.checkpoints.naming import NORM_PARTS
from verydeep.checkpoints.protobuf import Decoder, Field, Message, Schema, map_file
from verydeep.checkpoints.recognize import parse_description

_PAIR: Schema = {"key": Field(1, "text"), "value": Field(2, "text")}
_TENSOR: Schema = {
    "dims": Field(1, "int"),
    "data_type": Field(2, "int"),
    "float_data": Field(4, "bytes"),
    "int64_data": Field(7, "int"),
    "name": Field(8, "text"),
    "raw_data": Field(9, "bytes"),
    "external_data": Field(13, _PAIR),
    "data_location": Field(14, "int"),
}
_ATTRIBUTE: Schema = {
    "name": Field(1, "text"),
    "f": Field(2, "float"),
    "i": Field(3, "int"),
    "s": Field(4, "text"),
    "t": Field(5, _TENSOR),
    "floats": Field(7, "float"),
    "ints": Field(8, "int"),
}
_NODE: Schema = {
    "input": Field(1, "text"),
    "output": Field(2, "text"),
    "op_type": Field(4, "text"),
    "attribute": Field(5, _ATTRIBUTE),
}
_OF_TENSOR: Schema = {"shape": Field(2, {"dim": Field(1, {"dim_value": Field(1, "int")})})}
_GRAPH: Schema = {
    "node": Field(1, _NODE),
    "initializer": Field(5, _TENSOR),
    "input": Field(11, {"name": Field(1, "text"), "type": Field(2, {"tensor_type": Field(1, _OF_TENSOR)})}),
}
_MODEL: Schema = {"graph": Field(7, _GRAPH), "metadata_props": Field(14, _PAIR)}

_SMALL = 4096
_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
_SIMPLE = {
    "Relu": kinds.Relu,
    "Dropout": kinds.Dropout,
    "GlobalAveragePool": kinds.Mean,
    "Sigmoid": kinds.Sigmoid,
    "Softmax": kinds.Softmax,
    "LogSoftmax": kinds.Softmax,  # the same posteriors
}


def is_onnx(path: Path) -> bool:
    """Say whether a protocol buffer has a graph where ONNX has it."""
    return "graph" in Decoder(str(path)).decode(map_file(path), {"graph": Field(7, "bytes")})


def read(path: Path) -> Checkpoint:
    """Read an ONNX file; where it does not say what to do to pictures, torchvision's way is assumed.

    UserError: the file is damaged, or no graph.
    """
    model = Decoder(str(path)).decode(map_file(path), _MODEL)
    if "graph" not in model:
        raise UserError(f"{path}: no ONNX graph in it")
    graph = model["graph"][-1]
    properties = {_one(pair, "key", ""): _one(pair, "value", "") for pair in model.get("metadata_props", [])}
    constants = {_one(tensor, "name", ""): tensor for tensor in graph.get("initializer", [])}
    inputs = [_one(value, "name", "") for value in graph.get("input", [])]
    walk = _Walk(path, constants, next((name for name in inputs if name not in constants), ""))
    try:
        for node in graph.get("node", []):
            walk.add(node)
    except UserError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise UserError(f"{path}: is damaged: {_one(node, 'op_type', '')} ({type(error).__name__}: {error})") from None
    return Checkpoint(
        kind="onnx",
        layers=tuple(
            kinds.with_bias(layer) if isinstance(layer, kinds.Conv | kinds.Dense) else layer for layer in walk.layers
        ),
        preprocessing=TORCHVISION,
        image_size=_image_size(graph, walk.start),
        description=parse_description(properties.get("verydeep"), path),
    )


def _image_size(graph: Message, name: str) -> int | None:
    """Return the side of the square pictures that the graph says it takes; None where it takes any."""
    for value in graph.get("input", []):
        if _one(value, "name", "") == name:
            shape = _one(_one(_one(value, "type", {}), "tensor_type", {}), "shape", {})
            sides = [int(_one(dim, "dim_value", 0)) for dim in shape.get("dim", [])]
            square = [side for side in sides[1:] if side > 3 and sides.count(side) > 1]
            return square[0] if square else None
    return None


def _one(message: Message, name: str, default: Any) -> Any:
    return message.get(name, [default])[-1]


def _times(array: Array, factor: float) -> Array:
    return array if factor == 1 else replace(array, read=lambda: array.read() * factor)


class _Node:
    """A node with its attributes by name."""

    def __init__(self, node: Message) -> None:
        self.kind: str = _one(node, "op_type", "")
        self.inputs: list[str] = node.get("input", [])
        self.name: str = (node.get("output") or [""])[0]
        self.attributes = {_one(a, "name", ""): a for a in node.get("attribute", [])}

    def get(self, name: str, field: str, default: Any) -> Any:
        return _one(self.attributes.get(name, {}), field, default)

    def ints(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.attributes.get(name, {}).get("ints", default))


class _Walk:
    """Follows one map through the graph, and notes as a layer what each node does to it."""

    def __init__(self, path: Path, constants: dict[str, Message], start: str) -> None:
        self.path, self.constants, self.head = path, constants, start
        self.start = start
        self.layers: list[Layer] = []
        self.channels_last = False

    def add(self, node: Message) -> None:
        """Note the next node."""
        at = _Node(node)
        given = [name for name in at.inputs if name and name not in self.constants]
        if at.kind in ("Shape", "Size") or not given:
            self._add_constant(at)
            return
        if given == [self.head]:
            self.layers += self._read(at)
        else:
            beside = ", ".join(name for name in given if name != self.head)
            self.layers.append(kinds.Other(at.name, at.kind, f"of {beside}, a branch of the graph"))
        self.head = at.name

    def _add_constant(self, node: _Node) -> None:
        """Note a node that computes from constants alone, or the size of a map."""
        unknown: Message = {"unknown": [f"{node.kind} {node.name}"]}
        if node.kind == "Constant":
            tensor = node.get("value", "t", {"numbers": [node.attributes]})
        elif node.kind in ("Identity", "Transpose"):
            tensor = self.constants[node.inputs[0]]
            if node.kind == "Transpose":
                order = node.ints("perm", tuple(range(len(tensor.get("dims", []))))[::-1])
                tensor = {**tensor, "orders": [*tensor.get("orders", []), order]}
        else:
            tensor = unknown
        self.constants[node.name] = tensor

    def _read(self, node: _Node) -> list[Layer]:
        """Return the layers that a node is: usually one, none where it changes nothing."""
        name, kind = node.name, node.kind
        given = [self.constants[name] for name in node.inputs if name in self.constants]
        weighted = len(node.inputs) > 1 and node.inputs[1] in self.constants
        if kind in _SIMPLE:
            return [_SIMPLE[kind](name)]
        if kind == "Conv":
            return [self._convolution(node, given if weighted else [])]
        if kind in ("Gemm", "MatMul") and weighted:
            return [self._matrix(node, given)]
        if kind == "BatchNormalization" and len(given) == 4:
            return [self._batch_norm(node, given)]
        if kind == "MaxPool":
            return [self._pool(node)]
        if kind == "LRN":
            about = (node.get(*values) for values in (("alpha", "f", 1e-4), ("beta", "f", 0.75), ("bias", "f", 1.0)))
            return [kinds.LocalResponseNorm(name, node.get("size", "i", 0), *about)]
        if kind in ("Add", "Sub", "Mul", "Div") and given:
            return self._arithmetic(node, given[0])
        return self._moved(node, given)

    def _moved(self, node: _Node, given: list[Message]) -> list[Layer]:
        """Return what a node is that only moves, bounds or averages values; anything else is another layer."""
        name, kind = node.name, node.kind
        if kind == "Identity" or (kind == "Cast" and node.get("to", "i", 0) in _FLOATS):
            return []
        if kind == "AveragePool" and {*node.ints("kernel_shape", ())} == {1}:
            return []  # how torch writes an adaptive pool on a map that has its size already
        if kind in ("Flatten", "Reshape", "Squeeze"):
            return [kinds.Flatten(name, self.channels_last)]
        if kind == "Transpose" and node.ints("perm", ()) in ((0, 2, 3, 1), (0, 3, 1, 2)):
            # Before the first layer it is a picture that is turned; what is meant by channels is known behind it.
            self.channels_last = node.ints("perm", ()) == (0, 2, 3, 1) and bool(self.layers)
            return []
        if kind == "ReduceMean":
            axes = node.ints("axes", ()) or (self._numbers(given[0]) if given else ())
            if axes in ((2, 3), (-2, -1)) and not self.channels_last:
                return [kinds.Mean(name)]
        if kind == "Pad" and node.get("mode", "s", "constant") == "constant":
            sides = self._numbers(given[0]) if given else node.ints("pads", ())
            nothing_else = len(sides) == 8 and not any(sides[i] for i in (0, 1, 4, 5))
            if nothing_else and not any(any(self._numbers(value)) for value in given[1:]):
                return [kinds.Pad(name, (int(sides[2]), int(sides[3]), int(sides[6]), int(sides[7])))]
        if kind == "Gather" and self._numbers(given[0]) == (2, 1, 0) and node.get("axis", "i", 0) in (1, 3, -1, -3):
            return [kinds.SwapChannels(name)]
        facts = ", ".join(f"{key} {_one(value, 'f', 0):g}" for key, value in node.attributes.items() if "f" in value)
        if kind == "Clip":
            least, most = self._bounds(node)
            if (least, most) == (0, np.inf):
                return [kinds.Relu(name)]
            facts = f"from {least:g} to {most:g}"
        return [kinds.Other(name, kind, facts)]

    def _bounds(self, node: _Node) -> tuple[float, float]:
        """Return the least and the greatest value that a Clip leaves: attributes until 2018, since then inputs."""
        bounds = [node.get("min", "f", -np.inf), node.get("max", "f", np.inf)]
        for place, name in enumerate(node.inputs[1:3]):
            if name:
                bounds[place] = (*self._numbers(self.constants[name]), np.nan)[0]
        return bounds[0], bounds[1]

    def _convolution(self, node: _Node, given: list[Message]) -> Layer:
        if not given:
            raise UserError(f"{self.path}: {node.name}: a convolution whose weights are no constants")
        arrays = self._weights(node.name, given)
        automatic = node.get("auto_pad", "s", "NOTSET")
        pads: tuple[int, ...] = node.ints("pads", (0, 0, 0, 0))
        if automatic.startswith("SAME"):
            pads = tuple(side // 2 for side in arrays["weight"].shape[2:]) * 2
        if len(pads) != 4 or self.channels_last:
            return kinds.Other(node.name, node.kind, "of channels last" if self.channels_last else f"pads {pads}")
        return kinds.Conv(
            node.name,
            arrays,
            padding=(pads[0], pads[1], pads[2], pads[3]),
            stride=node.ints("strides", (1, 1)),
            dilation=node.ints("dilations", (1, 1)),
            groups=node.get("group", "i", 1),
        )

    def _matrix(self, node: _Node, given: list[Message]) -> Layer:
        gemm = node.kind == "Gemm"
        factors = node.get("alpha", "f", 1.0), node.get("beta", "f", 1.0), node.get("transA", "i", 0)
        if gemm and factors[2]:
            raise UserError(f"{self.path}: {node.name}: expected a plain product, found transA {factors[2]}")
        transposed = gemm and node.get("transB", "i", 0) == 1
        arrays = self._weights(node.name, given, transpose=not transposed)
        if gemm:
            times = dict(zip(("weight", "bias"), factors, strict=False))
            arrays = {part: _times(array, times[part]) for part, array in arrays.items()}
        return kinds.Dense(node.name, arrays)

    def _weights(self, name: str, given: list[Message], transpose: bool = False) -> dict[str, Array]:
        names = (("weight", name, transpose), ("bias", f"{name}, bias", False))
        return {part: self._array(told, tensor, turn) for (part, told, turn), tensor in zip(names, given, strict=False)}

    def _batch_norm(self, node: _Node, given: list[Message]) -> Layer:
        parts = {p: self._array(f"{node.name}.{p}", tensor) for p, tensor in zip(NORM_PARTS, given, strict=False)}
        epsilon = node.get("epsilon", "f", 1e-5)
        if any(isinstance(layer, kinds.Weighted) for layer in self.layers):
            return kinds.BatchNorm(node.name, parts, epsilon=epsilon)
        weight, bias, mean, variance = (parts[part].read().double() for part in NORM_PARTS[:4])
        scale = weight / (variance + epsilon).sqrt()
        return kinds.Affine(node.name, tuple(scale.tolist()), tuple((bias - mean * scale).tolist()))

    def _pool(self, node: _Node) -> Layer:
        pads, automatic = node.ints("pads", (0, 0, 0, 0)), node.get("auto_pad", "s", "NOTSET")
        up = pads == (0, 0, 1, 1) or automatic == "SAME_UPPER" or node.get("ceil_mode", "i", 0) == 1
        if pads not in ((0, 0, 0, 0), (0, 0, 1, 1)) or automatic == "SAME_LOWER" or self.channels_last:
            return kinds.Other(node.name, node.kind, f"pads {pads}")
        kernel = node.ints("kernel_shape", ())
        return kinds.MaxPool(node.name, kernel, node.ints("strides", (1,) * len(kernel)), up)

    def _arithmetic(self, node: _Node, constant: Message) -> list[Layer]:
        """Return nothing for a bias, which the layer before gets; else what a graph does to its input."""
        last = self.layers[-1] if self.layers else None
        if isinstance(last, kinds.Dense | kinds.Conv) and node.kind == "Add" and "bias" not in last.arrays:
            bias = self._array(f"{node.name}, bias", constant)
            flat = replace(bias, shape=(prod(bias.shape),), read=lambda: bias.read().flatten())
            self.layers[-1] = replace(last, arrays={**last.arrays, "bias": flat})
            return []
        numbers = self._numbers(constant)
        backwards = node.inputs[0] != self.head and node.kind in ("Sub", "Div")
        behind = any(isinstance(layer, kinds.Dense) for layer in self.layers)  # where batch norm may be written so
        if (
            not (numbers and (behind or len(numbers) in (1, 3)))
            or backwards
            or (node.kind in ("Mul", "Div") and 0 in numbers)
        ):
            return [kinds.Other(node.name, node.kind)]
        if node.kind in ("Mul", "Div"):
            return [kinds.Affine(node.name, numbers if node.kind == "Mul" else tuple(1 / n for n in numbers))]
        return [kinds.Affine(node.name, shift=numbers if node.kind == "Add" else tuple(-n for n in numbers))]

    def _numbers(self, tensor: Message) -> tuple[float, ...]:
        """Return the values of a small constant; none of one that is large or not known."""
        if tensor.get("unknown") or prod(tensor.get("dims", [])) > _SMALL:
            return ()
        if attributes := tensor.get("numbers"):  # of a Constant node whose value is no tensor
            fields = ("f", "i", "floats", "ints")
            return tuple(number for a in attributes[0].values() for key in fields for number in a.get(key, []))
        if tensor.get("int64_data"):
            return tuple(tensor["int64_data"])
        if _one(tensor, "data_type", 1) == 7:
            return tuple(map(int, np.frombuffer(b"".join(_pieces(tensor, "a constant", self.path)), "<i8")))
        return tuple(self._array("a constant", tensor).read().ravel().tolist())

    def _array(self, theirs: str, tensor: Message, transpose: bool = False) -> Array:
        shape = tuple(tensor.get("dims", []))
        kind = _FLOATS.get(_one(tensor, "data_type", 1))
        if unknown := tensor.get("unknown"):
            raise UserError(f"{self.path}: {theirs}: its weights come from {unknown[0]}; only constants are read")
        if kind is None or any(side < 0 for side in shape):
            found = tensor.get("data_type")
            raise UserError(f"{self.path}: {theirs}: expected numbers with a fraction, found data type {found}")
        pieces = list(_pieces(tensor, theirs, self.path))
        count = prod(shape)
        held = sum(map(len, pieces)) / np.dtype(kind).itemsize
        if held != count:
            raise UserError(f"{self.path}: {theirs}: expected {shape} = {count:,} values, found {held:,.0f}")
        orders = [*tensor.get("orders", []), *([(1, 0)] if transpose and len(shape) == 2 else [])]

        def read() -> Tensor:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            values: NDArray[np.float32] = np.array(np.frombuffer(data, dtype=kind), dtype=np.float32).reshape(shape)
            for order in orders:
                values = values.transpose(order)
            return torch.from_numpy(values)

        seen = shape
        for order in orders:
            seen = tuple(seen[axis] for axis in order)
        return Array(theirs, seen, read)


def _pieces(tensor: Message, theirs: str, path: Path) -> Iterator[memoryview]:
    """Yield views of a tensor's bytes, which may lie in a file beside this one."""
    if _one(tensor, "data_location", 0) != 1:
        yield from tensor.get("raw_data", tensor.get("float_data", []))
        return
    told = {_one(pair, "key", ""): _one(pair, "value", "") for pair in tensor.get("external_data", [])}
    name = told.get("location", "")
    if not name or Path(name).name != name:
        raise UserError(f"{path}: {theirs}: its data lie in {name!r}; only a file in the same folder is read")
    # A link may lead anywhere; caches link the file and its data into one folder.
    if path.with_name(name).resolve().parent not in (path.resolve().parent, path.parent.resolve()):
        raise UserError(f"{path}: {theirs}: its data {name!r} are a link out of its folder, which is not followed")
    try:
        data = map_file(path.with_name(name))
        start, size = int(told.get("offset", 0)), int(told.get("length", len(data)))
    except ValueError as error:
        raise UserError(f"{path}: {theirs}: its data in {name} cannot be read ({error})") from None
    if start < 0 or size < 0 or start + size > len(data):
        raise UserError(f"{path}: {theirs}: {name} is too short for its data")
    yield data[start : start + size]
