"""MatConvNet's `.mat` files, of both layouts: simplenn (a cell of layers) and dagnn (layers and parameters)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.interchange import matfile
from verydeep.interchange.foreign import CAFFE, OUR_NAMINGS, Entry, Foreign, name_in_order
from verydeep.interchange.graph import Kind, Step
from verydeep.interchange.ilsvrc import class_names
from verydeep.nets.preprocessing import Preprocessing

_START = replace(CAFFE, channel_order="RGB")
_INTERPOLATIONS = ("bilinear", "bicubic", "box", "lanczos3")


@dataclass(frozen=True)
class _Layer:
    """A layer with weights: filters height x width x inputs x outputs, and biases."""

    name: str
    filters: NDArray[Any]
    biases: NDArray[Any]


def read(path: Path) -> Foreign:
    """Read a MatConvNet file of MATLAB's format 5 or 7.3.

    MatConvNet takes RGB in [0, 255] and subtracts the mean stored in the file; its pools round up where the file
    pads them below and at the right.

    Raises
    ------
    UserError
        The file is damaged or another kind of `.mat`, or has a layer that no VGG has.
    """
    net = _load(path)
    if isinstance(net.get("net"), dict):  # saved as a variable, not with -struct
        net = net["net"]
    try:
        kinds, steps = list(_layers(net)), tuple(_steps(net))
        layers = [layer for layer in kinds if isinstance(layer, _Layer)]
        pads = [layer for layer in kinds if not isinstance(layer, _Layer)]
        preprocessing = replace(_preprocessing(net), pool_round_up=any(pads))
        classes = _classes(net)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: no network of MatConvNet ({type(error).__name__}: {error})") from None
    names = _names(layers, path)
    entries = {}
    for ours, layer in zip(names, layers, strict=True):
        entries[f"{ours}.weight"] = _filters(f"{layer.name}, filters", layer.filters)
        entries[f"{ours}.bias"] = _vector(f"{layer.name}, biases", layer.biases)
    return Foreign("matconvnet", entries, OUR_NAMINGS, preprocessing, classes=classes, steps=steps)


_STEPS: dict[str, Kind] = {
    **{"relu": "relu", "softmax": "softmax", "sigmoid": "sigmoid", "normalize": "lrn", "lrn": "lrn"},
    **dict.fromkeys(("dropout", "softmaxloss", "loss", "flatten"), "nothing"),
}


def _steps(net: dict[str, Any]) -> Iterator[Step]:
    """Yield what the layers do."""
    pools = 0
    for layer in _structs(net["layers"]):
        kind, name = str(layer["type"]).removeprefix("dagnn.").lower(), str(layer["name"])
        about = layer["block"] if isinstance(layer.get("block"), dict) else layer
        leak = float(np.ravel(about.get("leak", 0)).max(initial=0))
        if kind == "conv":
            words = _wrong(_numbers(about, "size"), _numbers(about, "pad"), _numbers(about, "stride"), pools)
            yield Step("other", name, words) if words else Step("conv", name)
        elif kind in ("pool", "pooling"):
            method = str(about.get("method", "max"))
            yield Step("other", name, f"a pool by {method}") if method != "max" else Step("pool", name)
            pools += 1
        elif leak:
            yield Step("other", name, f"a ReLU with slope {leak:g} below 0")
        else:
            yield Step(_STEPS.get(kind, "other"), name, f"a layer of type {kind}")


def _numbers(about: dict[str, Any], key: str) -> list[int]:
    return [int(value) for value in np.ravel(about.get(key, []))]


def _wrong(size: list[int], pad: list[int], stride: list[int], pools: int) -> str:
    """Say what a VGG's convolutions have not; nothing where there is nothing, or the file says nothing."""
    if set(stride) - {1}:
        return f"a convolution of stride {stride}"
    kernel = size[0] if size else 3 if pools < 5 else 0
    if pools < 5 and kernel > 1 and pad and set(pad) != {kernel // 2}:
        return f"a convolution of {kernel} x {kernel} padded by {pad}, expected {kernel // 2}"
    return ""


def _load(path: Path) -> dict[str, Any]:
    """Return the file's variables: structs as dictionaries, cells and arrays of structs as lists, texts as str."""
    with path.open("rb") as opened:
        start = opened.read(10)
    if start == b"MATLAB 7.3":
        h5py = need("h5py", "keras")
        try:
            with h5py.File(path, "r") as file:
                return {name: _from_hdf5(file, file[name]) for name in file if name != "#refs#"}
        except (OSError, KeyError, RuntimeError, RecursionError) as error:
            raise UserError(f"{path}: not a readable .mat file ({error})") from None
    return matfile.read(path)


def _from_hdf5(file: Any, value: Any) -> Any:
    """Return what `matfile.read` does, of format 7.3: there cells are references, and texts are numbers."""
    h5py = need("h5py", "keras")
    if isinstance(value, h5py.Group):
        return {name: _from_hdf5(file, value[name]) for name in value}
    if value.dtype == h5py.ref_dtype:
        return [_from_hdf5(file, file[reference]) for reference in value[...].ravel()]
    kind = value.attrs.get("MATLAB_class", b"")
    if value.attrs.get("MATLAB_empty", 0):
        return "" if kind == b"char" else np.zeros((0, 0))
    if value.nbytes > 4 * value.file.id.get_filesize():
        raise UserError(f"{value.name}: claims more values than the file holds")
    array = value[...].T  # MATLAB's order is column by column
    return "".join(map(chr, array.ravel(order="F"))) if kind == b"char" else array


def _layers(net: dict[str, Any]) -> Iterator[_Layer | bool]:
    """Yield layers with weights, and for each pool whether it is padded at its end."""
    parameters = {p["name"]: p["value"] for p in _structs(net.get("params", []))}
    for layer in _structs(net["layers"]):
        kind = str(layer["type"]).removeprefix("dagnn.").lower()
        settings = layer["block"] if isinstance(layer.get("block"), dict) else layer
        if kind in ("pool", "pooling"):
            yield bool(np.ravel(settings.get("pad", 0)).max(initial=0) > 0)
        elif kind in ("conv", "bnorm", "batchnorm", "convt", "convtranspose", "normalize", "lrn"):
            if kind != "conv":
                raise ValueError(f"layer {layer['name']} is of type {layer['type']}, which its VGGs have not")
            if parameters:
                names = layer["params"] if isinstance(layer["params"], list) else [layer["params"]]
                weights = [parameters[name] for name in names]
            else:
                weights = layer["weights"] if "weights" in layer else [layer["filters"], layer["biases"]]
            yield _Layer(str(layer["name"]), weights[0], weights[1])


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


def _names(layers: list[_Layer], path: Path) -> list[str]:
    """Name the layers in order; the last three are the fully connected ones."""
    if len(layers) < 4:
        raise UserError(f"{path}: has {len(layers)} layers with weights; the smallest VGG has 8")
    shapes = [_four(layer.filters) for layer in layers]
    given = [layer.name for layer in layers]
    if len(set(given)) == len(given) and sum(name.startswith("conv") and "_" in name for name in given) >= 4:
        return given
    return [*name_in_order([(shape[0], shape[3]) for shape in shapes[:-3]]), "fc6", "fc7", "fc8"]


def _four(filters: Any) -> tuple[int, ...]:
    """Return a shape with the last sides that MATLAB drops where they are 1."""
    shape = np.shape(filters)
    return (*shape, *(1 for _ in range(4 - len(shape))))


def _filters(theirs: str, values: Any) -> Entry:
    height, width, inputs, outputs = _four(values)[:4]

    def read() -> torch.Tensor:
        array = np.asarray(values, dtype=np.float32).reshape((height, width, inputs, outputs), order="F")
        return torch.from_numpy(np.array(array.transpose(3, 2, 0, 1), order="C"))

    return Entry(theirs, (outputs, inputs, height, width), read)


def _vector(theirs: str, values: Any) -> Entry:
    array = np.asarray(values)

    def read() -> torch.Tensor:
        return torch.from_numpy(array.astype(np.float32).ravel())

    return Entry(theirs, (array.size,), read)
