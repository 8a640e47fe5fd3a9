"""Pictures through a network that answers for each pixel."""

from dataclasses import dataclass
from math import exp, log
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from verydeep.basics.errors import BadImageError, NotFiniteError
from verydeep.images.decode import BYTES_A_PIXEL
from verydeep.images.files import open_picture
from verydeep.images.rescale import rescale, rescaled_size
from verydeep.inference.forward import Forward
from verydeep.inference.memory import beyond, bytes_per_view, bytes_to_prepare
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import Picture
from verydeep.nets.fcn import FCN
from verydeep.nets.network import Network
from verydeep.segmentation.views import side_at


@dataclass(frozen=True)
class Segmenter:
    """A network for each pixel, made ready: pictures are rescaled by `factor`, scores back to the picture's size."""

    forward: Forward
    factor: float

    @staticmethod
    def of(net: Network, runtime: Runtime, factor: float | None = None, pictures: int | None = None) -> "Segmenter":
        """Make one; by default pictures are tested at the middle of the factors that the network was trained at."""
        net.check_task("segment")
        return Segmenter(Forward(net, Options(), runtime, pictures), factor or usual_factor(net))

    @property
    def net(self) -> FCN:
        """The network."""
        return cast(FCN, self.forward.net)

    def scores(self, picture: NDArray[np.uint8]) -> Tensor:
        """Return the class scores of a picture's pixels, float32 K x H x W, on the device, before the soft-max.

        NotFiniteError where scores are no numbers.
        """
        height, width = picture.shape[:2]
        side = side_at(height, width, self.factor)
        if side != min(height, width):
            picture = rescale(picture, side, self.net.preprocessing.interpolation)
        self.forward.count_batch()
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self.forward.device)[None]
        with self.forward.testing():
            x = self.net.preprocessing(pixels)
            scores = self.net.pixel_scores(x, lambda x, later, after: self.forward.layers(later, after)(x)).float()
            if not bool(torch.isfinite(scores).all()):
                raise NotFiniteError(
                    "the network gives scores that are not finite: its training diverged; use other weights"
                )
            if scores.shape[2:] != (height, width):
                scores = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
            return scores[0]

    def opened(self, image: Any, name: str) -> Picture:
        """Return what a user calls a picture; BadImageError where it is damaged or takes more than the memory."""
        picture = open_picture(image, name, self.forward.runtime.memory // BYTES_A_PIXEL)
        if reason := self.too_large(picture.shape[0], picture.shape[1]):
            raise BadImageError(name, reason)
        return picture

    def labels(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class of each pixel, uint8 H x W."""
        return np.asarray(self.scores(picture).argmax(0).cpu().numpy(), np.uint8)

    def too_large(self, height: int, width: int) -> str:
        """Say why a picture takes more than the memory allows; nothing where it does not."""
        side = side_at(height, width, self.factor)
        rows, columns = rescaled_size(height, width, side)
        padded = (n + 2 * self.net.padding + self.net.extra(n) for n in (rows, columns))
        fine = 4 * len(self.net.classes) * (3 * rows * columns + 2 * height * width)
        needs = max(bytes_to_prepare((height, width), side), bytes_per_view(self.net, *padded) + fine)
        what = f"{width} x {height} pixels at factor {self.factor:g}"
        return beyond(self.forward.runtime.memory, needs, what, "give more, or take verydeep segment --bands")


def usual_factor(net: Network) -> float:
    """Return the factor on pictures' sides in the middle of those that a network was trained at; 1 where unknown."""
    factors = net.provenance.more.get("factors") or (1.0, 1.0)
    return exp((log(factors[0]) + log(factors[1])) / 2)
