"""A network's layer at one scale as a descriptor: dense, its map averaged over places and over the mirror image."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from verydeep.basics.errors import UserError
from verydeep.basics.version import VERSION
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.evaluate import equal_sizes
from verydeep.inference.forward import Forward
from verydeep.inference.loading import Loader
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import DEFAULT_MEMORY, Runtime
from verydeep.nets.geometry import summarize
from verydeep.nets.vgg import VGG, load
from verydeep.nets.weights import describe, weights_hash
from verydeep.training.run_folder import find_weights
from verydeep.transfer.store import Rows

PAPERS_LAYER = "fc7.relu"


def usual_layer(net: VGG) -> str:
    """Return the layer that pictures are described by unless another is named.

    The paper's, where the network has it; else the last ReLU of its convolutions.

    Examples
    --------
    >>> from verydeep.nets.vgg import create
    >>> [usual_layer(create("D", 0, width=1 / 64, trunk=trunk)) for trunk in ("pool5", "conv4_1")]
    ['conv5_3.relu', 'conv3_3.relu']
    """
    names = [name for name in net.layer_names if name != "fc8"]
    if PAPERS_LAYER in names:
        return PAPERS_LAYER
    return next((n for n in reversed(names) if n.startswith("conv") and n.endswith(".relu")), names[-1])


class Source:
    """A network ready to describe pictures.

    Parameters
    ----------
    weights : VGG, str or Path
        A network, its weights file, or the folder of its run.
    memory : int
        Bytes that pictures and activations may take together.
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    engine : str
        What runs its layers; `auto` is the native engine on a CPU.

    Attributes
    ----------
    hash : str
        Of its weights and of all that belongs to them.
    """

    def __init__(
        self, weights: VGG | str | Path, memory: int = DEFAULT_MEMORY, device: str = "auto", engine: str = "auto"
    ) -> None:
        if isinstance(weights, VGG):
            net, self.path, self.hash = weights, "", network_hash(weights)
        else:
            path = find_weights(weights)
            net, self.path, self.hash = load(path), str(path), weights_hash(path)
        self.memory = memory
        # Most of the memory is the network's; a quarter is for originals while they are decoded.
        self.forward = Forward(net, Options(), Runtime(device, engine, memory))

    @property
    def net(self) -> VGG:
        """The network."""
        return self.forward.net

    def channels(self, layer: str) -> int:
        """Return how many numbers a layer gives at each place; UserError where there is no such layer."""
        self.net.module_name(layer)
        rows = {row.name: row for row in summarize(self.net, self.net.image_size, self.net.image_size)}
        return rows[layer.partition(".")[0]].output[0]


class NetworkPart:
    """One layer of one network at one scale (paper: appendix B).

    Parameters
    ----------
    source : Source
        The network.
    layer : str
        One of its `layer_names`.
    scale : int
        Q, the smallest side in pixels that pictures are rescaled to; they are not cropped.
    flip : bool
        Whether the mean is taken over the mirror image, too.

    Raises
    ------
    UserError
        The network has no such layer, or takes no pictures of this size.
    """

    def __init__(self, source: Source, layer: str, scale: int, flip: bool) -> None:
        self.source, self.layer, self.flip = source, layer, flip
        self.protocol = Protocol("dense", (scale,))
        self.width = source.channels(layer)
        if scale < source.forward.least_size:
            raise UserError(
                f"scale {scale} is too small for {source.path or source.net.configuration.name}: the least is "
                f"{source.forward.least_size}"
            )
        self.name = f"{layer} at {scale}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that the values depend on beside the picture."""
        return {
            "weights_hash": self.source.hash,
            "layer": self.layer,
            "scale": self.protocol.scales[0],
            "flip": self.flip,
            "created_by": f"verydeep {VERSION}",  # another version may decode or rescale otherwise
        }

    def rows(self, dataset: Dataset) -> Iterator[tuple[list[int], Rows]]:
        """Yield indices of pictures that shared a batch, and their descriptors."""
        forward, loader = self.source.forward, Loader(dataset, self.source.net, self.source.memory // 4)
        batches = equal_sizes(forward, loader.sizes, self.protocol)
        for indices, pictures in zip(batches, loader.pictures(self.protocol, batches), strict=True):
            yield indices, forward.descriptors(pictures, self.layer, self.flip)

    def maps(self, dataset: Dataset) -> Iterator[tuple[int, Rows]]:
        """Yield the index of each picture and its map, h x w x channels, not averaged over anything."""
        forward, loader = self.source.forward, Loader(dataset, self.source.net, self.source.memory // 4)
        batches = equal_sizes(forward, loader.sizes, self.protocol)
        for indices, pictures in zip(batches, loader.pictures(self.protocol, batches), strict=True):
            maps = forward.activations(pictures, self.layer).permute(0, 2, 3, 1).contiguous().cpu().numpy()
            yield from zip(indices, np.asarray(maps), strict=True)


def network_hash(net: VGG) -> str:
    """Return a hash of a network that comes from no file: of its weights and all that is said of them."""
    about = {key: value for key, value in describe(net).items() if key != "provenance"}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
