"""Caffe's `.caffemodel`, with or without its `.prototxt`, read and written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside, write_text
from verydeep.interchange.foreign import (
    CAFFE,
    OUR_NAMINGS,
    Entry,
    Foreign,
    check_normalization,
    name_in_order,
    parse_description,
)
from verydeep.interchange.graph import Kind, Step
from verydeep.interchange.prototxt import parse, render
from verydeep.interchange.wire import Decoder, Field, Message, Schema, encode, map_file
from verydeep.nets.preprocessing import Preprocessing
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import describe

_CONVOLUTION: Schema = {
    "num_output": Field(1, "int"),
    "pad": Field(3, "int"),
    "kernel_size": Field(4, "int"),
    "group": Field(5, "int"),
    "stride": Field(6, "int"),
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
    **{1: "Accuracy", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 12: "ImageData"},
    **{14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU", 19: "Sigmoid", 20: "Softmax", 21: "SoftmaxWithLoss"},
    **{22: "Split", 23: "TanH", 24: "WindowData", 25: "Eltwise", 26: "Power", 27: "SigmoidCrossEntropyLoss"},
    **{29: "MemoryData", 32: "DummyData", 36: "Silence"},
}
_TYPES_OF_TEXT = {
    **{"CONVOLUTION": "Convolution", "INNER_PRODUCT": "InnerProduct", "POOLING": "Pooling", "RELU": "ReLU"},
    **{"SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss", "SIGMOID": "Sigmoid", "DROPOUT": "Dropout"},
    **{"DATA": "Data", "IMAGE_DATA": "ImageData", "ACCURACY": "Accuracy", "FLATTEN": "Flatten", "SPLIT": "Split"},
}
_STEPS: dict[str, Kind] = {
    **{"Convolution": "conv", "InnerProduct": "dense", "Pooling": "pool", "LRN": "lrn"},
    **{"Softmax": "softmax", "Sigmoid": "sigmoid", "SigmoidCrossEntropyLoss": "sigmoid"},
    **dict.fromkeys(("Accuracy", "SoftmaxWithLoss", "Dropout", "Flatten", "Split", "Silence", "Input"), "nothing"),
    **dict.fromkeys(("Data", "ImageData", "MemoryData", "WindowData", "DummyData"), "nothing"),
}


def is_caffe(net: Message) -> bool:
    """Say whether a decoded protocol buffer has Caffe's layers."""
    return bool(net.get("layer") or net.get("layers"))


def read(path: Path, prototxt: Path | None = None) -> Foreign:
    """Read a `.caffemodel`, of the old (V1) or the new layer format; it is mapped into memory, not loaded.

    Parameters
    ----------
    path : Path
        The file.
    prototxt : Path, optional
        The net's definition: its layers must be those of the file, and mean values in it are taken over.

    Raises
    ------
    UserError
        A file is damaged or not Caffe's, holds a layer that no VGG has, or the two do not fit.
    """
    net = Decoder(str(path)).decode(map_file(path), _NET)
    if not is_caffe(net):
        raise UserError(f"{path}: no layers of Caffe in it")
    layers = [_plain(layer, str(path)) for layer in [*net.get("layer", []), *net.get("layers", [])]]
    definition = layers
    if prototxt is not None:
        definition = _definition(prototxt)
        # What the definition says of pictures counts, not what the file's data layers were trained with.
        layers = [{key: value for key, value in layer.items() if key != "transform_param"} for layer in layers]
    preprocessing, lrn_alpha = _settings(layers, str(path), CAFFE)
    if prototxt is not None:
        preprocessing, alpha = _settings(definition, str(prototxt), preprocessing)
        lrn_alpha = alpha if lrn_alpha is None else lrn_alpha
        _compare(layers, definition, path, prototxt)
    weighted = [layer for layer in layers if layer.get("blobs")]
    return Foreign(
        kind="caffe",
        entries=_entries(weighted, path),
        namings=OUR_NAMINGS,
        preprocessing=preprocessing,
        lrn_alpha=lrn_alpha,
        description=parse_description(bytes(net["verydeep"][-1]) if "verydeep" in net else None, path),
        steps=tuple(map(_step, definition)) if prototxt is not None else _kept_steps(layers),
    )


