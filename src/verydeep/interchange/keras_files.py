"""Files of Keras's VGGs: `.h5`, `.weights.h5` and `.keras` read, the first two written."""

import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.files import write_aside
from verydeep.interchange.foreign import KERAS, OUR_NAMINGS, Entry, Foreign, name_in_order, parse_description
from verydeep.interchange.graph import FULLY_CONNECTED, Kind, Step
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import describe

KEY = "verydeep"
_HEAD = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
_PACKING = 4
"""Weights hardly compress: a file that claims more than this many times its own size lies."""


def our_layer(name: str) -> str | None:
    """Return our name of one of Keras's layers, None for a name that its VGGs have not.

    Examples
    --------
    >>> our_layer("block3_conv1"), our_layer("predictions"), our_layer("conv2d_4")
    ('conv3_1', 'fc8', None)
    """
    match = re.fullmatch(r"block(\d)_conv(\d)", name)
    return f"conv{match[1]}_{match[2]}" if match else _HEAD.get(name)


def their_layer(name: str) -> str:
    """Return Keras's name of one of our layers."""
    back = {ours: theirs for theirs, ours in _HEAD.items()}
    return back.get(name) or re.sub(r"conv(\d)_(\d)", r"block\1_conv\2", name)


def read(path: Path) -> Foreign:
    """Read a Keras file, whole model or weights alone, with or without the fully connected layers.

    Raises
    ------
    UserError
        The file is damaged, or h5py is missing.
    """
    file = _open(path)
    try:
        layers = list(_layers(file, path))
        description = file[KEY][()] if KEY in file else None
        steps = tuple(_steps(_config(file, path)))
    except (OSError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable Keras file ({type(error).__name__}: {error})") from None
    names = _names(layers, path)
    entries = {}
    for (theirs, kernel, bias), ours in zip(layers, names, strict=True):
        entries[f"{ours}.weight"] = _entry(f"{theirs}/kernel", kernel)
        if bias is not None:
            entries[f"{ours}.bias"] = _entry(f"{theirs}/bias", bias)
    return Foreign(
        kind="keras",
        entries=entries,
        namings=OUR_NAMINGS,
        preprocessing=KERAS,
        description=parse_description(description, path),
        steps=steps,
    )


def _config(file: Any, path: Path) -> dict[str, Any]:
    """Return what Keras wrote down of the model; nothing where the file holds weights alone."""
    text = file.attrs.get("model_config")
    if text is None and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json")
    try:
        config = json.loads(text) if text is not None else {}
    except ValueError as error:
        raise UserError(f"{path}: its model_config is no JSON ({error})") from None
    return config if isinstance(config, dict) else {}


_NOTHING = ("InputLayer", "Dropout", "SpatialDropout2D", "Flatten", "ZeroPadding2D")
_STEPS: dict[str, Kind] = {**dict.fromkeys(_NOTHING, "nothing"), "BatchNormalization": "norm", "Softmax": "softmax"}
_ACTIVATIONS: dict[Any, Kind] = {"relu": "relu", "softmax": "softmax", "sigmoid": "sigmoid"}


def _steps(model: dict[str, Any]) -> Iterator[Step]:
    """Yield what a model's layers do, those of models inside it, too."""
    config = model.get("config", {})
    layers = config.get("layers", []) if isinstance(config, dict) else config  # a list, as Keras 1 had it
    padded = False  # by a layer of its own, as in VGGs of before Keras had `same`
    for layer in layers:
        kind, about = str(layer.get("class_name")), layer.get("config", {})
        if isinstance(about, list) or "layers" in about:
            yield from _steps(layer)
            continue
        name = str(about.get("name", kind))
        if kind in ("Conv2D", "Convolution2D", "Dense"):
            words = "" if kind == "Dense" else _wrong(about, padded)
            yield Step("other", name, words) if words else Step("dense" if kind == "Dense" else "conv", name)
        elif kind == "MaxPooling2D":
            size, strides = about.get("pool_size"), about.get("strides") or about.get("pool_size")
            plain = list(size or ()) == list(strides or ()) == [2, 2] and about.get("padding", "valid") == "valid"
            yield Step("pool", name) if plain else Step("other", name, f"a max-pool of {size}, stride {strides}")
        elif kind == "ReLU" and any(about.get(key) for key in ("negative_slope", "max_value", "threshold")):
            yield Step("other", name, "a ReLU with a slope, a threshold or a greatest value")
        elif kind in ("Activation", "ReLU") or kind in _STEPS:
            yield Step(_STEPS.get(kind, "relu" if kind == "ReLU" else "nothing"), name)
        else:
            yield Step("other", name, f"a layer of type {kind}")
        padded = kind == "ZeroPadding2D" and "1" in str(about.get("padding"))
        given = about.get("activation")
        if given not in (None, "linear"):
            yield Step(_ACTIVATIONS.get(given, "other"), name, f"followed by the activation {given}")


def _wrong(about: dict[str, Any], padded: bool) -> str:
    """Say what a VGG's convolutions have not; nothing where there is nothing."""
    if "th" in (about.get("dim_ordering"), about.get("data_format")) or about.get("data_format") == "channels_first":
        return "a convolution with Theano's order of axes (channels first)"
    for key in ("strides", "subsample", "dilation_rate", "groups"):
        if {*np.ravel(about.get(key) or 1).tolist()} != {1}:
            return f"a convolution with {key} {about[key]}"
    kernel = list(about.get("kernel_size") or (about.get("nb_row"), about.get("nb_col")))
    same = "same" in (about.get("padding"), about.get("border_mode"))
    # Without padding: the fully connected layers, written as convolutions, and what a layer of zeros is before.
    if same or padded or kernel == [1, 1] or (kernel[0] or 0) > 5:
        return ""
    return f"a convolution of {kernel[0]} x {kernel[1]} without padding"


Layer = tuple[str, Any, Any]  # Keras's name, kernel and bias as HDF5 datasets (bias perhaps None)


def _open(path: Path) -> Any:
    """Return the HDF5 file, which in a `.keras` archive is a member; it stays open as long as it is used."""
    h5py = need("h5py", "keras")
    try:
        if not zipfile.is_zipfile(path):
            return h5py.File(path, "r")
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("model.weights.h5")
            if member.file_size > _PACKING * path.stat().st_size:
                raise UserError(f"{path}: claims to hold {member.file_size:,} bytes of weights")
            # HDF5 reads here and there, a member of an archive only forward.
            inner = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the HDF5 file)
            with archive.open(member) as source:
                shutil.copyfileobj(source, inner, 1 << 20)
        return h5py.File(inner, "r")
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable Keras file ({error})") from None


