"""Elementary descriptors: a network's layer at one scale, averaged over places; and what needs no network."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.machine import cores
from verydeep.basics.threads import in_threads
from verydeep.basics.version import VERSION
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.evaluate import equal_sizes
from verydeep.inference.combine import Rows
from verydeep.inference.forward import Forward
from verydeep.inference.loading import Loader
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import Picture
from verydeep.nets.configurations import Configuration
from verydeep.nets.families import load
from verydeep.nets.geometry import summarize
from verydeep.nets.network import Network
from verydeep.nets.weights import describe, weights_hash
from verydeep.training.run_folder import find_weights

PAPERS_LAYER = Configuration.described
PIXELS_SIDE, HOG_SIDE = 32, 128


def usual_layer(net: Network) -> str:
    """Return the layer that pictures are described by unless another is named.

    The paper's, where the network has it; else the last ReLU of its convolutions.

    Examples
    --------
    >>> from verydeep.nets.families import create
    >>> [usual_layer(create("D", 0, width=1 / 64, trunk=trunk)) for trunk in ("pool5", "conv4_1")]
    ['conv5_3.relu', 'conv3_3.relu']
    """
    names = [name for name in net.layer_names if name != net.config.classifier]
    if (layer := net.configuration.described) in names:
        return layer
    return next((n for n in reversed(names) if n.startswith("conv") and n.endswith(".relu")), names[-1])


class Source:
    """A network ready to describe pictures; `hash` is of its weights and of all that belongs to them."""

    def __init__(self, weights: Network | str | Path, runtime: Runtime = Runtime()) -> None:  # noqa: B008 (frozen)
        if isinstance(weights, Network):
            self.net, self.path, self.hash = weights, "", network_hash(weights)
        else:
            path = find_weights(weights)
            self.net, self.path, self.hash = load(path), str(path), weights_hash(path)
        self.forward = Forward(self.net, Options(), runtime)

    def channels(self, layer: str) -> int:
        """Return how many numbers a layer gives at each place; UserError where there is no such layer."""
        self.net.module_name(layer)
        rows = {row.name: row for row in summarize(self.net, self.net.image_size, self.net.image_size)}
        return rows[layer.partition(".")[0]].output[0]


def network_hash(net: Network) -> str:
    """Return a hash of a network that comes from no file: of its weights and all that is said of them."""
    about = {key: value for key, value in describe(net).items() if key != "provenance"}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def precision_said(precision: str) -> dict[str, str]:
    """Return what an identity says of a precision: nothing of float32's, once the only one."""
    return {} if precision == "float32" else {"precision": precision}


class LayerDescriptor:
    """One layer of one network at one scale: dense, its map averaged over places and over the mirror image.

    `scale` is Q, the smallest side in pixels that pictures are rescaled to; they are not cropped. UserError where the
    network has no such layer, or takes no pictures of this size.
    """

    def __init__(self, source: Source, layer: str, scale: int, flip: bool) -> None:
        self.source, self.layer, self.scale, self.flip = source, layer, scale, flip
        self.width = source.channels(layer)
        self.name = f"{layer} at {scale}"
        if scale < source.forward.least_size:
            raise UserError(
                f"scale {scale} is too small for {source.path or source.net.configuration.name}: the least is "
                f"{source.forward.least_size}"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """All that the values depend on beside the picture."""
        return {
            "weights_hash": self.source.hash,
            "layer": self.layer,
            "scale": self.scale,
            "flip": self.flip,
            **precision_said(self.source.forward.runtime.precision),
            "created_by": f"verydeep {VERSION}",  # another version may decode or rescale otherwise
        }

    def rows(self, dataset: Dataset) -> Iterator[tuple[list[int], Rows]]:
        """Yield indices of pictures that shared a batch, and their descriptors."""
        for indices, pictures in self.batches(dataset):
            yield indices, self.source.forward.descriptors(pictures, self.layer, self.flip)

    def maps(self, dataset: Dataset) -> Iterator[tuple[int, Rows]]:
        """Yield the index of each picture and its map, h x w x channels, not averaged over anything."""
        for indices, pictures in self.batches(dataset):
            maps = self.source.forward.activations(pictures, self.layer).permute(0, 2, 3, 1)
            yield from zip(indices, np.asarray(maps.contiguous().cpu().numpy()), strict=True)

    def batches(self, dataset: Dataset) -> Iterator[tuple[list[int], list[Picture]]]:
        """Yield indices of pictures of one size, and these, rescaled."""
        protocol, forward = Protocol("dense", (self.scale,)), self.source.forward
        loader = Loader(dataset, self.source.net, forward.runtime.memory)
        indices = equal_sizes(forward, loader.sizes, protocol)
        return zip(indices, loader.pictures(protocol, indices), strict=True)


class PictureDescriptor:
    """A descriptor that needs no network: a function of the picture squeezed to a square.

    `pixels`: the 32 x 32 RGB values in [0, 1], 3,072 numbers. `hog`: histograms of gradients (Dalal & Triggs 2005) of
    the 128 x 128 gray picture, 9 orientations, cells of 16 x 16 pixels in overlapping blocks of 2 x 2: 1,764 numbers;
    needs scikit-image.
    """

    def __init__(self, kind: str) -> None:
        self.name = kind
        self._describe, self.width = (_pixels, 3 * PIXELS_SIDE**2) if kind == "pixels" else _hog()

    @property
    def identity(self) -> dict[str, Any]:
        """All that the values depend on beside the picture."""
        return {"baseline": self.name, "created_by": f"verydeep {VERSION}"}

    def rows(self, dataset: Dataset) -> Iterator[tuple[list[int], Rows]]:
        """Yield indices of pictures and their descriptors."""
        described = in_threads(lambda index: self._describe(dataset.image(index)), range(len(dataset)), cores())
        for index, values in enumerate(described):
            yield [index], values[None]


def _pixels(picture: Picture) -> Rows:
    return np.asarray(_square(picture, PIXELS_SIDE).ravel() / 255, np.float32)


def _hog() -> tuple[Callable[[Picture], Rows], int]:
    try:
        from skimage.feature import hog
    except ImportError:
        raise UserError("baseline hog needs scikit-image: pip install 'verydeep[study]'") from None

    def gradients(picture: Picture) -> Rows:
        gray = _square(picture, HOG_SIDE) @ np.array([0.299, 0.587, 0.114]) / 255
        return np.asarray(hog(gray, 9, (16, 16), (2, 2), block_norm="L2-Hys"), np.float32)

    blocks = HOG_SIDE // 16 - 1
    return gradients, 9 * 4 * blocks**2


def _square(picture: Picture, side: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
