"""What can be asked about a picture: it is prepared in one thread, and run with others in another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from verydeep.evaluation.predict import Prediction, Predictor
from verydeep.images.decode import BYTES_A_PIXEL
from verydeep.inference.combine import Rows, combine
from verydeep.inference.forward import Forward
from verydeep.inference.loading import open_prepared
from verydeep.inference.memory import bytes_to_prepare
from verydeep.inference.protocol import Protocol
from verydeep.inference.views import Picture
from verydeep.localization.localize import Localized, Localizer
from verydeep.perceptual.comparison import Comparison
from verydeep.perceptual.pictures import as_tensors, on_tensors
from verydeep.segmentation.segment import Segmented
from verydeep.segmentation.segmenter import Segmenter

Upload = bytes | Picture


@dataclass(frozen=True)
class Prepared:
    """A picture rescaled for each part of a protocol; `size` is its height and width before."""

    size: tuple[int, int]
    pictures: list[Picture]

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """What must be equal in a batch."""
        return tuple(picture.shape for picture in self.pictures)

    @property
    def bytes(self) -> int:
        """That it holds while it waits."""
        return sum(picture.nbytes for picture in self.pictures)


class _OnParts(ABC):
    """A task that looks at pictures rescaled for some parts, by one network."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def forward(self) -> Forward:
        """The network."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Protocol, ...]:
        """What pictures are rescaled for."""

    def prepare(self, image: Upload) -> Prepared:
        """Return an upload decoded and rescaled; BadImageError where it is no picture, or takes too much memory."""
        return Prepared(*open_prepared(image, "picture", self.parts, self.forward.net, self.forward.runtime.memory))

    def bytes_to_prepare(self, size: tuple[int, int]) -> int:
        """Return what `prepare` takes for a picture of this height and width."""
        return max(bytes_to_prepare(size, scale) for part in self.parts for scale in part.scales)

    def at_once(self, prepared: Prepared) -> int:
        """Return how many pictures share a batch: here one."""
        return 1


@dataclass(frozen=True)
class Classify(_OnParts):
    """The classes of pictures, as `verydeep predict` names them."""

    predictor: Predictor
    name = "classify"

    @property
    def forward(self) -> Forward:
        return self.predictor.forward

    @property
    def parts(self) -> tuple[Protocol, ...]:
        return self.predictor.parts

    def at_once(self, prepared: Prepared) -> int:
        """Return how many pictures of these sizes share a batch."""
        return self.predictor.pictures_at_once(prepared.pictures)

    def run(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """Return the predictions."""
        return self.predictor.predictions([one.pictures for one in prepared], [""] * len(prepared))


@dataclass(frozen=True)
class Describe(_OnParts):
    """Descriptors of pictures, as `verydeep.Descriptor` computes them: the mean over scales, of unit norm."""

    network: Forward
    layer: str
    scales: tuple[int, ...]
    name = "descriptor"

    @property
    def forward(self) -> Forward:
        return self.network

    @property
    def parts(self) -> tuple[Protocol, ...]:
        return Protocol("descriptor", self.scales).each_scale

    def at_once(self, prepared: Prepared) -> int:
        """Return how many pictures of these sizes share a batch."""
        sizes = [(picture.shape[0], picture.shape[1]) for picture in prepared.pictures]
        return min(self.forward.pictures_at_once(self.parts[0], *size) for size in sizes)

    def run(self, prepared: Sequence[Prepared]) -> Rows:
        """Return the descriptors, a row for each picture."""
        scales = zip(*(one.pictures for one in prepared), strict=True)
        rows = [self.forward.descriptors(pictures, self.layer, flip=True) for pictures in scales]
        return combine([rows], "mean", "l2")


@dataclass(frozen=True)
class Localize(_OnParts):
    """Classes and boxes, as `verydeep localize` finds them, picture by picture."""

    localizer: Localizer
    name = "localize"

    @property
    def forward(self) -> Forward:
        return self.localizer.model.classifier

    @property
    def parts(self) -> tuple[Protocol, ...]:
        return self.localizer.protocol.leaves

    def run(self, prepared: Sequence[Prepared]) -> list[Localized]:
        """Return what is where."""
        return [self.localizer.localized(one.size, one.pictures) for one in prepared]


@dataclass(frozen=True)
class Heat:
    """A class's score map over the picture that it is of."""

    picture: Picture
    scores: NDArray[np.float32]
    label: str
    posterior: float


@dataclass(frozen=True)
class HeatMap(_OnParts):
    """Score maps as `verydeep predict --heatmap` draws them, of a class or, without one, of the most probable."""

    predictor: Predictor
    label: str | None = None
    name = "heatmap"

    @property
    def forward(self) -> Forward:
        return self.predictor.forward

    @property
    def parts(self) -> tuple[Protocol, ...]:
        return (*self.predictor.parts, Protocol("dense", self.predictor.protocol.scales[-1:]))

    def run(self, prepared: Sequence[Prepared]) -> list[Heat]:
        """Return the maps."""
        return [self._one(one) for one in prepared]

    def _one(self, prepared: Prepared) -> Heat:
        *pictures, whole = prepared.pictures
        (prediction,) = self.predictor.predictions([pictures], [""])
        label = self.label if self.label is not None else prediction.top[0][0]
        index = self.forward.net.classes.index(label)
        scores = self.forward.score_maps([whole])[0, index].cpu().numpy()
        return Heat(whole, scores, label, float(prediction.posterior[index]))


@dataclass(frozen=True)
class Segment:
    """The class of each pixel, as `verydeep segment` says it, picture by picture."""

    segmenter: Segmenter
    name = "segment"

    def prepare(self, image: Upload) -> Prepared:
        """Return an upload decoded; BadImageError where it is no picture, or takes too much memory."""
        picture = self.segmenter.opened(image, "picture")
        return Prepared((picture.shape[0], picture.shape[1]), [picture])

    def bytes_to_prepare(self, size: tuple[int, int]) -> int:
        """Return what `prepare` takes for a picture of this height and width."""
        return BYTES_A_PIXEL * size[0] * size[1]

    def at_once(self, prepared: Prepared) -> int:
        """Return how many pictures share a batch: one."""
        return 1

    def run(self, prepared: Sequence[Prepared]) -> list[Segmented]:
        """Return the classes of the pictures' pixels."""
        segmenter, pictures = self.segmenter, [one.pictures[0] for one in prepared]
        return [Segmented("", segmenter.labels(picture), segmenter.net.classes, picture) for picture in pictures]


@dataclass(frozen=True)
class Distance:
    """How far apart two decoded pictures look, as `verydeep perceive` measures it, pair by pair."""

    measure: Comparison
    device: torch.device
    name = "distance"

    def at_once(self, prepared: tuple[Picture, Picture]) -> int:
        """Return how many pairs share a batch: one."""
        return 1

    def run(self, prepared: Sequence[tuple[Picture, Picture]]) -> list[float]:
        """Return the distances."""
        return [float(on_tensors(self.measure, as_tensors(pair, self.device))) for pair in prepared]