def _layers(file: Any, path: Path) -> Iterator[Layer]:
    """Yield (Keras's name, kernel, bias) of the layers with weights, in the model's order."""
    size = path.stat().st_size
    group = file.get("model_weights", file)
    if "layer_names" in group.attrs:
        found = _old_layers(group)
    elif "layers" in file:
        found = _new_layers(file["layers"])
    else:
        raise UserError(f"{path}: an HDF5 file without Keras's layers")
    for name, datasets in found:
        if any(data.nbytes > _PACKING * size for data in datasets):
            raise UserError(f"{path}: {name}: claims more values than the file holds")
        if datasets:
            kernel, *rest = datasets
            if len(datasets) == 4 and all(data.ndim == 1 for data in datasets):
                raise UserError(f"{path}: {name}: is batch norm, which is not read of Keras's files")
            if len(rest) > 1 or kernel.ndim not in (2, 4):
                shapes = ", ".join(str(data.shape) for data in datasets)
                raise UserError(f"{path}: {name}: no layer of a VGG (its arrays: {shapes})")
            yield name, kernel, rest[0] if rest else None


def _old_layers(group: Any) -> Iterator[tuple[str, list[Any]]]:
    """Keras 1 and 2 and Keras 3's `.h5`: attributes say which layers and arrays there are, in order."""
    for name in map(_text, group.attrs["layer_names"]):
        layer = group[name]
        yield name, [layer[_text(part)] for part in layer.attrs.get("weight_names", ())]


def _new_layers(group: Any) -> Iterator[tuple[str, list[Any]]]:
    """Keras 3's `.weights.h5`: groups named by kind, `conv2d_3/vars/0`; the layer's own name is an attribute."""
    for key in sorted(group, key=_natural):
        variables = group[key].get("vars", {})
        name = _text(variables.attrs["name"]) if len(variables) and "name" in variables.attrs else key
        yield name, [variables[part] for part in sorted(variables, key=_natural)]


