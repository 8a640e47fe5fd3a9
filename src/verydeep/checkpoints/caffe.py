"""Caffe's `.caffemodel`, with or without its `.prototxt`, read and written."""

import json
import re
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.files import read_text, write_aside, write_text
from verydeep.checkpoints import layers as kinds
from verydeep.checkpoints.inputs import CAFFE
from verydeep.checkpoints.layers import Array, Checkpoint, Layer
from verydeep.checkpoints.naming import FULLY_CONNECTED
from verydeep.checkpoints.protobuf import Decoder, Field, Message, Schema, encode, map_file
from verydeep.checkpoints.prototxt import parse, render
from verydeep.checkpoints.recognize import parse_description
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import describe

_CONVOLUTION: Schema = {
    "num_output": Field(1, "int"),
    "pad": Field(3, "int"),
    "kernel_size": Field(4, "int"),
    "group": Field(5, "int"),
    "stride": Field(6, "int"),
    "pad_h": Field(9, "int"),
    "pad_w": Field(10, "int"),
    "stride_h": Field(13, "int"),
    "stride_w": Field(14, "int"),
    "dilation": Field(18, "int"),
}
_INNER_PRODUCT: Schema = {"num_output": Field(1, "int"), "transpose": Field(6, "int")}
_POOLING: Schema = {
    "pool": Field(1, "int"),
    "kernel_size": Field(2, "int"),
    "stride": Field(3, "int"),
    "pad": Field(4, "int"),
    "round_mode": Field(13, "int"),
}
_LRN: Schema = {
    "local_size": Field(1, "int"),
    "alpha": Field(2, "float"),
    "beta": Field(3, "float"),
    "k": Field(5, "float"),
}
_RELU: Schema = {"negative_slope": Field(1, "float")}
_DROPOUT: Schema = {"dropout_ratio": Field(1, "float")}
_TRANSFORM: Schema = {"scale": Field(1, "float"), "mean_file": Field(4, "text"), "mean_value": Field(5, "float")}
_SHAPE: Schema = {"dim": Field(1, "int")}
_BLOB: Schema = {
    "num": Field(1, "int"),
    "channels": Field(2, "int"),
    "height": Field(3, "int"),
    "width": Field(4, "int"),
    "data": Field(5, "bytes"),
    "shape": Field(7, _SHAPE),
    "double_data": Field(8, "bytes"),
}
_LAYER: Schema = {
    "name": Field(1, "text"),
    "type": Field(2, "text"),
    "bottom": Field(3, "text"),
    "top": Field(4, "text"),
    "blobs": Field(7, _BLOB),
    "transform_param": Field(100, _TRANSFORM),
    "convolution_param": Field(106, _CONVOLUTION),
    "dropout_param": Field(108, _DROPOUT),
    "inner_product_param": Field(117, _INNER_PRODUCT),
    "lrn_param": Field(118, _LRN),
    "pooling_param": Field(121, _POOLING),
    "relu_param": Field(123, _RELU),
}
_V1_LAYER: Schema = {
    "v0": Field(1, "bytes"),
    "name": Field(4, "text"),
    "type": Field(5, "int"),
    "blobs": Field(6, _BLOB),
    "convolution_param": Field(10, _CONVOLUTION),
    "inner_product_param": Field(17, _INNER_PRODUCT),
    "lrn_param": Field(18, _LRN),
    "pooling_param": Field(19, _POOLING),
    "relu_param": Field(30, _RELU),
    "transform_param": Field(36, _TRANSFORM),
}
_NET: Schema = {
    "name": Field(1, "text"),
    "layers": Field(2, _V1_LAYER),
    "input": Field(3, "text"),
    "input_shape": Field(8, _SHAPE),
    "layer": Field(100, _LAYER),
    # Ours: readers of protocol buffers skip numbers that they do not know.
    "verydeep": Field(50_001, "bytes"),
}
_V1_TYPES = {
    0: "None", 1: "Accuracy", 2: "BNLL", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 7: "EuclideanLoss",
    8: "Flatten", 9: "HDF5Data", 10: "HDF5Output", 11: "Im2col", 12: "ImageData", 13: "InfogainLoss",
    14: "InnerProduct", 15: "LRN", 16: "MultinomialLogisticLoss", 17: "Pooling", 18: "ReLU", 19: "Sigmoid",
    20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 23: "TanH", 24: "WindowData", 25: "Eltwise", 26: "Power",
    27: "SigmoidCrossEntropyLoss", 28: "HingeLoss", 29: "MemoryData", 30: "ArgMax", 31: "Threshold",
    32: "DummyData", 33: "Slice", 34: "MVN", 35: "AbsVal", 36: "Silence", 37: "ContrastiveLoss", 38: "Exp",
    39: "Deconvolution",
}  # fmt: skip
_TYPES_OF_TEXT = {kind.lower(): kind for kind in _V1_TYPES.values()} | {"softmaxloss": "SoftmaxWithLoss"}
"""Of the old format's INNER_PRODUCT and the like, without case and underscores."""

