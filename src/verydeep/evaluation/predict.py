"""The classes of single pictures."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.images.files import is_one_picture
from verydeep.inference.forward import Forward
from verydeep.inference.loading import open_prepared
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.inference.views import VIEWS, Picture, view_size
from verydeep.nets.families import load
from verydeep.nets.network import Network


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network sees in a picture.

    Parameters
    ----------
    name : str
        Path of the picture; empty for an array.
    protocol : Protocol
        How it was tested.
    top : tuple of (str, float)
        The most probable classes and their posteriors in [0, 1], in descending order.
    posterior : ndarray of float32, shape (K,)
        Of all classes, in the network's order.
    """

    name: str
    protocol: Protocol
    top: tuple[tuple[str, float], ...]
    posterior: NDArray[np.float32]


@overload
def predict(
    net: Network | str | Path,
    image: str | PathLike[str] | bytes | Image | Picture,
    protocol: Protocol | str | None = None,
    *,
    top: int = 5,
    options: Options | None = None,
    **runtime: Unpack[RuntimeOptions],
) -> Prediction: ...
@overload
def predict(
    net: Network | str | Path,
    image: Sequence[Any],
    protocol: Protocol | str | None = None,
    *,
    top: int = 5,
    options: Options | None = None,
    **runtime: Unpack[RuntimeOptions],
) -> list[Prediction]: ...
def predict(
    net: Network | str | Path,
    image: Any,
    protocol: Protocol | str | None = None,
    *,
    top: int = 5,
    options: Options | None = None,
    **runtime: Unpack[RuntimeOptions],
) -> Prediction | list[Prediction]:
    """Name the classes of a picture, or of each of several.

    Parameters
    ----------
    net : Network, str or Path
        The network or its weights file.
    image : path, bytes, PIL image or ndarray of uint8, shape (H, W, 3), or a sequence of them
        A file, its content, or upright RGB; of a sequence the predictions come as a list.
    protocol : Protocol or str, optional
        By default `default_protocol`'s: dense evaluation at the scale of training, or the network's descriptor.
    top : int
        Classes to name, at least 1.
    options, device, engine, memory, precision
        As in `verydeep.evaluate`.

    Raises
    ------
    UserError
        For a protocol this network cannot be tested by.
    BadImageError
        For a file that is no readable image.
    """
    if is_one_picture(image):
        return Predictor(net, protocol, top, options, Runtime(**runtime), pictures=1)(image)
    images = list(image)
    predictor = Predictor(net, protocol, top, options, Runtime(**runtime), pictures=len(images))
    return [predictor(each) for each in images]


class Predictor:
    """Names the classes of one picture after another.

    Parameters
    ----------
    net, protocol, top, options
        As those of `predict`.
    runtime : Runtime
        Where and how the network runs.
    pictures : int, optional
        How many there will be, where that is known: for few, engine `auto` is torch.
    """

    def __init__(
        self,
        net: Network | str | Path,
        protocol: Protocol | str | None = None,
        top: int = 5,
        options: Options | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        *,
        pictures: int | None = None,
    ) -> None:
        net = net if isinstance(net, Network) else load(net, "classify")
        net.check_task("classify")
        if top < 1:
            raise UserError(f"top {top}: at least one class must be asked for")
        chosen = Protocol.parse(protocol) if isinstance(protocol, str) else protocol or default_protocol(net)
        self.top = top
        views = pictures and pictures * sum(VIEWS[part.kind] * len(part.scales) for part in chosen.leaves)
        self.forward = Forward(net, options or Options(), runtime, views)
        self._take(chosen)

    def by(self, protocol: Protocol) -> "Predictor":
        """Return one by another protocol that shares the engine and its weights; UserError as for this one."""
        other = copy(self)
        other._take(protocol)
        return other

    def _take(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.parts = tuple(one for leaf in protocol.leaves for one in leaf.each_scale)
        self.forward.check(protocol)

    def __call__(self, image: Any) -> Prediction:
        """Return the prediction for a file or an array."""
        name = str(image) if isinstance(image, str | PathLike) else ""
        return self.predictions([self.prepare(image, name)], [name])[0]

    def prepare(self, image: Any, name: str = "") -> list[Picture]:
        """Return a file or an array rescaled for each of `parts`; BadImageError where it takes more than the memory."""
        return open_prepared(image, name, self.parts, self.forward.net, self.forward.runtime.memory)[1]

    def pictures_at_once(self, prepared: Sequence[Picture]) -> int:
        """Return how many pictures of the sizes of this one, from `prepare`, share a batch."""
        sizes = (
            view_size(part, self.forward.net.image_size, *picture.shape[:2])
            for part, picture in zip(self.parts, prepared, strict=True)
        )
        return min(self.forward.pictures_at_once(part, *size) for part, size in zip(self.parts, sizes, strict=True))

    def predictions(self, prepared: Sequence[Sequence[Picture]], names: Sequence[str]) -> list[Prediction]:
        """Return the predictions for pictures from `prepare` that are of the same sizes."""
        return [self._named(name, posterior) for name, posterior in zip(names, self._posteriors(prepared), strict=True)]

    def _named(self, name: str, posterior: NDArray[np.float32]) -> Prediction:
        best = np.argsort(-posterior, kind="stable")[: self.top]
        top = tuple((self.forward.net.classes[k], float(posterior[k])) for k in best)
        return Prediction(name, self.protocol, top, posterior)

    def _posteriors(self, prepared: Sequence[Sequence[Picture]]) -> NDArray[np.float32]:
        by_part = [list(pictures) for pictures in zip(*prepared, strict=True)]
        if self.protocol.kind == "descriptor":
            return self.forward.by_descriptor(by_part)
        every = [self.forward.posteriors(part, pictures) for part, pictures in zip(self.parts, by_part, strict=True)]
        return np.asarray(np.mean(every, axis=0, dtype=np.float64), np.float32)