def _natural(name: str) -> tuple[str, int]:
    """Sort key under which conv2d comes before conv2d_1, and conv2d_9 before conv2d_10."""
    match = re.fullmatch(r"(.*?)_?(\d*)", name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _names(layers: list[Layer], path: Path) -> list[str]:
    """Return our names: by Keras's own, or in order where the layers have other ones."""
    shapes = [kernel.shape for _, kernel, _ in layers]
    if any(len(shape) == 4 and shape[2] == shape[3] == 3 != shape[0] for shape in shapes):
        raise UserError(f"{path}: {layers[0][0]}: its kernels are in Theano's order of axes, which is not read")
    named = [our_layer(name) for name, _, _ in layers]
    convolutions = [name for name in named if name and name.startswith("conv")]
    if convolutions:
        unnamed = [i for i, ours in enumerate(named) if ours is None]
        if len(unnamed) == 3 and unnamed == [*range(len(layers) - 3, len(layers))]:  # a head of one's own
            named[-3:] = FULLY_CONNECTED
        return [ours or f"extra {name}" for ours, (name, _, _) in zip(named, layers, strict=True)]
    if all(len(shape) == 4 for shape in shapes) and [shape[0] for shape in shapes[-2:]] == [1, 1]:  # as VGG-Face's
        return [*name_in_order([(shape[0], shape[-1]) for shape in shapes[:-3]]), *FULLY_CONNECTED]
    kernels = [(shape[0], shape[-1]) for shape in shapes if len(shape) == 4]
    dense = len(layers) - len(kernels)
    if dense not in (0, 3):
        raise UserError(f"{path}: has {dense} fully connected layers, a VGG has 3 (or none, without its top)")
    convs, fcs = iter(name_in_order(kernels)), iter(FULLY_CONNECTED)
    return [next(convs) if kernel.ndim == 4 else next(fcs) for _, kernel, _ in layers]


_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
"""Height x width x inputs x outputs becomes outputs x inputs x height x width; inputs x outputs its transpose."""


def _entry(theirs: str, data: Any) -> Entry:
    order = _AXES.get(data.ndim, tuple(range(data.ndim)))

    def read() -> Tensor:
        return torch.from_numpy(np.asarray(data[...], dtype=np.float32)).permute(order)

    return Entry(theirs, tuple(int(data.shape[axis]) for axis in order), read, channels_last=data.ndim == 2)


def write(net: VGG, path: Path) -> None:
    """Write weights as `keras.applications.VGG16(weights=path)` and VGG19 load them.

    Parameters
    ----------
    net : VGG
        Without batch norm and normalization, which Keras's VGGs have not.
    path : Path
        Ends in `.weights.h5` (Keras 3) or `.h5` (any).

    Raises
    ------
    UserError
        Keras has no such network, or the file's ending is none of the two.
    """
    if net.batch_norm:
        raise UserError("keras's VGGs have no batch norm: add --fold-batch-norm, which changes no output")
    if net.configuration.lrn:
        raise UserError("keras has no local response normalization: A-LRN cannot be written for it")
    if path.suffix != ".h5":
        raise UserError(f"{path}: a file for keras must end in .weights.h5 or .h5")
    h5py = need("h5py", "keras")
    put: Callable[[Any, VGG], None] = _write_new if path.name.endswith(".weights.h5") else _write_old
    with write_aside(path) as aside, h5py.File(aside, "w") as file:
        put(file, net)
        # A dataset, because HDF5 ends an attribute at 64 KiB. Keras looks for its own names only.
        file.create_dataset(KEY, data=json.dumps(describe(net)))


def _arrays(net: VGG, name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return kernel and bias as Keras has them."""
    state = net.state_dict()
    weight, bias = (state[f"{name}.{part}"].detach().cpu() for part in ("weight", "bias"))
    if name.startswith("conv"):
        return weight.permute(2, 3, 1, 0).contiguous().numpy(), bias.numpy()
    return weight.permute(0, 2, 3, 1).flatten(1).T.contiguous().numpy(), bias.numpy()


def _weighted(net: VGG) -> list[str]:
    return [name.removesuffix(".weight") for name in net.state_dict() if name.endswith(".weight")]


def _write_old(file: Any, net: VGG) -> None:
    layers = [their_layer(name) for name in _weighted(net)]
    file.attrs["layer_names"] = [name.encode() for name in layers]
    for ours, theirs in zip(_weighted(net), layers, strict=True):
        group = file.create_group(theirs)
        group.attrs["weight_names"] = [f"{theirs}/{part}".encode() for part in ("kernel", "bias")]
        for part, values in zip(("kernel", "bias"), _arrays(net, ours), strict=True):
            group.create_dataset(f"{theirs}/{part}", data=values)


def _write_new(file: Any, net: VGG) -> None:
    counts = {"conv2d": 0, "dense": 0}
    for ours in _weighted(net):
        kind = "conv2d" if ours.startswith("conv") else "dense"
        group = file.create_group(f"layers/{kind}_{counts[kind]}" if counts[kind] else f"layers/{kind}")
        counts[kind] += 1
        variables = group.create_group("vars")
        variables.attrs["name"] = their_layer(ours)
        for number, values in enumerate(_arrays(net, ours)):
            variables.create_dataset(str(number), data=values)
