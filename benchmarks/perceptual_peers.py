"""The programs that people compare pictures by, as they are published, with the convolutions of a network of ours."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from verydeep.basics.errors import UserError
from verydeep.nets.network import Network
from verydeep.perceptual.fitted import installed

Compare = Callable[[Tensor, Tensor], Tensor]
"""Of pictures from 0 to 1 and their references, N x 3 x H x W, to distances, (N,)."""

FOLDER = Path(__file__).parents[1] / "build" / "peers"
VERSIONS = (
    *("lpips==0.1.4", "dists-pytorch==0.1", "pyiqa==0.1.16", "piq==0.8.0"),
    *("torchmetrics==1.9.0", "lightning-utilities==0.15.3"),
)
"""Installed there without what they depend on, most of which none of this needs."""

_LIBRARIES: list[Any] = []


def use() -> None:
    """Make the peers importable; UserError where they are not there."""
    if not (FOLDER / "lpips").is_dir():
        raise UserError(
            f"{FOLDER}: not there; make test-peers makes it, or: pip install --no-deps --target {FOLDER} "
            f"{' '.join(VERSIONS)}"
        )
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import_torchvision()


def import_torchvision() -> Any:
    """Return torchvision; beside a CPU build of torch two of its operators are missing, which its import describes."""
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            _LIBRARIES.append(library)  # it undoes its definitions when it goes
            description = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(description)  # type: ignore[no-untyped-call]
    import torchvision

    return torchvision


def torchvisions(net: Network) -> Any:
    """Return torchvision's `vgg16().features` with the weights of a trunk of D."""
    vgg = import_torchvision().models.vgg
    theirs = vgg.make_layers(vgg.cfgs["D"])
    with torch.no_grad():
        for value, own in zip(theirs.parameters(), net.parameters(), strict=True):
            value.copy_(own)
    return theirs


@contextmanager
def _instead_of_a_download(net: Network) -> Iterator[None]:
    models = import_torchvision().models
    before, theirs = models.vgg16, SimpleNamespace(features=torchvisions(net))
    models.vgg16 = lambda **_: theirs
    try:
        yield
    finally:
        models.vgg16 = before


def lpips(net: Network) -> tuple[Any, Compare]:
    """Return the authors' LPIPS, and a call of it."""
    import lpips as package

    with _instead_of_a_download(net):
        metric = package.LPIPS(net="vgg", verbose=False)
    return metric, lambda a, b: metric(a, b, normalize=True).flatten()


def pyiqa_lpips(net: Network) -> tuple[Any, Compare]:
    """Return pyiqa's LPIPS, and a call of it."""
    module = _pyiqa("lpips_arch")
    with _instead_of_a_download(net), redirect_stdout(sys.stderr):  # it prints which file it loads
        metric = module.LPIPS(net="vgg", pretrained_model_path=str(installed("lpips", "weights/v0.1/vgg.pth", "lpips")))
    return metric, lambda a, b: metric(a, b).flatten()


def dists(net: Network) -> tuple[Any, Compare]:
    """Return the authors' DISTS, and a call of it that keeps a tape."""
    from DISTS_pytorch import DISTS_pt as module

    with _instead_of_a_download(net):
        metric = module.DISTS(load_weights=False)  # it looks in the environment's root, for arrays on a GPU
    _fill(metric)
    return metric, lambda a, b: metric(a, b, require_grad=True).reshape(-1)


def pyiqa_dists(net: Network) -> tuple[Any, Compare]:
    """Return pyiqa's DISTS, and a call of it."""
    module = _pyiqa("dists_arch")
    with _instead_of_a_download(net):
        metric = module.DISTS(pretrained=False)
    _fill(metric)
    return metric, lambda a, b: metric(a, b).flatten()


def _fill(metric: Any) -> None:
    arrays = torch.load(installed("DISTS_pytorch", "weights.pt", "dists-pytorch"), "cpu", weights_only=True)
    metric.alpha.data, metric.beta.data = arrays["alpha"], arrays["beta"]
    metric.requires_grad_(False)


def _pyiqa(name: str) -> Any:
    """Import a file of pyiqa alone: the package imports some forty others."""
    from importlib import import_module

    for package in ("pyiqa", "pyiqa.archs", "pyiqa.utils"):
        stub = ModuleType(package)
        stub.__path__ = [str(FOLDER / package.replace(".", "/"))]
        sys.modules.setdefault(package, stub)
    download = ModuleType("pyiqa.utils.download_util")
    download.load_file_from_url = None  # type: ignore[attr-defined]
    sys.modules.setdefault(download.__name__, download)
    return import_module(f"pyiqa.archs.{name}")