def _kept_steps(layers: list[Message]) -> tuple[Step, ...]:
    """Return the layers that no VGG has, and a sigmoid at the end.

    A file of weights may lack layers without weights, and hold them in any order: only a prototxt says all of them.
    """
    steps = [_step(layer) for layer in layers]
    wrong = [step for step in steps if step.kind == "other"]
    last = max((i for i, step in enumerate(steps) if step.kind in ("conv", "dense")), default=0)
    return (*wrong, *([steps[last], *steps[last + 1 :]] if any(s.kind == "sigmoid" for s in steps[last:]) else []))


def _step(layer: Message) -> Step:
    kind, name = layer["type"][0], layer["name"][0]
    if kind == "ReLU":
        slope = _one(_last(layer, "relu_param"), "negative_slope", 0.0)
        return Step("other", name, f"a ReLU with slope {slope:g} below 0") if slope else Step("relu", name)
    known = _STEPS.get(kind)
    return Step(known, name) if known else Step("other", name, f"a layer of type {kind}")


def _plain(layer: Message, where: str) -> Message:
    """Return a layer with the type as the new format writes it."""
    if "v0" in layer:
        raise UserError(
            f"{where}: is of Caffe's oldest format (before 2014); Caffe's upgrade_net_proto_binary renews it"
        )
    kind = layer.get("type", [""])[-1]
    plain = _V1_TYPES.get(kind, f"number {kind}") if isinstance(kind, int) else _TYPES_OF_TEXT.get(kind, kind)
    return {**layer, "name": layer.get("name", [""])[-1:], "type": [plain]}


def _settings(layers: list[Message], where: str, preprocessing: Preprocessing) -> tuple[Preprocessing, float | None]:
    """Check every layer's settings; return the preprocessing and the constant of a normalization."""
    lrn_alpha, pools = None, 0
    for layer in layers:
        kind, name = layer["type"][0], layer["name"][0]
        if kind == "Convolution":
            _check_convolution(_last(layer, "convolution_param"), f"{where}: {name}")
        elif kind == "InnerProduct" and _one(_last(layer, "inner_product_param"), "transpose", 0):
            raise UserError(f"{where}: {name}: a transposed inner product is not read")
        elif kind == "Pooling":
            up = _check_pooling(_last(layer, "pooling_param"), f"{where}: {name}")
            preprocessing = replace(preprocessing, pool_round_up=up)
            pools += 1
        elif kind == "LRN":
            lrn_alpha = _normalization(_last(layer, "lrn_param"), f"{where}: {name}", pools)
        if transform := _last(layer, "transform_param"):
            preprocessing = _transformed(preprocessing, transform, f"{where}: {name}")
    return preprocessing, lrn_alpha


def _normalization(param: Message, where: str, pools: int) -> float:
    size, beta, k = (_one(param, name, default) for name, default in (("local_size", 5), ("beta", 0.75), ("k", 1.0)))
    return check_normalization(where, _one(param, "alpha", 1.0), size=size, beta=beta, k=k, pools=pools)


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


