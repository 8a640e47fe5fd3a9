"""MatConvNet's `.mat` files, of both layouts: simplenn (a cell of layers) and dagnn (layers and parameters)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verydeep.basics.errors import UserError
from verydeep.checkpoints import hdf5, matfile
from verydeep.checkpoints import layers as kinds
from verydeep.checkpoints.class_names import class_names
from verydeep.checkpoints.inputs import CAFFE
from verydeep.checkpoints.layers import Array, Checkpoint, Layer
from verydeep.checkpoints.naming import FULLY_CONNECTED
from verydeep.nets.preprocessing import Preprocessing

_START = replace(CAFFE, channel_order="RGB")
_INTERPOLATIONS = ("bilinear", "bicubic", "box", "lanczos3")


def read(path: Path) -> Checkpoint:
    """Read a MatConvNet file of MATLAB's format 5 or 7.3.

    MatConvNet takes RGB in [0, 255] and subtracts the mean stored in the file; its pools round up where the file pads
    them below and at the right. UserError: the file is damaged or another kind of `.mat`.
    """
    net = _load(path)
    if isinstance(net.get("net"), dict):  # saved as a variable, not with -struct
        net = net["net"]
    try:
        parameters = {p["name"]: p["value"] for p in _structs(net.get("params", []))}
        layers = tuple(_layer(layer, parameters) for layer in _structs(net["layers"]))
        return Checkpoint("matconvnet", layers, _preprocessing(net), classes=_classes(net))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: no network of MatConvNet ({type(error).__name__}: {error})") from None


def _load(path: Path) -> dict[str, Any]:
    """Return the file's variables: structs as dictionaries, cells and arrays of structs as lists, texts as str."""
    with path.open("rb") as opened:
        start = opened.read(10)
    if start == b"MATLAB 7.3":
        return {name: _from_hdf5(value) for name, value in hdf5.read(path).items() if name != "#refs#"}
    return matfile.read(path)


