"""Files of Keras's VGGs: `.h5`, `.weights.h5` and `.keras` read, the first two written."""

import json
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.basics.files import write_aside
from verydeep.checkpoints import hdf5
from verydeep.checkpoints import layers as kinds
from verydeep.checkpoints.hdf5 import PACKING
from verydeep.checkpoints.inputs import KERAS
from verydeep.checkpoints.layers import Array, Checkpoint, Layer
from verydeep.checkpoints.naming import NORM_PARTS
from verydeep.checkpoints.recognize import parse_description
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import describe

KEY = "verydeep"
_HEAD = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
_MOST_TEXT = 1 << 24
"""Bytes of a model's definition; Keras's own VGG has 30 thousand."""

_EPSILON = 1e-3
"""Of Keras's batch norm, where the file does not state it."""
_MODELS = ("Functional", "Sequential", "Model")
_IDLE = (
    "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization",
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
)  # fmt: skip
"""Classes of layers that do nothing in testing."""
_ACTIVATIONS = {"relu": kinds.Relu, "softmax": kinds.Softmax, "sigmoid": kinds.Sigmoid}
_SILENT = {"activation", "re_lu", "softmax", "input_layer", "max_pooling2d", "flatten", "zero_padding2d"}
"""Kinds of layers that have no arrays and may stand in a file of weights alone: a VGG may have them."""
_TELLING = {"average_pooling2d", "elu", "leaky_re_lu", "rescaling", "add", "concatenate", "multiply", "lambda"}
"""Names of layers that say that it is another network; others may be anybody's."""


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


