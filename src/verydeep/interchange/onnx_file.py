"""ONNX files of VGGs, whoever exported them: their weights in the order of the graph."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.interchange.foreign import (
    OUR_NAMINGS,
    TORCHVISION,
    Entry,
    Foreign,
    check_normalization,
    name_in_order,
    parse_description,
)
from verydeep.interchange.graph import Kind, Step, check_vgg
from verydeep.interchange.wire import Decoder, Field, Message, Schema, map_file

_PAIR: Schema = {"key": Field(1, "text"), "value": Field(2, "text")}
_TENSOR: Schema = {
    "dims": Field(1, "int"),
    "data_type": Field(2, "int"),
    "float_data": Field(4, "bytes"),
    "name": Field(8, "text"),
    "raw_data": Field(9, "bytes"),
    "external_data": Field(13, _PAIR),
    "data_location": Field(14, "int"),
}
_ATTRIBUTE: Schema = {
    "name": Field(1, "text"),
    "f": Field(2, "float"),
    "i": Field(3, "int"),
    "s": Field(4, "bytes"),
    "t": Field(5, _TENSOR),
    "ints": Field(8, "int"),
}
_NODE: Schema = {
    "input": Field(1, "text"),
    "output": Field(2, "text"),
    "name": Field(3, "text"),
    "op_type": Field(4, "text"),
    "attribute": Field(5, _ATTRIBUTE),
}
_GRAPH: Schema = {
    "node": Field(1, _NODE),
    "initializer": Field(5, _TENSOR),
    "input": Field(11, {"name": Field(1, "text")}),
}
_MODEL: Schema = {"graph": Field(7, _GRAPH), "metadata_props": Field(14, _PAIR)}

_TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_EPSILON = 1e-5
"""Of our batch norm; another one in the file is moved into the variance."""


def is_onnx(path: Path) -> bool:
    """Say whether a protocol buffer has a graph where ONNX has it."""
    return "graph" in Decoder(str(path)).decode(map_file(path), {"graph": Field(7, "bytes")})


@dataclass
class _Walk:
    """What is found as the graph's nodes are passed in order."""

    weighted: list[tuple[str, dict[str, Entry]]] = field(default_factory=list)
    convolutions: int = 0
    pools_up: list[bool] = field(default_factory=list)
    lrn_alpha: float | None = None
    channels_last: bool = False


def read(path: Path) -> Foreign:
    """Read an ONNX file; where it does not say what to do to pictures, torchvision's way is assumed.

    Raises
    ------
    UserError
        The file is damaged, or its graph is no VGG's.
    """
    model = Decoder(str(path)).decode(map_file(path), _MODEL)
    if "graph" not in model:
        raise UserError(f"{path}: no ONNX graph in it")
    graph = model["graph"][-1]
    properties = {_one(pair, "key", ""): _one(pair, "value", "") for pair in model.get("metadata_props", [])}
    constants = {_one(tensor, "name", ""): tensor for tensor in graph.get("initializer", [])}
    nodes = graph.get("node", [])
    walk = _walk(nodes, constants, path)
    given = {_one(value, "name", "") for value in graph.get("input", [])} - set(constants)
    steps = tuple(_steps(nodes, constants, given))
    if "verydeep" not in properties:
        check_vgg(steps, str(path))
    if len(walk.pools_up) != 5:
        raise UserError(f"{path}: has {len(walk.pools_up)} max-pools, a VGG has 5: is it another network?")
    return Foreign(
        kind="onnx",
        entries=_entries(walk, path),
        namings=OUR_NAMINGS,
        preprocessing=replace(TORCHVISION, pool_round_up=any(walk.pools_up)),
        lrn_alpha=walk.lrn_alpha,
        description=parse_description(properties.get("verydeep"), path),
        steps=steps,
    )


_NOTHING = ("Identity", "Dropout", "Flatten", "Reshape", "Transpose", "Cast", "Squeeze", "Unsqueeze", "Constant")
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_NOTHING, "nothing"),
    **{"Conv": "conv", "Gemm": "dense", "MatMul": "dense", "BatchNormalization": "norm", "Relu": "relu"},
    **{"MaxPool": "pool", "LRN": "lrn", "Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"},
    **{"GlobalAveragePool": "mean", "ReduceMean": "mean"},
}