def _from_hdf5(value: Any) -> Any:
    """Return what `matfile.read` does, of format 7.3: there cells are references, and texts are numbers."""
    if isinstance(value, dict):
        return {name: _from_hdf5(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_from_hdf5(inner) for inner in value]
    if not isinstance(value, hdf5.Data):
        return value
    is_text = value.attrs.get("MATLAB_class") == "char"
    if value.attrs.get("MATLAB_empty", 0):
        return "" if is_text else np.zeros((0, 0))
    array = np.asarray(value).T  # MATLAB's order is column by column
    return "".join(map(chr, array.ravel(order="F"))) if is_text else array


_SIMPLE: dict[str, type[Layer]] = {
    "dropout": kinds.Dropout,
    "loss": kinds.Dropout,
    "sigmoid": kinds.Sigmoid,
    "softmax": kinds.Softmax,
    "softmaxloss": kinds.Softmax,
}


def _layer(layer: dict[str, Any], parameters: dict[str, Any]) -> Layer:
    """Return what a layer is; `parameters` are those of a dagnn by name."""
    name, kind = str(layer["name"]), str(layer["type"]).removeprefix("dagnn.").lower()
    about = layer["block"] if isinstance(layer.get("block"), dict) else layer
    if kind in _SIMPLE:
        return _SIMPLE[kind](name)
    if kind == "relu":
        leak = float(np.ravel(about.get("leak", 0)).max(initial=0))
        return kinds.Other(name, str(layer["type"]), f"leak {leak:g}") if leak else kinds.Relu(name)
    if kind in ("pool", "pooling"):
        return _pool(name, about)
    if kind != "conv":
        return kinds.Other(name, str(layer["type"]))
    if parameters:
        names = layer["params"] if isinstance(layer["params"], list) else [layer["params"]]
        filters, biases = (parameters[name] for name in names[:2])
    else:
        filters, biases = layer["weights"][:2] if "weights" in layer else (layer["filters"], layer["biases"])
    top, bottom, left, right = _numbers(about, "pad", 4) or (0, 0, 0, 0)
    return kinds.Conv(
        name,
        {"weight": _filters(f"{name}, filters", filters), "bias": _vector(f"{name}, biases", biases)},
        name if name in FULLY_CONNECTED or (name.startswith("conv") and "_" in name) else None,
        padding=(top, left, bottom, right) if "pad" in about else None,
        stride=_numbers(about, "stride", 2) or (1, 1),
        dilation=_numbers(about, "dilate", 2) or (1, 1),
    )


def _pool(name: str, about: dict[str, Any]) -> Layer:
    pads = _numbers(about, "pad", 4) or (0, 0, 0, 0)
    kernel = _numbers(about, "pool", 2) or _numbers(about, "poolSize", 2) or (2, 2)
    method = str(about.get("method", "max"))
    if method != "max" or pads not in ((0, 0, 0, 0), (0, 1, 0, 1)):
        return kinds.Other(name, f"a pool of method {method}", f"pad {pads}")
    return kinds.MaxPool(name, kernel, _numbers(about, "stride", 2) or (2, 2), any(pads))


def _numbers(about: dict[str, Any], key: str, count: int) -> tuple[int, ...]:
    """Return a setting as so many whole numbers, of which one stands for all; none where it is not stated."""
    values = [int(value) for value in np.ravel(about.get(key, ()))]
    return tuple((values * count)[:count]) if len(values) in (1, count) else ()


def _structs(value: Any) -> list[dict[str, Any]]:
    """Return a list of structs: a cell of them, an array of them (in format 7.3 a struct of lists), or one."""
    if isinstance(value, dict):
        if all(isinstance(item, list) for item in value.values()):
            return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
        return [value]
    return list(value)


def _preprocessing(net: dict[str, Any]) -> Preprocessing:
    meta = net["meta"] if isinstance(net.get("meta"), dict) else net
    normalization = meta.get("normalization")
    if not isinstance(normalization, dict):
        return _START
    mean = np.asarray(normalization.get("averageImage", np.zeros(0)), dtype=np.float64)
    if mean.ndim == 3 and mean.shape[2] == 3:  # a mean image; VGG's is the same color everywhere
        mean = mean.mean(axis=(0, 1))
    interpolation = str(normalization.get("interpolation", "bilinear"))
    interpolation = interpolation if interpolation in _INTERPOLATIONS else "bilinear"
    start = replace(_START, interpolation=interpolation.replace("lanczos3", "lanczos"))
    if mean.size != 3:
        return start
    red, green, blue = (float(f"{value:.7g}") for value in mean.ravel())
    return replace(start, mean=(red, green, blue))


def _classes(net: dict[str, Any]) -> tuple[str, ...] | None:
    meta = net["meta"] if isinstance(net.get("meta"), dict) else net
    classes = meta.get("classes")
    if not isinstance(classes, dict):
        return None
    names = [str(name) for name in classes.get("name", [])]
    descriptions = [str(text) for text in classes.get("description", [])]
    if names == [name.split()[0] for name in class_names()]:
        return class_names()
    if len(descriptions) == len(names):
        return tuple(f"{name} {text}" for name, text in zip(names, descriptions, strict=True))
    return tuple(names or descriptions) or None


def _four(filters: Any) -> tuple[int, ...]:
    """Return a shape with the last sides that MATLAB drops where they are 1."""
    shape = np.shape(filters)
    return (*shape, *(1 for _ in range(4 - len(shape))))


def _filters(theirs: str, values: Any) -> Array:
    height, width, inputs, outputs = _four(values)[:4]

    def read() -> torch.Tensor:
        array = np.asarray(values, dtype=np.float32).reshape((height, width, inputs, outputs), order="F")
        return torch.from_numpy(np.array(array.transpose(3, 2, 0, 1), order="C"))

    return Array(theirs, (outputs, inputs, height, width), read)


def _vector(theirs: str, values: Any) -> Array:
    array = np.asarray(values)

    def read() -> torch.Tensor:
        return torch.from_numpy(array.astype(np.float32).ravel())

    return Array(theirs, (array.size,), read)
