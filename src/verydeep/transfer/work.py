"""The work of a transfer: descriptors, splits, classifiers and their metrics (appendix B)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.version import VERSION
from verydeep.datasets.content import content_hashes
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import Reading
from verydeep.evaluation.evaluate import Evaluator
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.combine import Rows, combine
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.runtime import Runtime
from verydeep.nets.config import Aggregate, Normalize, check_choices
from verydeep.nets.families import load, with_random_weights
from verydeep.nets.network import Network
from verydeep.training.run_folder import find_weights
from verydeep.transfer.data import one_class, read_data
from verydeep.transfer.descriptor import Descriptor, Weights
from verydeep.transfer.elementary import PAPERS_LAYER, PictureDescriptor, Source
from verydeep.transfer.linear import Chosen, Kind, Problem, choose
from verydeep.transfer.protocols import Split, TransferProtocol, folds, hold_out, random_splits
from verydeep.transfer.store import Store, default_folder

Baseline = Literal["random", "pixels", "hog"]


@dataclass(frozen=True)
class Settings:
    """Choices beside network, data and protocol, recorded with the result; None is the protocol's own.

    Attributes
    ----------
    layer : str, optional
        One of the network's `layer_names`; by default `usual_layer`'s.
    scales : tuple of int, optional
        Q in pixels.
    aggregate : {"mean", "stack", "max"}, optional
        Over the scales.
    flip : bool
        Whether descriptors are averaged over the mirror image.
    normalize : {"l2", "l2-scales", "l2-whole", "none"}
        See `verydeep.inference.combine.combine`.
    classifier : {"svm", "logistic"}
        liblinear's SVM or logistic regression.
    balanced : bool
        Whether classes count the same, whatever their number of images.
    baseline : {"random", "pixels", "hog"}, optional
        In place of the trained network: one with random weights, raw pixels, gradient histograms.
    folds : int, optional
        For a folder: so many stratified folds in place of the hold-out.
    seed : int
        Of the random splits.
    """

    layer: str | None = None
    scales: tuple[int, ...] | None = None
    aggregate: Aggregate | None = None
    flip: bool = True
    normalize: Normalize = "l2"
    classifier: Kind = "svm"
    balanced: bool = True
    baseline: Baseline | None = None
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self.aggregate or "mean", self.normalize)
        if self.classifier not in get_args(Kind):
            raise UserError(f"classifier {self.classifier!r}: expected svm or logistic")
        if self.baseline is not None and self.baseline not in get_args(Baseline):
            raise UserError(f"baseline {self.baseline!r}: expected one of {', '.join(get_args(Baseline))}")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One classifier on one split.

    Attributes
    ----------
    split : Split
        Which images.
    chosen : Chosen
        The classifier.
    posteriors : ndarray, shape (test images, K)
        Calibrated.
    metrics : dict
        With what is known of the split and the choice of C, JSON-able.
    """

    split: Split
    chosen: Chosen
    posteriors: NDArray[np.float64]
    metrics: dict[str, Any]