def read(path: Path) -> Checkpoint:
    """Read a Keras file, whole model or weights alone, with or without the fully connected layers.

    UserError: the file is damaged, or h5py is missing.
    """
    file, model = _open(path)
    try:
        if model is None and "model_config" in file.attrs:
            model = json.loads(file.attrs["model_config"])
        group = file.get("model_weights", file)
        old = "layer_names" in group.attrs
        if not old and "layers" not in file:
            raise UserError(f"{path}: an HDF5 file without Keras's layers")
        if model is None:
            layers = _of_weights(list(_old_layers(group) if old else _new_layers(file["layers"])), old, path)
        else:
            named = dict(_old_layers(group)) if old else None
            layers = [made for layer in _of_model(model, file.get("layers"), named) for made in _layers(*layer, path)]
        description = None
        if KEY in file:
            (description,) = file[KEY]
    except UserError:
        raise
    except (OSError, KeyError, AttributeError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a readable Keras file ({type(error).__name__}: {error})") from None
    return Checkpoint(
        "keras",
        tuple(layers),
        KERAS,
        graph=model is not None,
        image_size=_image_size(model),
        description=parse_description(description, path),
    )


Arrays = list[Any]
"""A layer's, in Keras's order: kernel and bias, say."""


def _open(path: Path) -> tuple[Any, dict[str, Any] | None]:
    """Return the HDF5 file's groups and, of a `.keras` archive, the model's definition."""
    if not zipfile.is_zipfile(path):
        return hdf5.read(path), None
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("model.weights.h5")
            if member.file_size > PACKING * path.stat().st_size:
                raise UserError(f"{path}: claims to hold {member.file_size:,} bytes of weights")
            model = None
            if "config.json" in archive.namelist():
                with archive.open("config.json") as text:
                    model = json.loads(text.read(_MOST_TEXT))
            # HDF5 reads here and there, a member of an archive only forward.
            with tempfile.TemporaryFile() as inner:
                with archive.open(member) as source:
                    shutil.copyfileobj(source, inner, 1 << 20)
                inner.flush()
                return hdf5.read(path, inner), model
    except UserError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable Keras file ({error})") from None


def _old_layers(group: Any) -> Iterator[tuple[str, Arrays]]:
    """Keras 1 and 2 and Keras 3's `.h5`: attributes say which layers and arrays there are, in order."""
    for name in group.attrs["layer_names"]:
        layer, inner = group.at(name), dict[str, Arrays]()
        for part in layer.attrs.get("weight_names", ()):
            inner.setdefault(part.rpartition("/")[0].rpartition("/")[2], []).append(layer.at(part))
        if len(inner) < 2:  # else it is a model in the model
            yield name, [array for arrays in inner.values() for array in arrays]
        else:
            yield from inner.items()


def _new_layers(group: Any) -> Iterator[tuple[str, Arrays]]:
    """Keras 3's `.weights.h5`: groups named by kind, `conv2d_3/vars/0`; the layer's own name is an attribute."""
    for key in sorted(group, key=_natural):
        variables = group[key].get("vars", {})
        arrays = _variables(variables)
        name = variables.attrs["name"] if arrays and "name" in variables.attrs else key
        if "layers" in group[key]:
            yield from _new_layers(group[key]["layers"])
        else:
            yield name, arrays


def _variables(group: Any) -> Arrays:
    return [group[part] for part in sorted(group, key=_natural)]


def _natural(name: str) -> tuple[str, int]:
    """Sort key under which conv2d comes before conv2d_1, and conv2d_9 before conv2d_10."""
    match = re.fullmatch(r"(.*?)_?(\d*)", name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def _of_model(
    model: dict[str, Any], group: Any, named: Mapping[str, Arrays] | None
) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    """Yield class, settings and arrays of a model's layers, in order; of models in it, theirs.

    Keras 3 counts the layers of each class (`group`), before that they bore their own names (`named`).
    """
    counts = Counter[str]()
    about = model["config"]
    for layer in about if isinstance(about, list) else about["layers"]:
        kind, settings = layer["class_name"], layer["config"]
        snake = _snake(kind)
        key = f"{snake}_{counts[snake]}" if counts[snake] else snake
        counts[snake] += 1
        inner = group.get(key, {}) if group is not None else {}
        if kind in _MODELS:
            yield from _of_model(layer, inner.get("layers"), named)
        else:
            arrays = _variables(inner.get("vars", {})) if named is None else named.get(settings["name"], [])
            yield kind, settings, arrays


def _image_size(model: Any) -> int | None:
    """Return the side of the square pictures that a model says it takes; None where it takes any."""
    if isinstance(model, dict):
        shape = model.get("batch_shape") or model.get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and shape[1] == shape[2]:
            return shape[1] if isinstance(shape[1], int) else None
    inner = model.values() if isinstance(model, dict) else model if isinstance(model, list) else ()
    return next((side for value in inner if (side := _image_size(value))), None)


def _snake(kind: str) -> str:
    """Return the name that Keras makes of a class's.

    Examples
    --------
    >>> _snake("MaxPooling2D"), _snake("LeakyReLU")
    ('max_pooling2d', 'leaky_re_lu')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", kind).lower()


def _layers(kind: str, about: dict[str, Any], arrays: Arrays, path: Path) -> Iterator[Layer]:
    """Yield what one layer of Keras is: a convolution and its activation, say."""
    name = str(about.get("name", kind))
    if kind in ("Conv2D", "Convolution2D", "Dense"):
        yield _weighted(name, arrays, path, about)
        yield from _activation(name, about.get("activation"))
    elif kind == "BatchNormalization":
        yield _batch_norm(name, arrays, about)
    elif kind == "Activation":
        yield from _activation(name, about["activation"])
    elif kind == "Softmax":
        yield kinds.Softmax(name)
    elif kind == "ReLU" and about.get("max_value") is None and not about.get("negative_slope"):
        yield kinds.Relu(name) if not about.get("threshold") else kinds.Other(name, kind, "with a threshold")
    elif kind == "MaxPooling2D":
        size = tuple(about["pool_size"])
        up = about.get("padding", about.get("border_mode")) == "same"
        yield kinds.MaxPool(name, size, tuple(about.get("strides") or size), up)
    elif kind == "GlobalAveragePooling2D":
        yield kinds.Mean(name)
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = about["padding"]
        yield kinds.Pad(name, (top, left, bottom, right))
    elif kind == "Flatten":
        yield kinds.Flatten(name, about.get("data_format", "channels_last") == "channels_last")
    elif kind == "Rescaling":
        yield kinds.Affine(name, _three(about["scale"]), _three(about["offset"]))
    elif kind == "Normalization" and not about.get("invert"):
        mean, variance = (_three(given) for given in (arrays[:2] or (about["mean"], about["variance"])))
        scale = tuple(1 / max(value**0.5, 1e-7) for value in variance)
        yield kinds.Affine(name, scale, tuple(-m * s for m, s in zip(mean, scale, strict=True)))
    elif kind not in (*_IDLE, "InputLayer"):
        facts = [
            f"{key} {about[key]}" for key in ("alpha", "negative_slope", "max_value", "pool_size") if about.get(key)
        ]
        yield kinds.Other(name, kind, ", ".join(facts))


def _three(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in np.ravel(values))


def _activation(name: str, activation: Any) -> Iterator[Layer]:
    if activation in _ACTIVATIONS:
        yield _ACTIVATIONS[activation](name)
    elif activation not in (None, "linear"):
        word = activation if isinstance(activation, str) else activation["class_name"]
        yield kinds.Other(name, f"the activation {word}")


def _weighted(name: str, arrays: Arrays, path: Path, about: Mapping[str, Any] | None = None) -> kinds.Weighted:
    """Return a convolution or fully connected layer; `about` are its settings, where the file has them."""
    if not 0 < len(arrays) < 3 or arrays[0].ndim not in (2, 4):
        shapes = ", ".join(str(data.shape) for data in arrays)
        raise UserError(f"{path}: {name}: no layer of a VGG (its arrays: {shapes})")
    kernel = arrays[0]
    if kernel.ndim == 4 and kernel.shape[0] != kernel.shape[1] and kernel.shape[2] == kernel.shape[3]:
        shape = " x ".join(map(str, kernel.shape))
        raise UserError(
            f"{path}: {name}: its kernels are {shape}, in Theano's order; expected height x width x inputs x outputs, "
            "as Keras with TensorFlow writes them"
        )
    made = {
        part: _array(f"{name}/{theirs}", data) for (part, theirs), data in zip(_PARTS.items(), arrays, strict=False)
    }
    layer = (kinds.Dense if kernel.ndim == 2 else kinds.Conv)(name, made, our_layer(name))
    if about is None:
        return layer
    layer = kinds.with_bias(layer)
    if not isinstance(layer, kinds.Conv):
        return layer
    same = about.get("padding", about.get("border_mode")) == "same"
    rows, columns = (side // 2 if same else 0 for side in kernel.shape[:2])
    return replace(
        layer,
        padding=(rows, columns, rows, columns),
        stride=tuple(about.get("strides", about.get("subsample", (1, 1)))),
        dilation=tuple(about.get("dilation_rate", (1, 1))),
        groups=about.get("groups", 1),
    )


_PARTS = {"weight": "kernel", "bias": "bias"}


def _batch_norm(name: str, arrays: Arrays, about: Mapping[str, Any]) -> kinds.Weighted:
    there = [part for part, key in (("weight", "scale"), ("bias", "center")) if about.get(key, True)]
    made = {part: _array(f"{name}/{part}", data) for part, data in zip([*there, *NORM_PARTS[2:4]], arrays, strict=True)}
    count = arrays[-1].shape[0]
    ones = Array(f"{name}/weight", (count,), lambda: torch.ones(count))
    made = {"weight": ones, "bias": kinds.zeros(f"{name}/bias", count), **made}
    return kinds.BatchNorm(name, made, epsilon=about.get("epsilon", _EPSILON))


def _of_weights(stored: list[tuple[str, Arrays]], old: bool, path: Path) -> list[Layer]:
    """Return the layers of a file that has weights alone: convolutions, each with its batch norm, then all others."""
    convolutions, norms, dense = list[kinds.Weighted](), list[kinds.Weighted](), list[kinds.Weighted]()
    others: list[Layer] = []
    for name, arrays in stored:
        kind = _natural(name)[0]
        if len(arrays) == 4 and {data.ndim for data in arrays} == {1}:
            norms.append(_batch_norm(name, arrays, {}))
        elif arrays:
            made = _weighted(name, arrays, path)
            (convolutions if isinstance(made, kinds.Conv) else dense).append(made)
        elif kind in _TELLING or not (old or kind in _SILENT or kind in map(_snake, _IDLE)):
            others.append(kinds.Other(name, kind))
    if norms and (len(norms) != len(convolutions) or not any(re.match("activation|re_lu", name) for name, _ in stored)):
        raise UserError(
            f"{path}: {norms[0].name}: batch norm, and the file does not say where; give the whole model (.keras) or "
            "weights of a network with batch norm and an activation layer behind each convolution"
        )
    if norms:  # which have biases of their own
        convolutions = [
            part for conv, norm in zip(convolutions, norms, strict=True) for part in (kinds.with_bias(conv), norm)
        ]
    return [*convolutions, kinds.Flatten("flatten", channels_last=True), *dense, *others]


_AXES = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
"""Height x width x inputs x outputs becomes outputs x inputs x height x width; inputs x outputs its transpose."""


def _array(theirs: str, data: Any) -> Array:
    order = _AXES.get(data.ndim, tuple(range(data.ndim)))

    def read() -> Tensor:
        return torch.from_numpy(np.array(data, dtype=np.float32)).permute(order)

    return Array(theirs, tuple(int(data.shape[axis]) for axis in order), read)


def write(net: VGG, path: Path) -> None:
    """Write weights as `keras.applications.VGG16(weights=path)` and VGG19 load them: `.weights.h5` (Keras 3) or `.h5`.

    UserError where Keras has no such network: batch norm, normalization.
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


def _weight_layers(net: VGG) -> list[str]:
    return [name.removesuffix(".weight") for name in net.state_dict() if name.endswith(".weight")]


def _write_old(file: Any, net: VGG) -> None:
    layers = [their_layer(name) for name in _weight_layers(net)]
    file.attrs["layer_names"] = [name.encode() for name in layers]
    for ours, theirs in zip(_weight_layers(net), layers, strict=True):
        group = file.create_group(theirs)
        group.attrs["weight_names"] = [f"{theirs}/{part}".encode() for part in ("kernel", "bias")]
        for part, values in zip(("kernel", "bias"), _arrays(net, ours), strict=True):
            group.create_dataset(f"{theirs}/{part}", data=values)


def _write_new(file: Any, net: VGG) -> None:
    counts = {"conv2d": 0, "dense": 0}
    for ours in _weight_layers(net):
        kind = "conv2d" if ours.startswith("conv") else "dense"
        group = file.create_group(f"layers/{kind}_{counts[kind]}" if counts[kind] else f"layers/{kind}")
        counts[kind] += 1
        variables = group.create_group("vars")
        variables.attrs["name"] = their_layer(ours)
        for number, values in enumerate(_arrays(net, ours)):
            variables.create_dataset(str(number), data=values)
