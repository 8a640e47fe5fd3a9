"""Picture files compared: one pair, or the pairs of two folders."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.images.decode import BYTES_A_PIXEL, MAX_PIXELS, read_header
from verydeep.images.files import find_pictures, read_picture
from verydeep.inference.memory import beyond, bytes_per_view
from verydeep.nets.network import Network
from verydeep.perceptual.comparison import Comparison
from verydeep.perceptual.dists import DISTS
from verydeep.perceptual.losses import ContentLoss, StyleLoss
from verydeep.perceptual.lpips import LPIPS

MetricName = Literal["lpips", "dists", "content", "style"]
Picture = NDArray[np.uint8]

_MAPS = 3
"""Times what one picture takes in the network: both pictures' maps, and those that a segment works on."""


_ARRAYS = (".zarr", ".npy")
"""What is read in windows, whatever its size."""


@dataclass(frozen=True)
class Pair:
    """A picture and its reference, called `name`."""

    name: str
    picture: Path
    reference: Path


def make_metric(name: MetricName, net: Network, fitted: Path | None = None, **words: Any) -> Comparison:
    """Return a metric by its name, for pictures in bytes unless `words` say else; `fitted` is LPIPS's or DISTS's."""
    words = {"range": (0, 255), **words}
    if fitted is not None and name not in ("lpips", "dists"):
        raise UserError(f"{fitted}: fitted weights are LPIPS's or DISTS's, and {name} has none; leave them out")
    if name == "lpips":
        return LPIPS(net, fitted, **words)
    if name == "dists":
        return DISTS(net, fitted, **words)
    if name == "content":
        return ContentLoss(net, **words)
    if name == "style":
        return StyleLoss(net, **words)
    raise UserError(f"metric {name!r}: expected {', '.join(get_args(MetricName))}")


def find_pairs(pictures: Path, references: Path) -> list[Pair]:
    """Return one pair, or two folders' by their paths inside, without endings; UserError for one without a mate."""
    if _is_folder(pictures) != _is_folder(references):
        folder, file = (pictures, references) if _is_folder(pictures) else (references, pictures)
        raise UserError(f"{folder} is a folder, {file} is none; expected two pictures or two folders")
    if not _is_folder(pictures):
        return [Pair(pictures.name, pictures, references)]
    first, second = (_by_name(folder) for folder in (pictures, references))
    for here, there, folder in ((first, second, references), (second, first, pictures)):
        if alone := [name for name in here if name not in there]:
            raise UserError(
                f"{here[alone[0]]}: nothing of this name in {folder} ({len(alone)} of {len(here)} have no mate); "
                "expected the same names in both folders"
            )
    return [Pair(name, first[name], second[name]) for name in first]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and path.suffix not in _ARRAYS


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in find_pictures([folder]):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(
                f"{file}: has the name of {found[name]}; expected one picture of a name, whatever its ending"
            )
        found[name] = file
    return found


def fits_whole(pair: Pair, net: Network, memory: int) -> bool:
    """Return whether both pictures can be compared at once within `memory` bytes, by what their first one's file says.

    Of a file that is no picture that says its size, yes: reading it says what is wrong.
    """
    path = pair.picture
    if path.suffix in _ARRAYS:
        return False
    try:
        if path.stat().st_size > memory // _MAPS:
            return False
        header = read_header(path.read_bytes(), str(path), max_pixels=sys.maxsize)
    except (OSError, UserError):
        return True
    if header.height * header.width > min(MAX_PIXELS, memory // (2 * BYTES_A_PIXEL)):
        return False
    return min(header.height, header.width) < net.least_size or memory >= _MAPS * bytes_per_view(
        net, header.height, header.width
    )


def read_pair(pair: Pair, net: Network, memory: int) -> tuple[Picture, Picture]:
    """Read both pictures; UserError where one is damaged, their sizes differ, or they take more than may be taken."""
    picture, reference = (read_picture(path, memory // BYTES_A_PIXEL) for path in (pair.picture, pair.reference))
    check_pair(picture, reference, (str(pair.picture), str(pair.reference)), net, memory)
    return picture, reference


def check_pair(picture: Picture, reference: Picture, names: tuple[str, str], net: Network, memory: int) -> None:
    """Refuse pictures whose sizes differ, or that take more in the network than may be taken."""
    if picture.shape != reference.shape:
        sizes = " and ".join(f"{shape[1]} x {shape[0]}" for shape in (picture.shape, reference.shape))
        raise UserError(f"{names[0]} and {names[1]}: {sizes} pixels; expected one size")
    what = f"{names[0]}: {picture.shape[1]} x {picture.shape[0]} pixels"
    if reason := beyond(memory, _MAPS * bytes_per_view(net, *picture.shape[:2]), what, "give more"):
        raise UserError(reason)


def as_tensors(pictures: Sequence[Picture], device: torch.device) -> list[Tensor]:
    """Return pictures as batches of one on a device, uint8, 1 x 3 x H x W."""
    return [torch.from_numpy(picture).permute(2, 0, 1)[None].to(device) for picture in pictures]


def on_tensors(metric: Callable[[Tensor, Tensor], Tensor], pair: Sequence[Tensor]) -> Tensor:
    """Return what a metric gives for one pair, without gradients."""
    with torch.no_grad():
        return metric(pair[0], pair[1])[0]
