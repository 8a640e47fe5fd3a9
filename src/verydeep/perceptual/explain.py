"""Which places of a picture speak for a class, by Captum's methods."""

import warnings
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from verydeep.basics.errors import UserError
from verydeep.basics.extras import need
from verydeep.inference.memory import beyond, tape_bytes
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import Picture, prepare, view_size
from verydeep.nets.network import Network

Method = Literal["grad-cam", "guided", "integrated", "occlusion"]

_STEPS = 50  # pictures between black and the picture given
_SQUARES = 7  # hidden squares in a side of the network's image, which overlap by half


def check_memory(net: Network, original: Picture, scale: int, memory: int) -> None:
    """Raise UserError where a pass with gradients at smallest side `scale` would take more than `memory` bytes."""
    height, width = view_size(Protocol("dense", (scale,)), net.image_size, original.shape[0], original.shape[1])
    what = f"{width} x {height} pixels with their gradients"
    if reason := beyond(memory, tape_bytes(net, height, width), what, "give more"):
        raise UserError(reason)


def explain(
    net: Network, original: Picture, scale: int, method: Method, name: str | None = None
) -> tuple[Picture, str, NDArray[np.float32]]:
    """Return a picture at smallest side `scale`, a class (by default the best one), and each pixel's part in its score.

    The score is the mean over the map, before the soft-max. `grad-cam` is of the last map of the convolutions, before
    its pool. `guided` is the greatest absolute slope of a pixel's channels. `integrated`, from black on, and
    `occlusion`, by squares in which the network's input is 0, have a sign: for the class or against it. UserError for
    another method, no such class, or no Captum.
    """
    if method not in get_args(Method):
        raise UserError(f"method {method!r}: expected one of {', '.join(get_args(Method))}")
    attr = need("captum.attr", "explain")
    picture = prepare(Protocol("dense", (scale,)), net, original)
    net = net.linear()
    weight = next(net.parameters())
    pixels = torch.from_numpy(picture)[None].to(weight.device)
    x = net.preprocessing(pixels).to(weight)
    index = _index(net, x, name)
    if method == "grad-cam":
        cam = attr.LayerGradCam(net, _last_map(net)).attribute(x, index, relu_attributions=True)
        places = F.interpolate(cam, x.shape[2:], mode="bilinear")[0, 0]
    elif method == "guided":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its hooks, which it takes away
            places = attr.GuidedBackprop(net).attribute(x.requires_grad_(), index)[0].abs().amax(dim=0)
    elif method == "integrated":
        black = net.preprocessing(torch.zeros_like(pixels)).to(weight)
        words: dict[str, Any] = {"n_steps": _STEPS, "internal_batch_size": 1}
        places = attr.IntegratedGradients(net).attribute(x, black, target=index, **words)[0].sum(dim=0)
    else:
        side = max(2, net.image_size // _SQUARES)
        with torch.no_grad():
            occlusion = attr.Occlusion(net)
            places = occlusion.attribute(x, (3, side, side), (3, side // 2, side // 2), target=index)[0].mean(dim=0)
    return picture, net.classes[index], places.detach().float().cpu().numpy()


def _index(net: Network, x: Tensor, name: str | None) -> int:
    if name is None:
        with torch.no_grad():
            return int(net(x)[0].argmax())
    if name not in net.classes:
        near = get_close_matches(name, net.classes, n=1) or net.classes[:1]
        raise UserError(f"class {name!r}: the network has {len(net.classes)} others (did you mean {near[0]!r}?)")
    return net.classes.index(name)


def _last_map(net: Network) -> nn.Module:
    """Return what gives the last map of the convolutions, before the pool that may stand behind it."""
    last = net.module_name(net.config.trunk or net.configuration.trunk)
    names = [name for name, _ in net.chain]
    before = [module for _, module in net.chain[: names.index(last) + 1]]
    return next(module for module in reversed(before) if not isinstance(module, nn.MaxPool2d))
