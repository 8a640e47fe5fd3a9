"""The class of each pixel of single pictures."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from verydeep.checkpoints.reading import load
from verydeep.images.files import is_one_picture
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.nets.network import Network
from verydeep.scoremaps.georeference import Georeference, read_georeference
from verydeep.segmentation.drawing import mask_image, overlay
from verydeep.segmentation.polygons import feature_collection
from verydeep.segmentation.segmenter import Segmenter


@dataclass(frozen=True)
class Segmented:
    """The classes of a picture's pixels.

    Attributes
    ----------
    name : str
        Path of the picture; empty for an array.
    labels : ndarray of uint8, H x W
        Index into `classes` of each pixel of the upright picture.
    classes : tuple of str
        Names, in the order of the labels.
    picture : ndarray of uint8, H x W x 3
        The upright picture, RGB.
    georeference : Georeference or None
        Where the picture lies on the earth, where it is a GeoTIFF.
    """

    name: str
    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    picture: NDArray[np.uint8]
    georeference: Georeference | None = None

    @property
    def areas(self) -> dict[str, int]:
        """Pixels of each class that is there, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return {self.classes[k]: int(counts[k]) for k in order.tolist() if counts[k]}

    def mask(self) -> Any:
        """Return a PIL image whose values are the labels, with VOC's palette."""
        return mask_image(self.labels)

    def overlay(self) -> Any:
        """Return a PIL image: the picture under the classes' colors, with a legend."""
        return overlay(self.picture, self.labels, self.classes)

    def geojson(self) -> dict[str, Any]:
        """Return a polygon for each connected region, along the edges of pixels, as GeoJSON."""
        return feature_collection(self.labels, self.classes, self.georeference)


def segmented(segmenter: Segmenter, image: Any, name: str = "") -> Segmented:
    """Return the classes of one picture's pixels; BadImageError where it is damaged or takes too much memory."""
    picture = segmenter.opened(image, name or "picture")
    labels, place = segmenter.labels(picture), read_georeference(image)
    return Segmented(name, labels, segmenter.net.classes, picture, place)


def segment(
    net: Network | str | Path, image: Any, *, factor: float | None = None, **runtime: Unpack[RuntimeOptions]
) -> Segmented | list[Segmented]:
    """Say of each pixel of a picture, or of each of several, which class it is of.

    Parameters
    ----------
    net : Network, str or Path
        A network for each pixel, or its weights file.
    image : str, Path, array or PIL image, or a sequence of these
        As for `predict`.
    factor : float, optional
        On the pictures' sides before they are run; by default the middle of those that the network was trained at.
        Scores are brought back to the picture's size, bilinearly.
    **runtime
        Device, engine and memory, as for `predict`.

    Returns
    -------
    Segmented, or a list of them for several pictures

    Raises
    ------
    UserError
        The network is no network for pixels, or a picture is damaged or takes more than the memory.
    """
    images = [image] if is_one_picture(image) else list(image)
    found = net if isinstance(net, Network) else load(net)
    segmenter = Segmenter.of(found, Runtime(**runtime), factor, len(images))
    results = [segmented(segmenter, one, str(one) if isinstance(one, str | PathLike) else "") for one in images]
    return results[0] if is_one_picture(image) else results
