"""The paper's descriptor of pictures (appendix B) as a scikit-learn transformer."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from verydeep.basics.errors import UserError
from verydeep.datasets.content import content_hashes
from verydeep.datasets.dataset import Dataset
from verydeep.inference.combine import Rows, combine
from verydeep.inference.memory import parse_memory
from verydeep.inference.runtime import DEFAULT_MEMORY, Precision, Runtime
from verydeep.nets.config import check_choices
from verydeep.nets.network import Network
from verydeep.transfer.data import as_dataset
from verydeep.transfer.elementary import LayerDescriptor, Source, precision_said, usual_layer
from verydeep.transfer.store import Store

Weights = Network | str | Path


class Descriptor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Describe pictures by a network's dense features: over scales, averaged over places and mirror images.

    Each picture is rescaled to smallest side Q, uncropped; the layer's map is averaged over all places and over the
    mirror image, the results of all Q are aggregated and normalized (paper: appendix B). It learns nothing: `fit`
    only checks the parameters.

    Parameters
    ----------
    weights : str, Path, Network, or list of these
        Weights file, folder of a run, or network; of several, the descriptors are stacked.
    layer : str, optional
        One of the network's `layer_names`. `fc7` is before the ReLU, `fc7.relu`, which the paper uses and which
        fc8 sees, after it. By default that, or where the network has none the last ReLU of its convolutions.
    scales : sequence of int
        Q in pixels; the paper's for networks trained with S in [256;512].
    aggregate : {"mean", "stack", "max"}
        Over the scales.
    flip : bool
        Whether the mean is taken over the mirror image, too.
    normalize : {"l2", "l2-scales", "l2-whole", "none"}
        What is brought to unit Euclidean norm: each network's descriptor (`l2`), each scale's before it is
        aggregated, the whole once networks are stacked, nothing; see `verydeep.inference.combine.combine`.
    cache : str or Path, optional
        Folder in which descriptors are kept by content of the picture, weights and settings.
    memory : int or str
        Bytes, or a text such as ``2GiB``, for pictures and activations, beside the weights.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the network runs.
    engine : {"auto", "native", "torch"}
        What runs its layers; see `verydeep.inference.runtime.pick_engine`.
    precision : {"float32", "bf16", "fixed16"}
        Of the network's arithmetic; `fixed16` is the native engine's.

    Raises
    ------
    UserError
        From `fit` and `transform`: a weights file, layer, scale or word that does not exist or does not fit.
    BadImageError
        From `transform`, for a picture that cannot be read; it names the picture.

    Examples
    --------
    >>> import numpy as np
    >>> import verydeep as vd
    >>> net = vd.create("A", classes=10, width=1 / 16, image_size=64, fc_width=32, seed=0)
    >>> describe = vd.Descriptor(net, scales=(64, 96), aggregate="stack")
    >>> describe.fit_transform(np.zeros((2, 80, 60, 3), np.uint8)).shape
    (2, 64)
    >>> describe.get_feature_names_out()[[0, 63]].tolist()
    ['fc7.relu@64_0', 'fc7.relu@96_31']
    """

    def __init__(
        self,
        weights: Weights | Sequence[Weights],
        layer: str | None = None,
        scales: Sequence[int] = (256, 384, 512),
        aggregate: str = "mean",
        flip: bool = True,
        normalize: str = "l2",
        cache: str | Path | None = None,
        memory: int | str = DEFAULT_MEMORY,
        device: str = "auto",
        engine: str = "auto",
        precision: Precision = "float32",
    ) -> None:
        self.weights = weights
        self.layer = layer
        self.scales = scales
        self.aggregate = aggregate
        self.flip = flip
        self.normalize = normalize
        self.cache = cache
        self.memory = memory
        self.device = device
        self.engine = engine
        self.precision = precision

    def fit(self, X: Any = None, y: Any = None) -> "Descriptor":
        """Check the parameters; nothing is learned from X and y."""
        self.parts()
        return self

    def transform(self, X: Any) -> Rows:
        """Return the descriptors of pictures.

        Parameters
        ----------
        X : sequence of path, ndarray or PIL image, or Dataset
            Arrays are uint8, H x W x 3, upright RGB, or all together N x H x W x 3.

        Returns
        -------
        ndarray of float32, shape (N, D)
            Columns as `get_feature_names_out` names them.
        """
        dataset = as_dataset(X)
        store = Store(Path(self.cache) if self.cache is not None else None)
        return self.read(store, dataset, content_hashes(dataset))

    def read(self, store: Store, dataset: Dataset, keys: Sequence[bytes]) -> Rows:
        """Return the descriptors of a data set, computing what the store has not; `keys` are its content hashes."""
        parts = self.parts()
        for part in chain(*parts):
            store.fill(part, dataset, keys)
        return self.combine([[store.read(part, keys) for part in scales] for scales in parts])

    def combine(self, parts: Sequence[Sequence[Rows]]) -> Rows:
        """Return elementary descriptors, for each network of each scale, as one."""
        return combine(parts, self.aggregate, self.normalize)

    def maps(self, X: Any) -> list[Rows]:
        """Return the layer's whole map for each picture, h x w x channels, neither mirrored nor normalized.

        Raises
        ------
        UserError
            For several networks or scales: there is no one map then.
        """
        parts = list(chain(*self.parts()))
        if len(parts) > 1:
            raise UserError(f"maps: {len(parts)} networks and scales; give one network and one scale")
        found = dict(parts[0].maps(as_dataset(X)))
        return [found[index] for index in range(len(found))]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the columns, such as `fc7.relu@256_17`; with several networks `1:fc7.relu@256_17`."""
        parts = self.parts()
        names: list[str] = []
        for number, scales in enumerate(parts, start=1):
            prefix = f"{number}:" if len(parts) > 1 else ""
            which = [str(scale) for scale in self.scales]
            if self.aggregate != "stack" and len(which) > 1:
                which = [f"{self.aggregate}({','.join(which)})"]
            layer, width = scales[0].layer, scales[0].width
            names += [f"{prefix}{layer}@{scale}_{i}" for scale in which for i in range(width)]
        return np.array(names, dtype=object)

    def parts(self) -> list[list[LayerDescriptor]]:
        """Return what the descriptor is made of: for each network, each scale."""
        check_choices(self.aggregate, self.normalize)
        scales = list(self.scales)
        if not scales or len(set(scales)) < len(scales):
            raise UserError(f"scales {scales}: expected one or more, each once, for example 256,384,512")
        return [
            [LayerDescriptor(source, layer, int(scale), self.flip) for scale in scales]
            for source, layer in zip(self.sources(), self.layers(), strict=True)
        ]

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what it gives for a picture, JSON-able."""
        return {
            "weights_hash": [source.hash for source in self.sources()],
            "layer": " & ".join(dict.fromkeys(self.layers())),
            "scales": [int(scale) for scale in self.scales],
            "aggregate": self.aggregate,
            "flip": bool(self.flip),
            "normalize": self.normalize,
            **precision_said(self.precision),
        }

    def layers(self) -> list[str]:
        """Return the layer of each network."""
        return [self.layer or usual_layer(source.net) for source in self.sources()]

    def sources(self) -> list[Source]:
        """Return the networks, loaded once for as long as weights, memory, device and engine stay the same."""
        given: list[Any] = list(self.weights) if isinstance(self.weights, list | tuple) else [self.weights]
        if not given:
            raise UserError("weights: at least one network is needed")
        memory = parse_memory(self.memory) if isinstance(self.memory, str) else self.memory
        runtime = Runtime(self.device, self.engine, memory, self.precision)
        asked = ([str(w) if not isinstance(w, Network) else id(w) for w in given], runtime)
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] != asked:
            kept = self._kept = (asked, [Source(weights, runtime) for weights in given])
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_kept"}  # networks are loaded anew

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True
        tags.requires_fit = False
        return tags