_SIMPLE: dict[str, type[Layer]] = {
    "Dropout": kinds.Dropout,
    "Flatten": kinds.Flatten,
    "Sigmoid": kinds.Sigmoid,
    "SigmoidCrossEntropyLoss": kinds.Sigmoid,
    "Softmax": kinds.Softmax,
    "SoftmaxWithLoss": kinds.Softmax,
}
_BOOKKEEPING = ("Accuracy", "Split", "Silence", "Input", "Data", "None")
"""Types of layers that change no value; with all whose name ends in Data."""


def is_caffe(net: Message) -> bool:
    """Say whether a decoded protocol buffer has Caffe's layers."""
    return bool(net.get("layer") or net.get("layers"))


def read(path: Path, prototxt: Path | None = None) -> Checkpoint:
    """Read a `.caffemodel`, of the old (V1) or the new layer format; it is mapped into memory, not loaded.

    The layers of a `prototxt`, the net's definition, must be those of the file, and what it says of them counts, mean
    values too. UserError where a file is damaged or not Caffe's, or the two do not fit.
    """
    net = Decoder(str(path)).decode(map_file(path), _NET)
    if not is_caffe(net):
        raise UserError(f"{path}: no layers of Caffe in it")
    found, graph = _by_name(net, path), False
    if prototxt is not None:
        definition = _definition(prototxt)
        _compare(found, definition, path, prototxt)
        # Caffe runs the definition, and looks weights up by name; what this one leaves out, the file says.
        graph = all(name in definition for name, layer in found.items() if layer.get("blobs"))
        both = {name: {**found.get(name, {}), **layer} for name, layer in definition.items()}
        found = both if graph else found | both
    preprocessing = CAFFE
    for name, layer in found.items():
        if transform := _last(layer, "transform_param"):
            preprocessing = _transformed(preprocessing, transform, f"{path}: {name}")
    layers = [made for name, layer in found.items() for made in _layers(name, layer, path)]
    first = next((place for place, layer in enumerate(layers) if isinstance(layer, kinds.Dense)), 0)
    if first and not isinstance(layers[first - 1], kinds.Flatten):
        layers.insert(first, kinds.Flatten(layers[first].name))  # an inner product flattens by itself
    return Checkpoint(
        kind="caffe",
        layers=tuple(layers if graph else _in_order(layers)),
        preprocessing=preprocessing,
        graph=graph,
        description=parse_description(bytes(net["verydeep"][-1]) if "verydeep" in net else None, path),
    )


def _by_name(net: Message, path: Path) -> dict[str, Message]:
    """Return a net's layers by their names, with their types as the new format writes them."""
    found: dict[str, Message] = {}
    for layer in [*net.get("layer", []), *net.get("layers", [])]:
        if not isinstance(layer, dict):
            continue
        if "v0" in layer:
            raise UserError(
                f"{path}: is of Caffe's oldest format (before 2014); Caffe's upgrade_net_proto_binary renews it"
            )
        kind = _one(layer, "type", "")
        old = _V1_TYPES.get(kind, "other") if isinstance(kind, int) else str(kind)
        name = _one(layer, "name", "") or f"{old} {len(found)}"
        if name in found and layer.get("blobs"):
            raise UserError(f"{path}: {name}: there are two layers of this name")
        found[name] = {**layer, "type": [_TYPES_OF_TEXT.get(old.replace("_", "").lower(), old)]}
    return found


def _layers(name: str, layer: Message, path: Path) -> list[Layer]:
    """Return what a layer of Caffe is: nothing, where it is there for training or for data."""
    kind = layer["type"][0]
    if kind in _SIMPLE:
        return [_SIMPLE[kind](name)]
    if kind in ("Convolution", "InnerProduct") or layer.get("blobs"):
        return _weighted(name, kind, layer, path)
    if kind == "ReLU":
        slope = _one(_last(layer, "relu_param"), "negative_slope", 0.0)
        return [kinds.Other(name, kind, f"negative_slope {slope:.6g}") if slope else kinds.Relu(name)]
    if kind == "Pooling":
        return [_pool(name, _last(layer, "pooling_param"))]
    if kind == "LRN":
        values = (("local_size", 5), ("alpha", 1.0), ("beta", 0.75), ("k", 1.0))
        return [kinds.LocalResponseNorm(name, *(_one(_last(layer, "lrn_param"), *value) for value in values))]
    return [] if kind in _BOOKKEEPING or kind.endswith("Data") else [kinds.Other(name, kind)]


