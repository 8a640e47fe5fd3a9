"""Files of torchvision's and timm's VGGs: `.pth` and `.safetensors`, read and written."""

import json
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside
from verydeep.checkpoints.inputs import TORCHVISION
from verydeep.checkpoints.layers import Array, BatchNorm, Checkpoint, Conv, Dense, Layer, Relu, Weighted, zeros
from verydeep.checkpoints.naming import NORM_PARTS
from verydeep.checkpoints.recognize import parse_description
from verydeep.nets.configurations import CONFIGURATIONS, Configuration
from verydeep.nets.vgg import VGG
from verydeep.nets.weights import describe, write_safetensors

KEY = "verydeep"

_MOST_LIST = 1 << 24
"""Bytes of the pickle that names a file's tensors: a VGG's has five thousand, and each is an instruction."""

_SCALAR: Any = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    Namespace,
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
]
"""What scripts save beside tensors, none of which holds code: their arguments, and numbers of numpy."""

_HEADS = {
    "torchvision": {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"},
    "timm": {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"},
}
_PARTS = ("weight", "bias")


def names(style: str, configuration: Configuration, batch_norm: bool) -> dict[str, str]:
    """Return torchvision's or timm's name of every tensor by ours.

    Both number the layers of their `features` in order: convolution, perhaps batch norm, ReLU; pools between.

    Examples
    --------
    >>> theirs = names("torchvision", CONFIGURATIONS["A"], False)
    >>> theirs["conv2_1.weight"], theirs["fc6.bias"]
    ('features.3.weight', 'classifier.0.bias')
    """
    theirs: dict[str, str] = {}
    index = 0
    for b, block in enumerate(configuration.blocks, start=1):
        for i in range(1, len(block) + 1):
            theirs |= {f"conv{b}_{i}.{part}": f"features.{index}.{part}" for part in _PARTS}
            if batch_norm:
                theirs |= {f"bn{b}_{i}.{part}": f"features.{index + 1}.{part}" for part in NORM_PARTS}
            index += 3 if batch_norm else 2
        index += 1
    return theirs | {f"{ours}.{part}": f"{name}.{part}" for ours, name in _HEADS[style].items() for part in _PARTS}


def read_safetensors(path: Path) -> Checkpoint:
    """Read a `.safetensors` file of torchvision's or timm's naming. UserError: the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None

    def read(name: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    arrays = {name: Array(name, shape, partial(read, name)) for name, shape in shapes.items()}
    return _checkpoint(arrays, metadata.get(KEY), path)


def read_pickle(path: Path) -> Checkpoint:
    """Read a `.pth` file of a network; as `read_tensors`."""
    state = read_tensors(path)
    description = getattr(state, "_metadata", {}).get("", {}).get(KEY)
    return _checkpoint(
        {name: Array(name, tuple(one.shape), one.clone) for name, one in state.items()}, description, path
    )


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Read a `.pth` file: a dictionary of tensors, perhaps inside another one; no object's code is ever run.

    They are still in the file where that can be mapped. UserError: the file is damaged, or holds anything but tensors
    and plain values.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_list(path)
        # Mapped, so that tensors are read as they are copied; files of torch before 1.6 cannot be.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles written otherwise than torch does: they are refused or read
            with torch.serialization.safe_globals(_HARMLESS):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        reason = "Unsupported" in str(error) or "Weights only" in str(error)
        what = "holds Python objects beside tensors, which are never loaded" if reason else "damaged"
        raise UserError(
            f"{path}: {what}; expected a dictionary of tensors, as torch.save(net.state_dict(), ...) writes it"
        ) from None
    except Exception as error:  # a damaged file makes torch raise errors of many types
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a readable torch file ({type(error).__name__}: {said})") from None
    state = _state(content, path)
    for name, tensor in state.items():
        if tensor.is_quantized:
            raise UserError(f"{path}: {name}: holds 8-bit numbers (quantized); give the file it was quantized from")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise UserError(f"{path}: {name}: claims more values than the file holds")
    return state


def _check_list(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        sizes = [member.file_size for member in archive.infolist() if member.filename.endswith("/data.pkl")]
    if max(sizes, default=0) > _MOST_LIST:
        raise UserError(f"{path}: is damaged: its list of tensors claims {max(sizes):,} bytes")


def _state(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors: the dictionary itself, or what stands in it under the usual names."""
    for key in ("state_dict", "model_state_dict", "state", "model", "net"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors by name")
    strange = [name for name, value in content.items() if not isinstance(value, Tensor) or not isinstance(name, str)]
    if strange:
        raise UserError(f"{path}: {strange[0]!r} is no tensor; expected a dictionary of tensors by name")
    return content


def _renamed(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays without what training tools put around names, and with what older torch left out."""
    found = {name: array for name, array in arrays.items() if not name.endswith(("total_ops", "total_params"))}
    # Of a wrapped network every name begins alike: module., _orig_mod., backbone. and the like.
    first = next((name for name in found if re.search(r"(^|\.)features\.(module\.)?0\.weight$", name)), "features.0")
    prefix = first[: first.rindex("features.")]
    if prefix and all(name.startswith(prefix) for name in found):
        found = {name.removeprefix(prefix): array for name, array in found.items()}
    found = {re.sub(r"^features\.module\.", "features.", name): array for name, array in found.items()}
    if found and all(re.match(r"\d+\.", name) for name in found):  # the trunk alone, as a bare Sequential
        found = {f"features.{name}": array for name, array in found.items()}
    if "classifier.6.0.weight" in found and "classifier.6.1.weight" not in found:
        found = {name.replace("classifier.6.0.", "classifier.6."): array for name, array in found.items()}
    if "classifier.1.weight" in found and "classifier.4.weight" in found:  # dropout first: torchvision before 0.2
        older = {"classifier.1.": "classifier.0.", "classifier.4.": "classifier.3."}
        found = {older.get(name[:13], name[:13]) + name[13:]: array for name, array in found.items()}
    for name in [name for name in found if name.endswith(".running_var")]:
        before = re.sub(r"\d+(?=\.running_var$)", lambda index: str(int(index[0]) - 1), name)
        weight = found.get(before.replace("running_var", "weight"))
        if weight and len(weight.shape) == 4:  # batch norm has a bias of its own
            bias = before.replace("running_var", "bias")
            found.setdefault(bias, zeros(bias, weight.shape[0]))
    return found


def _checkpoint(arrays: dict[str, Array], description: str | None, path: Path) -> Checkpoint:
    arrays = _renamed(arrays)
    if (head := _head(arrays)) is not None:
        # A chain of matrices of another length than torchvision's: their numbers tell their order.
        arrays = {name: array for name, array in arrays.items() if not name.startswith(_HEAD)}
    style = "timm" if any(name.startswith(("pre_logits.", "head.")) for name in arrays) else "torchvision"
    namings = [names(style, CONFIGURATIONS[letter], norm) for letter in "ABDE" for norm in (False, True)]
    naming = min(namings, key=lambda naming: len(arrays.keys() ^ {*naming.values()}))
    ours = {theirs: name for name, theirs in naming.items()}
    in_order = [theirs for theirs in naming.values() if theirs in arrays]
    layers: dict[str, dict[str, Array]] = {}
    for theirs in [*in_order, *(theirs for theirs in arrays if theirs not in ours)]:
        layer, _, part = ours.get(theirs, f"extra {theirs}.").rpartition(".")
        layers.setdefault(layer, {})[part] = arrays[theirs]
    kinds: dict[str, type[Weighted]] = {"conv": Conv, "bn": BatchNorm, "fc": Dense}
    found = [kinds.get(re.sub(r"[\d_]+$", "", name), Weighted)(name, of, name) for name, of in layers.items()]
    return Checkpoint(
        kind=style,
        layers=(*found, *(head or [])),
        preprocessing=TORCHVISION,
        graph=False,
        description=parse_description(description, path),
        names={} if head else naming,
    )


_HEAD = ("classifier.", "fc.", "head.")


def _head(arrays: Mapping[str, Array]) -> list[Layer] | None:
    """Return the layers of a classifier that is a chain of other length than torchvision's; None of any other.

    A ReLU is taken to stand between two matrices where their numbers leave room for it, as in the paper; batch norm
    stands before it where its number follows that of its matrix.
    """
    pattern = re.compile(rf"(classifier|fc|head)\.(?:(\d+)\.)?({'|'.join(NORM_PARTS)})")
    parts: dict[int, dict[str, Array]] = {}
    kinds = set()
    if not any(name.startswith("features.") for name in arrays):
        return None
    for name, array in arrays.items():
        if (match := pattern.fullmatch(name)) is None:
            if name.startswith(_HEAD):
                return None
            continue
        kinds.add(match[1])
        parts.setdefault(int(match[2] or 0), {})[match[3]] = array
    matrices = [place for place, of in sorted(parts.items()) if len(of.get("weight", Array("", (), _none)).shape) == 2]
    if len(kinds) != 1 or not matrices or matrices in ([0, 3, 6], [0, 6], [3, 6], [3], [6]):
        return None  # torchvision's, perhaps with one lost
    if matrices == [0, 3] and parts[0]["weight"].shape[0] == parts[3]["weight"].shape[0]:
        return None  # torchvision's without the last one: what it ends with are no classes
    layers: list[Layer] = []
    before, room = max(parts), False  # whether there is a matrix without a ReLU
    for place, of in sorted(parts.items()):
        name = of["weight"].name.rpartition(".")[0] if "weight" in of else str(place)
        if place > before + 1 and room:
            layers.append(Relu(f"{name}, ReLU before it"))
            room = False
        if place in matrices:
            layers.append(Dense(name, of))
            room = True
        elif "running_var" in of:
            layers.append(BatchNorm(name, of))
        else:
            return None
        before = place
    return layers


def _none() -> Tensor:
    return torch.zeros(0)


def write(net: VGG, path: Path, style: str) -> None:
    """Write a network as torchvision's or timm's own classes load it, `.pth` or `.safetensors`.

    What neither holds by itself (classes, preprocessing) goes into the metadata, which the peers leave alone. UserError
    where the peer has no such configuration (A, B, D or E), or for another ending.
    """
    if net.configuration.name not in "ABDE":
        raise UserError(f"{style} has no configuration {net.configuration.name}; its VGGs are A, B, D and E")
    if path.suffix not in (".pth", ".safetensors"):
        raise UserError(f"{path}: a file for {style} must end in .pth or .safetensors")
    theirs = names(style, net.configuration, net.batch_norm)
    state = OrderedDict((theirs[ours], tensor.detach().cpu()) for ours, tensor in net.state_dict().items())
    for name, tensor in state.items():
        linear = name.startswith(("classifier.", "head.")) and name.endswith(".weight")
        state[name] = (tensor.flatten(1) if linear else tensor).contiguous().clone()
    description = json.dumps(describe(net))
    if path.suffix == ".safetensors":
        write_safetensors(path, state, {"format": "pt", KEY: description})
        return
    state._metadata = {"": {"version": 1, KEY: description}}  # type: ignore[attr-defined]
    with write_aside(path) as aside, aside.open("wb") as file:  # torch's own writer has no OSError for a full disk
        torch.save(state, file)
