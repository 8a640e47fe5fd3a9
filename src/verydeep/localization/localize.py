"""Classes and boxes of single pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.images.files import is_one_picture
from verydeep.inference.forward import Forward
from verydeep.inference.loading import open_prepared
from verydeep.inference.options import Options
from verydeep.inference.protocol import Kind, Protocol, default_protocol
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.inference.views import VIEWS, Picture
from verydeep.localization.boxes import Frame, clip
from verydeep.localization.dense import LocalizationModel
from verydeep.localization.evaluate import check_protocol, views, windows_of
from verydeep.localization.merging import MergeRule
from verydeep.localization.scoring import best_box
from verydeep.nets.families import load
from verydeep.nets.network import Network

DEFAULT_RULE = MergeRule(0.5)
"""Boxes that overlap well become one; `verydeep tune` finds the threshold for a data set."""

DENSE_FROM = 224
"""Side of the windows, px, from which on boxes are by default computed densely. A network tells places by the zeros
around its window, where in dense application the neighbors are; the smaller the window, the more of it that reaches."""


@dataclass(frozen=True)
class Found:
    """One class and where its object is.

    Attributes
    ----------
    name : str
        The class.
    posterior : float
        In [0, 1].
    box : tuple of float
        xmin, ymin, xmax, ymax: edges in pixels of the upright original picture.
    rating : float
        Sum of the class's scores over the windows whose boxes were merged into this one.
    """

    name: str
    posterior: float
    box: tuple[float, float, float, float]
    rating: float


@dataclass(frozen=True)
class Localized:
    """What is where in a picture.

    Attributes
    ----------
    name : str
        Path of the picture; empty for an array.
    height, width : int
        Of the picture in pixels.
    protocol : Protocol
        Which windows were looked at.
    top : tuple of Found
        The most probable classes, in descending order.
    """

    name: str
    height: int
    width: int
    protocol: Protocol
    top: tuple[Found, ...]


class Localizer:
    """Localizes in one picture after another (paper: appendix A.2).

    UserError where the networks do not fit together, or cannot be tested by the protocol.

    Parameters
    ----------
    classifier, localizer : Network, str or Path
        Networks or weights files that fit together. The classifier names the classes, as `verydeep predict` does,
        and rates boxes; it may be one made ready, a `Forward`.
    protocol : Protocol or str, optional
        By default at the localizer's scale of training: dense, or for windows below `DENSE_FROM` a grid of crops.
    top : int
        Classes to localize, at least 1.
    rule : MergeRule
        Which boxes become one.
    runtime : Runtime
        Where and how the networks run.
    pictures : int, optional
        How many there will be, where that is known: for few, engine `auto` is torch.
    """

    def __init__(
        self,
        classifier: Network | Forward | str | Path,
        localizer: Network | str | Path,
        protocol: Protocol | str | None = None,
        *,
        top: int = 5,
        rule: MergeRule = DEFAULT_RULE,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        pictures: int | None = None,
    ) -> None:
        if top < 1:
            raise UserError(f"top {top}: at least one class must be asked for")
        names = tuple(str(net) if isinstance(net, str | Path) else "the network" for net in (classifier, localizer))
        first = load(classifier, "classify") if isinstance(classifier, str | Path) else classifier
        second = localizer if isinstance(localizer, Network) else load(localizer, "localize")
        self.protocol = Protocol.parse(protocol) if isinstance(protocol, str) else protocol or _usual(second)
        count = pictures and pictures * sum(VIEWS.get(part.kind, 0) for part in self.protocol.leaves)
        self.model = LocalizationModel(first, second, Options(), runtime, (names[0], names[1]), count)
        check_protocol(self.protocol, self.model)
        self.top, self.rule = top, rule

    def __call__(self, image: Any) -> Localized:
        """Return classes and boxes for a file or an array, uint8 (H, W, 3), upright RGB."""
        name = str(image) if isinstance(image, str | PathLike) else ""
        return self.localized(*self.prepare(image, name), name)

    def prepare(self, image: Any, name: str = "") -> tuple[tuple[int, int], list[Picture]]:
        """Return a picture's height and width, and it rescaled for each part of the protocol.

        BadImageError where it takes more than the memory.
        """
        classifier = self.model.classifier
        return open_prepared(image, name, self.protocol.leaves, classifier.net, classifier.runtime.memory)

    def localized(self, size: tuple[int, int], prepared: Sequence[Picture], name: str = "") -> Localized:
        """Return classes and boxes for a picture from `prepare`."""
        net: Network = self.model.classifier.net
        found: list[tuple[NDArray[np.float32], NDArray[np.float32], Frame]] = []
        posterior = np.zeros(len(net.classes))
        for part, picture in zip(self.protocol.leaves, prepared, strict=True):
            posterior += self.model.classifier.posteriors(part, [picture])[0] / len(self.protocol.leaves)
            shown = views(part, picture, size, self.model.size)
            maps = self.model.maps([view for view, _ in shown])
            found += [(score, answer, frame) for score, answer, (_, frame) in zip(*maps, shown, strict=True)]
        best = np.argsort(-posterior, kind="stable")[: self.top]
        windows = [windows_of(score, answer, frame, self.model.size, best) for score, answer, frame in found]
        boxes, scores = (np.concatenate(rows) for rows in zip(*windows, strict=True))
        top = []
        for k, label in enumerate(best.tolist()):
            box, rating = best_box(boxes[:, k], scores[:, k], self.rule)
            xmin, ymin, xmax, ymax = clip(box, *size).tolist()
            top.append(Found(net.classes[label], float(posterior[label]), (xmin, ymin, xmax, ymax), rating))
        return Localized(name, *size, self.protocol, tuple(top))


def _usual(localizer: Network) -> Protocol:
    kind: Kind = "dense" if localizer.image_size >= DENSE_FROM else "crops"
    return Protocol(kind, default_protocol(localizer).scales)


def localize(
    classifier: Network | str | Path,
    localizer: Network | str | Path,
    image: Any,
    protocol: Protocol | str | None = None,
    *,
    top: int = 5,
    rule: MergeRule = DEFAULT_RULE,
    **runtime: Unpack[RuntimeOptions],
) -> Localized | list[Localized]:
    """Name the classes of a picture, or of each of several, and say where each is.

    Pictures are as for `predict`; other parameters are those of `Localizer`, device, engine, memory and precision the
    fields of its runtime.
    """
    images = [image] if is_one_picture(image) else list(image)
    where, count = Runtime(**runtime), len(images)
    found = Localizer(classifier, localizer, protocol, top=top, rule=rule, runtime=where, pictures=count)
    return found(image) if is_one_picture(image) else [found(each) for each in images]