def _weighted(name: str, kind: str, layer: Message, path: Path) -> list[Layer]:
    blobs = layer.get("blobs", [])
    parts = ("weight", "bias", *(f"blob{i}" for i in range(2, len(blobs))))
    arrays = {part: _array(f"{name}.{part}", blob, path) for part, blob in zip(parts, blobs, strict=False)}
    ours = _our_name(name)
    if kind == "InnerProduct":
        if _one(_last(layer, "inner_product_param"), "transpose", 0):
            return [kinds.Other(name, kind, "transposed")]
        return [kinds.Dense(name, arrays, ours)]
    if kind != "Convolution":
        return [kinds.Other(name, kind)]
    param = _last(layer, "convolution_param")
    sides = [tuple(_one(param, f"{key}_{axis}", _one(param, key, default)) for axis in "hw")
             for key, default in (("pad", 0), ("stride", 1))]  # fmt: skip
    stated = "kernel_size" in param or "pad_h" in param
    return [
        kinds.Conv(
            name,
            arrays,
            ours,
            padding=(sides[0][0], sides[0][1]) * 2 if stated else None,
            stride=sides[1],
            dilation=(_one(param, "dilation", 1),),
            groups=_one(param, "group", 1),
        )
    ]


def _our_name(name: str) -> str | None:
    """Return the paper's name that a layer bears; `fc6-conv` and the like are those of Caffe's own examples."""
    bare = re.sub(r"[-_]conv$", "", name)
    return bare if bare in FULLY_CONNECTED or re.fullmatch(r"conv\d_\d+", bare) else None


def _pool(name: str, param: Message) -> Layer:
    kind = {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}.get(found := _one(param, "pool", 0), found)
    if kind != "MAX" or _one(param, "pad", 0):
        return kinds.Other(name, "Pooling", f"{kind}, pad {_one(param, 'pad', 0)}")
    kernel, stride = _one(param, "kernel_size", 2), _one(param, "stride", 1)
    return kinds.MaxPool(name, (kernel, kernel), (stride, stride), _one(param, "round_mode", 0) not in (1, "FLOOR"))


def _in_order(layers: list[Layer]) -> list[Layer]:
    """Return the layers in the order of their names: Caffe looks weights up by name, in whatever order they are."""
    named = [layer for layer in layers if isinstance(layer, kinds.Conv | kinds.Dense) and layer.ours]
    in_order = sorted(named, key=lambda layer: (layer.ours in FULLY_CONNECTED, layer.ours))
    if named == in_order:
        return layers
    others = [layer for layer in layers if layer not in named and not isinstance(layer, kinds.Relu | kinds.MaxPool)]
    return [*in_order, *others]


def _transformed(preprocessing: Preprocessing, transform: Message, where: str) -> Preprocessing:
    """Take the mean of a data layer over."""
    if "mean_file" in transform:
        raise UserError(f"{where}: subtracts a mean image (mean_file), which is not read; give its mean_value instead")
    if (scale := _one(transform, "scale", 1.0)) != 1:
        raise UserError(f"{where}: its input is scaled by {scale:g}, which is not read")
    means = [float(f"{mean:.7g}") for mean in transform.get("mean_value", [])]
    if not means:
        return preprocessing
    if len(means) not in (1, 3):
        raise UserError(f"{where}: has {len(means)} mean values, expected 3 (B, G, R) or one for all")
    blue, green, red = means if len(means) == 3 else means * 3
    return replace(preprocessing, mean=(red, green, blue))


def _last(message: Message, name: str) -> Message:
    found = message.get(name, [{}])[-1]
    return found if isinstance(found, dict) else {}


def _one(message: Message, name: str, default: Any) -> Any:
    return message.get(name, [default])[-1]


def _definition(prototxt: Path) -> dict[str, Message]:
    layers = _by_name(parse(read_text(prototxt), str(prototxt)), prototxt)
    if not layers:
        raise UserError(f"{prototxt}: defines no layers")
    return layers


def _compare(found: dict[str, Message], definition: dict[str, Message], path: Path, prototxt: Path) -> None:
    """Raise UserError where a layer of the definition has no weights in the file, or has another number of them."""
    for name, layer in definition.items():
        if layer["type"][0] not in ("Convolution", "InnerProduct"):
            continue
        param = _last(layer, "convolution_param") or _last(layer, "inner_product_param")
        blobs = found.get(name, {}).get("blobs")
        if not blobs:
            raise UserError(f"{path}: {name}: {prototxt} defines this layer, found no weights for it")
        shape, wanted = _blob_shape(blobs[-1], f"{path}: {name}"), _one(param, "num_output", None)
        if wanted is not None and (not shape or shape[-1] != wanted):
            raise UserError(f"{path}: {name}: expected {wanted} outputs, as in {prototxt}, found {shape[-1:]}")