class Transfer:
    """Everything about one transfer; parameters as those of `verydeep.transfer.run.transfer`."""

    def __init__(
        self,
        weights: Sequence[Weights],
        data: str,
        protocol: TransferProtocol,
        settings: Settings,
        cache: Path | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        reading: Reading = Reading(),  # noqa: B008 (frozen)
    ) -> None:
        self.protocol, self.settings, self.runtime = protocol, settings, runtime
        self.descriptor = self._descriptor(weights)
        self.data = read_data(data, protocol, reading)
        self.splits = self._splits()
        self.store = Store(cache or default_folder())

    def _descriptor(self, weights: Sequence[Weights]) -> Descriptor | None:
        """Return how pictures are described; None for the baselines that need no network."""
        choice = self.settings
        if choice.baseline in ("pixels", "hog"):
            return None
        if not weights:
            raise UserError("--weights: a network is needed to describe pictures (a run's folder, or a weights file)")
        nets = list(weights)
        if choice.baseline == "random":
            # He's initialization carries the signal through any depth: of the schemes here the strongest opponent.
            trained = [net if isinstance(net, Network) else load(find_weights(net)) for net in weights]
            nets = [with_random_weights(net.config, "he", 0).eval() for net in trained]
        aggregate = choice.aggregate or self.protocol.aggregate
        where = vars(self.runtime)
        found = Descriptor(nets, choice.layer, (), aggregate, choice.flip, choice.normalize, **where)
        # In order, as a protocol has them: each of the stacked scales has weights of its own.
        found.scales = tuple(sorted(choice.scales or self.protocol.scales_for(found.sources()[0].net.image_size)))
        return found.fit()

    def _splits(self) -> list[Split]:
        data, protocol, count, seed = self.data, self.protocol, self.settings.folds, self.settings.seed
        if count is not None and protocol.name != "folder":
            raise UserError(f"--folds: protocol {protocol.name} has its own splits; folds are for --protocol folder")
        if protocol.train:
            return random_splits(data.labels, data.classes, protocol, seed)
        return folds(data.labels, data.classes, count, seed) if count else [hold_out(data.own, seed)]

    @property
    def name(self) -> str:
        """The descriptor in words, as tables name it."""
        if self.descriptor is None:
            names = {"pixels": "raw 32x32 pixels", "hog": "gradient histograms (HOG)"}
            return names[self.settings.baseline or ""]
        scales = ",".join(map(str, self.descriptor.scales))
        how = {"mean": "averaged", "stack": "stacked", "max": "maximum"}[self.descriptor.aggregate]
        system = self.system(self.descriptor.sources(), self.descriptor.layers())
        return f"{system}@{scales}" + (f", {how}" if len(self.descriptor.scales) > 1 else "")

    def system(self, sources: Sequence[Source], layers: Sequence[str]) -> str:
        """Return networks and layers in words."""
        nets = " & ".join(source.net.configuration.name for source in sources)
        if all(source.net.batch_norm for source in sources):
            nets += " (batch norm)"
        if self.settings.baseline:
            nets += ", random weights"
        return f"{nets}, {' & '.join(dict.fromkeys(layers))}"

    @property
    def provenance(self) -> str:
        """Where the splits come from, in words."""
        if self.protocol.train or self.settings.folds:
            return f"Drawn from all labeled images, seed {self.settings.seed}"
        return self.data.dataset.provenance

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the result, JSON-able."""
        # Folders of before name the usual layer also where there is no network.
        nothing: dict[str, Any] = {"weights_hash": [], "layer": PAPERS_LAYER, "scales": [], "aggregate": None}
        return {
            "protocol": self.protocol.name,
            "data": self.data.dataset.name,
            "images": len(self.data.ids),
            "classes": list(self.data.classes),
            "weights_hash": [],  # the report shows all in this order
            **asdict(self.settings),
            **(self.descriptor.identity if self.descriptor else nothing),
        }

    def describe(self) -> dict[str, Rows]:
        """Return the descriptors of all images by what they show: `image`, for actions also `image + person box`."""
        whole = self._rows(self.data.dataset, self.data.hashes)
        if self.data.boxes is None:
            return {"image": whole}
        box = self._rows(self.data.boxes, content_hashes(self.data.boxes))
        return {"image": whole, "image + person box": np.hstack([whole, box])}

    def _rows(self, dataset: Dataset, keys: list[bytes]) -> Rows:
        if self.descriptor is not None:
            return self.descriptor.read(self.store, dataset, keys)
        baseline = PictureDescriptor(self.settings.baseline or "")
        self.store.fill(baseline, dataset, keys)
        return combine([[self.store.read(baseline, keys)]], "mean", self.settings.normalize)

    def classify(self, rows: Rows, split: Split) -> Outcome:
        """Fit a classifier for one split and measure it on the split's test images."""
        targets, protocol = self.data.targets, self.protocol
        problem = Problem(self.settings.classifier, protocol.multi_label, self.settings.balanced)
        training, validation = ((rows[part], targets[part]) for part in (split.train, split.validation))
        chosen = choose(training, validation, problem, protocol.score)
        scores, posteriors = chosen.linear.scores(rows[split.test]), chosen.linear.posteriors(rows[split.test])
        metrics = {
            "name": split.name,
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "C": chosen.C,
            "validation_merit": {str(C): value for C, value in chosen.validation.items()},
            **protocol.metrics(scores, posteriors, targets[split.test]),
        }
        return Outcome(split, chosen, posteriors, metrics)

    def imbalance(self) -> dict[str, Any]:
        """Return how many training images the classes have in the first split, and what is done about it."""
        counts = (self.data.targets[self.splits[0].known] > 0).sum(axis=0)
        least, most = int(counts.argmin()), int(counts.argmax())
        return {
            "least": [self.data.classes[least], int(counts[least])],
            "most": [self.data.classes[most], int(counts[most])],
            "weighted": self.settings.balanced and not self.protocol.multi_label,
        }

    def compare(self, weights: Path) -> dict[str, Any]:
        """Test a network trained for the same classes, such as a fine-tuned one, on the same test images.

        Only where the test is the data set's own hold-out, on which no run of `verydeep train` was trained.
        """
        if self.protocol.name != "folder" or self.settings.folds:
            raise UserError(
                "--compare: only with --protocol folder and its hold-out; on other test images the network may have "
                "been trained"
            )
        net = load(find_weights(weights))
        own = [max(scale, net.least_size) for scale in self.protocol.scales_for(net.image_size)]
        scales = tuple(int(scale) for scale in (self.descriptor.scales if self.descriptor else own))
        protocol = default_protocol(net) if net.config.descriptor else Protocol("dense", scales)
        test = self.data.dataset.subset(self.splits[0].test.tolist())
        found = Evaluator(net, test, runtime=self.runtime).posteriors(protocol)
        posteriors = found.probabilities.astype(np.float64)
        metrics = self.protocol.metrics(posteriors, posteriors, one_class(found.labels, net.classes))
        return {
            "weights": str(weights),
            "protocol": str(protocol),
            **{key: metrics[key] for key in ("merit", "accuracy", "calibration_error")},
            "recipe": net.provenance.recipe,
        }

    def posteriors(self, outcome: Outcome) -> Posteriors:
        """Return the posteriors of a split's test images, for `verydeep fuse`; one class an image only."""
        test = outcome.split.test
        about = {**self.identity, "kind": "transfer", "split": outcome.split.name, "created_by": f"verydeep {VERSION}"}
        ids = tuple(self.data.ids[i] for i in test.tolist())
        return Posteriors(ids, self.data.labels[test], outcome.posteriors.astype(np.float32), self.data.classes, about)
