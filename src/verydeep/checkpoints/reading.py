"""Any weights file, by its content, or any public one, by its name."""

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from verydeep.basics.errors import UserError
from verydeep.basics.files import file_hash
from verydeep.checkpoints import caffe, keras_files, matconvnet, onnx_file, torch_files
from verydeep.checkpoints.inputs import PREPROCESSINGS
from verydeep.checkpoints.layers import Checkpoint, Other, Weighted
from verydeep.checkpoints.public import fetch, is_name
from verydeep.checkpoints.recognize import recognize, without_head
from verydeep.nets import families
from verydeep.nets.network import Network
from verydeep.nets.run_info import RunInfo

FIRST = {"conv1_1.weight", "conv1.weight"}
"""What the first layer of our networks is called."""

FORMATS = "verydeep, torchvision, timm, Keras, Caffe, MatConvNet and ONNX"


def load(
    source: str | Path,
    *,
    preprocessing: str | Mapping[str, Any] | None = None,
    classes: list[str] | None = None,
    prototxt: str | Path | None = None,
    offline: bool = False,
    trunk: bool = False,
) -> Network:
    """Read a network from a weights file of any known format, or from public weights by name.

    The format is told by the file's content. Each has its own preprocessing and order of fc6's inputs, and both are
    turned into ours; docs/weights.md has the table.

    Parameters
    ----------
    source : str or Path
        A file, or a name such as `torchvision:vgg16`, `timm:vgg19_bn.tv_in1k`, `keras:vgg16`, `caffe:vgg19`, which
        is downloaded into the user's cache.
    preprocessing : str or mapping, optional
        What pictures the file's network wants, where the file is silent or wrong: whose ("torchvision", "timm",
        "caffe", "keras"), or fields of `Preprocessing` by name, with "like" for whose the others are (by default the
        file's format's). Not for files that verydeep wrote, which say it themselves; nor is `classes`.
    classes : list of str, optional
        Names of the classes in order. By default the file's; of a network with 1,000 classes ILSVRC's; else
        numbers.
    prototxt : str or Path, optional
        The definition of a `.caffemodel`; it is checked against the file.
    offline : bool
        Whether nothing may be downloaded.
    trunk : bool
        Whether only the convolutions are taken, whatever stands behind them.

    Returns
    -------
    Network
        On the CPU, in evaluation mode, its `provenance` saying where it comes from.

    Raises
    ------
    UserError
        No such file or name, an unknown format, or a layer that is missing, too much, misshapen or not finite.
    """
    name = str(source)
    path, about = fetch(name, offline=offline) if is_name(name) else (Path(source), {})
    kind = detect(path)
    stated = {"like": preprocessing} if isinstance(preprocessing, str) else dict(preprocessing or {})
    like = stated.pop("like", None)
    if like is not None and like not in PREPROCESSINGS:
        raise UserError(f"preprocessing is {like!r}, expected one of {', '.join(PREPROCESSINGS)}")
    found = None if kind == "verydeep" else _read(kind, path, Path(prototxt) if prototxt is not None else None)
    if (found is None or found.description is not None) and (preprocessing is not None or classes is not None):
        raise UserError(f"{path}: verydeep wrote this file, and it says its classes and preprocessing itself")
    if found is None:
        ours = families.load(path)
        return _cut(ours) if trunk else ours
    if preprocessing is not None:
        usual = PREPROCESSINGS[like] if like else found.preprocessing
        found = replace(found, preprocessing=replace(usual, **stated))
    every = found.layers
    if trunk:
        found = without_head(found)
    given = tuple(classes) if classes is not None else None
    net: Network = recognize(found, path, given, stated=preprocessing is not None)
    about = {"file": path.name, "sha256": file_hash(path), **about}
    if trunk:
        kept = {layer.name for layer in found.layers}
        net = _noted(net, [one.name for one in every if isinstance(one, Weighted | Other) and one.name not in kept])
    net.provenance = RunInfo.from_dict({**net.provenance.to_dict(), **about})
    return net


def _cut(net: Network) -> Network:
    trunk = families.trunk_of(net)
    kept = dict(trunk.named_modules())
    return _noted(trunk, [n for n, layer in net.named_modules() if isinstance(layer, nn.Conv2d) and n not in kept])


def _noted(trunk: Network, left: list[str]) -> Network:
    """Write into a trunk's provenance which layers of its file it does not have."""
    more = {**trunk.provenance.more, "left_out": left}
    trunk.provenance = replace(trunk.provenance, more=more)
    return trunk


def detect(path: Path) -> str:
    """Return the format of a weights file, told by its content; `safetensors` is another project's, `torch` a pickle.

    UserError where there is no such file, it is empty, or of none of these formats.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    with path.open("rb") as file:
        start = file.read(520)
    if not start:
        raise UserError(f"{path}: is empty (0 bytes): was its download or copy cut off?")
    if start[8:9] == b"{":
        return "verydeep" if _is_ours(path) else "safetensors"
    if start.startswith(b"MATLAB "):
        return "matconvnet"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        return _detect_archive(path)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch"
    endings = {".caffemodel": "caffe", ".onnx": "onnx", ".pth": "torch", ".pt": "torch", ".safetensors": "safetensors"}
    endings |= {".h5": "keras", ".keras": "keras", ".mat": "matconvnet"}
    if path.suffix in endings:
        return endings[path.suffix]
    try:
        return "onnx" if onnx_file.is_onnx(path) else "caffe"
    except UserError:
        raise UserError(f"{path}: no weights file of a known format; these are read: {FORMATS}") from None


def _is_ours(path: Path) -> bool:
    """Say whether a safetensors file describes a network of ours, under our own names of layers."""
    try:
        with safe_open(path, framework="pt") as file:
            return "verydeep" in (file.metadata() or {}) and bool(FIRST & set(file.keys()))
    except (SafetensorError, OSError):
        return False


def _detect_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise UserError(f"{path}: is damaged or cut off ({error})") from None
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise UserError(f"{path}: a zip archive that is neither torch's nor Keras's; these are read: {FORMATS}")


def _read(kind: str, path: Path, prototxt: Path | None) -> Checkpoint:
    if kind == "caffe":
        return caffe.read(path, prototxt)
    if prototxt is not None:
        raise UserError(f"{prototxt}: a prototxt goes with a .caffemodel, and {path} is none")
    readers = {
        "safetensors": torch_files.read_safetensors,
        "torch": torch_files.read_pickle,
        "keras": keras_files.read,
        "matconvnet": matconvnet.read,
        "onnx": onnx_file.read,
    }
    return readers[kind](path)