def _check_convolution(param: Message, where: str) -> None:
    kernel = _one(param, "kernel_size", None)
    for name, expected in (("stride", 1), ("dilation", 1), ("group", 1)):
        if (found := _one(param, name, 1)) != expected:
            raise UserError(f"{where}: expected {name} {expected}, found {found}: is it another network?")
    pad = _one(param, "pad", 0)
    # A fully connected layer may stand there as a convolution without padding: it covers pool5's whole window.
    connected = "fc" in where.rpartition(": ")[2] or (kernel or 0) > 5
    if kernel is not None and pad != (0 if connected else kernel // 2):
        raise UserError(f"{where}: expected pad {0 if connected else kernel // 2}, found {pad}: is it another network?")


def _check_pooling(param: Message, where: str) -> bool:
    """Return whether the pool's size is rounded up."""
    found = {name: _one(param, name, default) for name, default in (("pool", 0), ("kernel_size", 2), ("stride", 1))}
    if found["pool"] not in (0, "MAX") or found["kernel_size"] != 2 or found["stride"] != 2:
        raise UserError(f"{where}: expected a 2 x 2 max-pool of stride 2, found {found}: is it another network?")
    return _one(param, "round_mode", 0) not in (1, "FLOOR")


def _definition(prototxt: Path) -> list[Message]:
    try:
        text = prototxt.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{prototxt}: not a readable text file ({error})") from None
    net = parse(text, str(prototxt))
    layers = [layer for layer in [*net.get("layer", []), *net.get("layers", [])] if isinstance(layer, dict)]
    if not layers:
        raise UserError(f"{prototxt}: defines no layers")
    return [_plain(layer, str(prototxt)) for layer in layers]


def _compare(layers: list[Message], definition: list[Message], path: Path, prototxt: Path) -> None:
    """Raise UserError where a layer of the definition has no weights in the file, or has another number of them."""
    blobs = {layer["name"][0]: layer.get("blobs", []) for layer in layers}
    for layer in definition:
        kind, name = layer["type"][0], layer["name"][0]
        if kind not in ("Convolution", "InnerProduct"):
            continue
        param = _last(layer, "convolution_param") or _last(layer, "inner_product_param")
        if not blobs.get(name):
            raise UserError(f"{path}: {name}: {prototxt} defines this layer, found no weights for it")
        shape, wanted = _blob_shape(blobs[name][-1], f"{path}: {name}"), _one(param, "num_output", None)
        if wanted is not None and (not shape or shape[-1] != wanted):
            raise UserError(f"{path}: {name}: expected {wanted} outputs, as in {prototxt}, found {shape[-1:]}")


def _entries(layers: list[Message], path: Path) -> dict[str, Entry]:
    names = [layer["name"][0] for layer in layers]
    # Caffe's example of net surgery calls fully connected layers so that it has made convolutions of.
    names = [name.removesuffix("-conv") if name.startswith("fc") else name for name in names]
    if sum(name.startswith("conv") and name[4:5].isdigit() and name[5:6] == "_" for name in names) < len(names) / 2:
        names = _names_in_order(layers, path)
    elif "fc8" not in names and layers[-1]["type"][0] == "InnerProduct":
        names[-1] = "fc8"  # a fine-tuned network's last layer usually bears another name
    entries: dict[str, Entry] = {}
    for ours, layer in zip(names, layers, strict=True):
        theirs = layer["name"][0]
        parts = ("weight", "bias", *(f"blob{i}" for i in range(2, len(layer["blobs"]))))
        for part, blob in zip(parts, layer["blobs"], strict=False):
            name = f"{ours}.{part}"
            if name in entries:
                raise UserError(f"{path}: {theirs}: there are two layers of this name")
            entries[name] = _entry(f"{theirs}.{part}", blob, path)
    return entries


def _names_in_order(layers: list[Message], path: Path) -> list[str]:
    """Name layers that do not bear the paper's names; the last three are the fully connected ones."""
    shapes = [_blob_shape(layer["blobs"][0], f"{path}: {layer['name'][0]}") for layer in layers]
    convolutions = name_in_order([(shape[-1], shape[0]) for shape in shapes[:-3] if len(shape) == 4])
    if len(convolutions) + 3 != len(layers):
        raise UserError(f"{path}: {layers[0]['name'][0]}, ...: {len(layers)} layers that are not a VGG's")
    return [*convolutions, "fc6", "fc7", "fc8"]


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


def _entry(theirs: str, blob: Message, path: Path) -> Entry:
    shape = _blob_shape(blob, f"{path}: {theirs}")
    name, kind = ("data", "<f4") if "data" in blob else ("double_data", "<f8")
    pieces = blob.get(name, [])
    count = 1
    for side in shape:
        count *= side
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

    return Entry(theirs, shape, read)


def write(net: VGG, path: Path) -> None:
    """Write a `.caffemodel` and beside it the `.prototxt` that Caffe wants with it.

    Parameters
    ----------
    net : VGG
        Without batch norm.
    path : Path
        Ends in `.caffemodel`.

    Raises
    ------
    UserError
        Batch norm, or another ending.
    """
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