def _blob_shape(blob: Message, where: str) -> tuple[int, ...]:
    if "shape" in blob:
        shape = tuple(_last(blob, "shape").get("dim", []))
    else:
        shape = tuple(_one(blob, axis, 0) for axis in ("num", "channels", "height", "width"))
        if shape[:2] == (1, 1):  # the old format writes matrices and vectors with four sides
            shape = shape[2:] if shape[2] != 1 else shape[3:]
    if any(side < 0 for side in shape):
        raise UserError(f"{where}: claims a shape of {shape}")
    return shape


def _array(theirs: str, blob: Message, path: Path) -> Array:
    shape = _blob_shape(blob, f"{path}: {theirs}")
    name, kind = ("data", "<f4") if "data" in blob else ("double_data", "<f8")
    pieces = blob.get(name, [])
    count = prod(shape)
    held, size = sum(map(len, pieces)), np.dtype(kind).itemsize
    if held != count * size:
        raise UserError(
            f"{path}: {theirs}: expected {' x '.join(map(str, shape))} = {count:,} values, found {held / size:,.0f}"
        )

    def read() -> Tensor:
        if len(pieces) == 1:  # a view; it is copied where the bytes become the network's
            values = np.frombuffer(pieces[0], dtype=kind)
        else:
            values = np.frombuffer(b"".join(pieces), dtype=kind)
        return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(shape)

    return Array(theirs, shape, read)


def write(net: VGG, path: Path) -> None:
    """Write a `.caffemodel` and beside it the `.prototxt` that Caffe wants with it; UserError for batch norm."""
    if net.batch_norm:
        raise UserError("caffe's VGGs have no batch norm: add --fold-batch-norm, which changes no output")
    if path.suffix != ".caffemodel":
        raise UserError(f"{path}: a file for caffe must end in .caffemodel")
    layers = _define(net)
    side = net.image_size
    head = {"name": f"VGG_{net.configuration.name}", "input": "data", "input_shape": {"dim": [1, 3, side, side]}}
    state = net.state_dict()
    full = [{**layer, "blobs": _blobs(state, layer["name"])} for layer in layers]
    with write_aside(path) as aside, aside.open("wb") as file:
        file.writelines(encode({**head, "layer": full, "verydeep": json.dumps(describe(net)).encode()}, _NET))
    write_text(path.with_suffix(".prototxt"), render({**head, "layer": layers}) + "\n")


def _define(net: VGG) -> list[dict[str, Any]]:
    """Return the layers as Caffe defines them, without weights."""
    layers: list[dict[str, Any]] = []
    bottom = "data"
    for name, module in net.named_children():
        kind, top, param = _kind(net, name, module)
        layers.append({"name": name, "type": kind, "bottom": bottom, "top": top or bottom, **param})
        bottom = top or bottom
    return [*layers, {"name": "prob", "type": "Softmax", "bottom": bottom, "top": "prob"}]


def _kind(net: VGG, name: str, module: torch.nn.Module) -> tuple[str, str | None, dict[str, Any]]:
    """Return a layer's type, the name of its output (None: in place), and its settings."""
    if name.startswith("conv") and isinstance(module, torch.nn.Conv2d):
        kernel = module.kernel_size[0]
        values = {"num_output": module.out_channels, "pad": kernel // 2, "kernel_size": kernel}
        return "Convolution", name, {"convolution_param": values}
    if isinstance(module, torch.nn.Conv2d):
        return "InnerProduct", name, {"inner_product_param": {"num_output": module.out_channels}}
    if name.startswith("pool"):
        rounding = {} if net.preprocessing.pool_round_up else {"round_mode": 1}
        return "Pooling", name, {"pooling_param": {"kernel_size": 2, "stride": 2, **rounding}}
    if name.startswith("drop"):
        return "Dropout", None, {"dropout_param": {"dropout_ratio": net.config.dropout}}
    if name.startswith("norm"):
        return "LRN", name, {"lrn_param": {"local_size": 5, "alpha": 5 * net.config.lrn_alpha, "beta": 0.75, "k": 2.0}}
    return "ReLU", None, {}


def _blobs(state: dict[str, Tensor], name: str) -> list[dict[str, Any]]:
    blobs = []
    for part in ("weight", "bias"):
        if f"{name}.{part}" in state:
            tensor = state[f"{name}.{part}"].detach().cpu().contiguous()
            tensor = tensor.flatten(1) if part == "weight" and name.startswith("fc") else tensor
            blobs.append({"shape": {"dim": list(tensor.shape)}, "data": tensor.numpy().data.cast("B")})
    return blobs