def _steps(nodes: list[Message], constants: dict[str, Message], given: set[str]) -> Iterator[Step]:
    """Yield what happens to the picture, one node after another; nodes that compute constants or sizes are none."""
    if not given:
        yield Step("other", "the graph", "a graph without an input")
    data, latest, pools, weighted = set(given), "", 0, ""
    for node in nodes:
        kind, outputs = _one(node, "op_type", ""), node.get("output", [""])
        inputs = [name for name in node.get("input", []) if name in data]
        if not inputs or kind in ("Shape", "Size"):
            continue
        name = _one(node, "name", "") or outputs[0]
        attributes = {_one(a, "name", ""): a for a in node.get("attribute", [])}
        if len(inputs) > 1:
            yield Step("other", name, f"{kind} of two layers' values")
        elif latest and inputs[0] != latest:
            yield Step("other", name, f"{kind} of {inputs[0]}, which is not the layer before it")
        elif kind == "Add" and weighted == inputs[0]:  # the bias of a matrix product
            yield Step("nothing", name)
        elif kind == "Conv":
            weights = constants.get(node["input"][1], {}) if len(node["input"]) > 1 else {}
            words = _padding(attributes, weights.get("dims", [])[2:], pools)
            yield Step("other", name, words) if words else Step("conv", name)
        elif kind == "AveragePool":
            plain = set(attributes.get("kernel_shape", {}).get("ints", [])) == {1}
            yield Step("nothing", name) if plain else Step("other", name, "an average pool")
        elif kind == "Gemm" and {_one(attributes.get(a, {}), "f", 1.0) for a in ("alpha", "beta")} != {1.0}:
            yield Step("other", name, "a matrix product scaled by alpha or beta")
        elif kind in _KINDS:
            yield Step(_KINDS[kind], name)
        else:
            yield Step("other", name, kind)
        pools += kind == "MaxPool"
        weighted = outputs[0] if kind in ("MatMul", "Gemm") else ""
        latest = outputs[0]
        data.update(outputs)


