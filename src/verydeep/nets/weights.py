"""Weights files: safetensors whose metadata says everything needed to run the network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from verydeep.basics.errors import UserError
from verydeep.basics.files import file_hash, usual_permissions, write_aside
from verydeep.nets.config import NetworkConfig
from verydeep.nets.network import Network, TaskName
from verydeep.nets.run_info import RunInfo

Net = TypeVar("Net", bound=Network)

FORMAT_VERSION = 1
WITH_DESCRIPTOR = 2
"""Version of files whose fc8 classifies descriptors: versions of verydeep that know of none must not run them."""
_KEY = "verydeep"


def save(net: Network, path: str | Path) -> None:
    """Write a network's weights, classes, preprocessing and provenance, whole or not at all.

    Parameters
    ----------
    net : Network
        The network.
    path : str or Path
        Where the file goes; by convention it ends in `.safetensors`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_safetensors(Path(path), tensors, {_KEY: json.dumps(describe(net))})


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    with write_aside(path) as aside:
        try:
            save_file(tensors, aside, metadata)
        except SafetensorError as error:  # a full disk
            raise OSError(str(error)) from None
        usual_permissions(aside)


def describe(net: Network) -> dict[str, Any]:
    """Return all that a weights file says of its network beside the weights, JSON-able."""
    version = WITH_DESCRIPTOR if net.config.descriptor else FORMAT_VERSION
    return {"format_version": version, "task": net.task, **net.config.to_dict(), "provenance": net.provenance.to_dict()}


def read(path: str | Path, make: Callable[[NetworkConfig], Net], task: TaskName | None = None) -> Net:
    """Read a network from a file that `save` wrote, made by its family's class; else as `verydeep.load`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; train one with `verydeep train`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); `verydeep convert` reads other formats"
        ) from error
    if metadata is None:
        raise UserError(
            f"{path}: a safetensors file without verydeep's metadata: what network it holds is unknown; "
            "`verydeep convert` reads other projects'"
        )
    try:
        values = json.loads(metadata)
    except ValueError as error:
        raise UserError(f"{path}: verydeep's metadata is damaged ({error})") from None
    net = make_empty(values, str(path), make)
    if task:
        net.check_task(task, path)
    _fill(net, tensors, path)
    return net.eval()


def weights_hash(path: str | Path) -> str:
    """Return the SHA-256 of a weights file, by which posteriors name the network they came from."""
    return file_hash(Path(path))


def make_empty(values: dict[str, Any], where: str, make: Callable[[NetworkConfig], Net]) -> Net:
    """Make the network that `describe` described, its weights still on the meta device, by its family's class.

    UserError, with the file's name, for another version's values, or no such values at all.
    """
    version = values.get("format_version") if isinstance(values, dict) else None
    if version not in (FORMAT_VERSION, WITH_DESCRIPTOR):
        raise UserError(
            f"{where}: format version {version}, this version of verydeep reads {FORMAT_VERSION} and {WITH_DESCRIPTOR}"
        )
    try:
        config = NetworkConfig.from_dict(values)
        with torch.device("meta"):
            net = make(config)
        net.provenance = RunInfo.from_dict(values["provenance"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise UserError(f"{where}: verydeep's metadata is damaged ({type(error).__name__}: {error})") from None
    return net


def _fill(net: Network, tensors: dict[str, torch.Tensor], path: Path) -> None:
    expected = net.state_dict()
    for name in [*expected, *tensors]:
        shapes = [tuple(state[name].shape) if name in state else "no such tensor" for state in (expected, tensors)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{path}: {name}: expected {shapes[0]}, found {shapes[1]}")
        if tensors[name].is_floating_point() != expected[name].is_floating_point():
            raise UserError(f"{path}: {name}: expected {expected[name].dtype}, found {tensors[name].dtype}")
        if not tensors[name].isfinite().all():
            raise UserError(f"{path}: {name}: holds values that are no finite numbers; use other weights")
    net.load_state_dict({name: tensors[name].to(tensor.dtype) for name, tensor in expected.items()}, assign=True)