def _padding(attributes: dict[str, Message], kernel: list[int], pools: int) -> str:
    """Say what is wrong with a convolution's padding; nothing where its map keeps its size, or covers pool5's."""
    pads = attributes.get("pads", {}).get("ints", [0] * 2 * len(kernel))
    auto = _one(attributes.get("auto_pad", {}), "s", b"NOTSET")
    if bytes(auto).startswith(b"SAME") or not kernel:
        return ""
    same = [side // 2 for side in kernel] * 2
    if list(pads) == same or (pools == 5 and not any(pads)):
        return ""
    return f"a convolution of {' x '.join(map(str, kernel))} padded by {list(pads)}, expected {same}"


def _one(message: Message, name: str, default: Any) -> Any:
    return message.get(name, [default])[-1]


def _walk(nodes: list[Message], constants: dict[str, Message], path: Path) -> _Walk:
    walk = _Walk()
    for node in nodes:
        kind, inputs = _one(node, "op_type", ""), node.get("input", [])
        attributes = {_one(a, "name", ""): a for a in node.get("attribute", [])}
        outputs = node.get("output", [""])
        given = [constants[name] for name in inputs if name in constants]
        if kind == "Constant" and "value" in attributes:
            constants[outputs[0]] = _one(attributes["value"], "t", {})
        elif kind == "Identity" and given:
            constants[outputs[0]] = given[0]
        elif kind in ("Conv", "Gemm", "MatMul") and inputs[1:2] and inputs[1] not in constants:
            raise UserError(f"{path}: {outputs[0]}: {kind} with weights that are no constants but pass through a layer")
        elif kind == "Conv":
            _add_convolution(walk, outputs[0], given, attributes, path)
        elif kind in ("Gemm", "MatMul") and given:
            transposed = kind == "Gemm" and _one(attributes.get("transB", {}), "i", 0) == 1
            _add_matrix(walk, outputs[0], given, transposed, path)
        elif kind == "Add" and given and walk.weighted and "bias" not in walk.weighted[-1][1]:
            walk.weighted[-1][1]["bias"] = _entry(outputs[0], given[0], path)
        elif kind == "BatchNormalization" and len(given) == 4 and walk.weighted:
            epsilon = _one(attributes.get("epsilon", {}), "f", _EPSILON)
            for part, tensor in zip(_NORM_PARTS, given, strict=True):
                shift = epsilon - _EPSILON if part == "running_var" else 0.0
                walk.weighted[-1][1][f"bn.{part}"] = _entry(f"{outputs[0]}.{part}", tensor, path, shift=shift)
        elif kind == "MaxPool":
            walk.pools_up.append(_rounds_up(attributes, outputs[0], path))
        elif kind == "LRN":
            walk.lrn_alpha = _normalization(attributes, f"{path}: {outputs[0]}", len(walk.pools_up))
        elif kind == "Transpose" and len(walk.pools_up) == 5:
            # Before the first fully connected layer: the map is flattened height x width x channels.
            walk.channels_last |= _one(attributes.get("perm", {}), "ints", 0) == 1
    return walk


def _add_convolution(walk: _Walk, name: str, given: list[Message], attributes: dict[str, Message], path: Path) -> None:
    if not given:
        raise UserError(f"{path}: {name}: a convolution whose weights are no constants")
    for attribute, expected in (("strides", 1), ("dilations", 1), ("group", 1)):
        message = attributes.get(attribute, {})
        found = {*message.get("ints", []), *message.get("i", [])}
        if found - {expected}:
            raise UserError(f"{path}: {name}: expected {attribute} {expected}, found {sorted(found)}: another network?")
    parts = {"weight": _entry(name, given[0], path)}
    if len(given) > 1:
        parts["bias"] = _entry(f"{name}, bias", given[1], path)
    walk.weighted.append((name, parts))
    walk.convolutions += 1


def _add_matrix(walk: _Walk, name: str, given: list[Message], transposed: bool, path: Path) -> None:
    weight = _entry(name, given[0], path, transpose=not transposed, channels_last=walk.channels_last)
    walk.channels_last = False  # of the first fully connected layer alone
    parts = {"weight": weight}
    if len(given) > 1:
        parts["bias"] = _entry(f"{name}, bias", given[1], path)
    walk.weighted.append((name, parts))


def _normalization(attributes: dict[str, Message], where: str, pools: int) -> float:
    alpha, beta, bias = (
        _one(attributes.get(name, {}), "f", default)
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    size = _one(attributes.get("size", {}), "i", 0)
    return check_normalization(where, alpha, size=size, beta=beta, k=bias, pools=pools)


def _rounds_up(attributes: dict[str, Message], name: str, path: Path) -> bool:
    for attribute, expected in (("kernel_shape", [2, 2]), ("strides", [2, 2])):
        found = attributes.get(attribute, {}).get("ints", [])
        if found != expected:
            raise UserError(f"{path}: {name}: expected a max-pool with {attribute} {expected}, found {found}")
    padded = any(attributes.get("pads", {}).get("ints", []))
    return padded or _one(attributes.get("ceil_mode", {}), "i", 0) == 1


def _entries(walk: _Walk, path: Path) -> dict[str, Entry]:
    if len(walk.weighted) < 4:
        raise UserError(f"{path}: has {len(walk.weighted)} layers with weights; the smallest VGG has 8")
    convolutions = [(parts["weight"].shape[-1], parts["weight"].shape[0]) for _, parts in walk.weighted[:-3]]
    names = [*name_in_order(convolutions), "fc6", "fc7", "fc8"]
    entries = {}
    for ours, (theirs, parts) in zip(names, walk.weighted, strict=True):
        weight = parts["weight"]
        if "bias" not in parts and weight.shape:
            parts["bias"] = _zeros(f"{theirs}, bias", weight.shape[0])
        for part, entry in parts.items():
            norm = part.startswith("bn.")
            entries[f"{ours.replace('conv', 'bn') if norm else ours}.{part.removeprefix('bn.')}"] = entry
        if "bn.weight" in parts:
            entries[f"{ours.replace('conv', 'bn')}.num_batches_tracked"] = Entry(theirs, (), lambda: torch.zeros(()))
    return entries


def _zeros(theirs: str, count: int) -> Entry:
    """Return the bias of a layer without one: batch norm behind it has its own."""
    return Entry(theirs, (count,), lambda: torch.zeros(count))


def _entry(
    theirs: str,
    tensor: Message,
    path: Path,
    transpose: bool = False,
    channels_last: bool = False,
    shift: float = 0.0,
) -> Entry:
    shape = tuple(tensor.get("dims", []))
    kind = _TYPES.get(_one(tensor, "data_type", 1))
    if kind is None or any(side < 0 for side in shape):
        raise UserError(
            f"{path}: {theirs}: expected numbers with a fraction, found data type {tensor.get('data_type')}"
        )
    pieces = list(_pieces(tensor, theirs, path))
    count = 1
    for side in shape:
        count *= side
    if sum(map(len, pieces)) != count * np.dtype(kind).itemsize:
        held = sum(map(len, pieces)) / np.dtype(kind).itemsize
        raise UserError(f"{path}: {theirs}: expected {shape} = {count:,} values, found {held:,.0f}")

    def read() -> Tensor:
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        values: NDArray[np.float32] = np.array(np.frombuffer(data, dtype=kind), dtype=np.float32).reshape(shape)
        tensor_read = torch.from_numpy(values.T if transpose else values)
        return tensor_read + shift if shift else tensor_read

    return Entry(theirs, shape[::-1] if transpose else shape, read, channels_last)


def _pieces(tensor: Message, theirs: str, path: Path) -> Iterator[memoryview]:
    """Yield views of a tensor's bytes, which may lie in a file beside this one."""
    if _one(tensor, "data_location", 0) != 1:
        yield from tensor.get("raw_data", tensor.get("float_data", []))
        return
    told = {_one(pair, "key", ""): _one(pair, "value", "") for pair in tensor.get("external_data", [])}
    name = told.get("location", "")
    if not name or Path(name).name != name:
        raise UserError(f"{path}: {theirs}: its data lie in {name!r}; only a file in the same folder is read")
    try:
        data = map_file(path.with_name(name))
        start, size = int(told.get("offset", 0)), int(told.get("length", len(data)))
    except ValueError as error:
        raise UserError(f"{path}: {theirs}: its data in {name} cannot be read ({error})") from None
    if start < 0 or size < 0 or start + size > len(data):
        raise UserError(f"{path}: {theirs}: {name} is too short for its data")
    yield data[start : start + size]
