"""The work of a transfer: descriptors, splits, classifiers, figures, the network that comes of them (appendix B)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.basics.version import VERSION
from verydeep.datasets.opening import Reading
from verydeep.evaluation.evaluate import Evaluator
from verydeep.evaluation.metrics import (
    average_precision,
    class_recall,
    confidences,
    expected_calibration_error,
    mean_class_recall,
)
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.combine import combine
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.runtime import Runtime
from verydeep.nets.config import Aggregate, DescriptorConfig, Normalize
from verydeep.nets.vgg import VGG, load
from verydeep.nets.weights import save
from verydeep.training.run_folder import find_weights
from verydeep.transfer.baselines import PicturePart, random_weights
from verydeep.transfer.collection import collect, content_hashes
from verydeep.transfer.deploy import as_network
from verydeep.transfer.descriptor import Descriptor
from verydeep.transfer.linear import Chosen, choose
from verydeep.transfer.parts import PAPERS_LAYER, Source
from verydeep.transfer.protocols import (
    VALIDATION_SHARE,
    Split,
    TransferProtocol,
    folds,
    random_splits,
)
from verydeep.transfer.settings import Settings
from verydeep.transfer.store import Rows, Store, default_folder


@dataclass(frozen=True, eq=False)
class Outcome:
    """One classifier on one split.

    Attributes
    ----------
    split : Split
        Which images.
    chosen : Chosen
        The classifier.
    scores : ndarray, shape (test images, K)
        Calibrated, before the soft-max or sigmoid.
    figures : dict
        JSON-able.
    """

    split: Split
    chosen: Chosen
    scores: NDArray[np.float64]
    posteriors: NDArray[np.float64]
    figures: dict[str, Any]


class Transfer:
    """Everything about one transfer; parameters as those of `transfer`."""

    def __init__(
        self,
        weights: Sequence[VGG | str | Path],
        data: str,
        protocol: TransferProtocol,
        settings: Settings,
        cache: Path | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        reading: Reading = Reading(),  # noqa: B008 (frozen)
    ) -> None:
        self.protocol, self.settings, self.data, self.runtime = protocol, settings, data, runtime
        self.descriptor = self._descriptor(weights)
        self.collection = collect(data, protocol, reading)
        self.splits = self._splits()
        self.store = Store(cache or default_folder())

    def _descriptor(self, weights: Sequence[VGG | str | Path]) -> Descriptor | None:
        """Return how pictures are described; None for the baselines that need no network."""
        choice = self.settings
        if choice.baseline in ("pixels", "hog"):
            return None
        if not weights:
            raise UserError("--weights: a network is needed to describe pictures (a run's folder, or a weights file)")
        nets: list[VGG | str | Path] = list(weights)
        if choice.baseline == "random":
            nets = [random_weights(net if isinstance(net, VGG) else load(find_weights(net))) for net in weights]
        aggregate = choice.aggregate or self.protocol.aggregate
        where = vars(self.runtime)
        found = Descriptor(nets, choice.layer, (), aggregate, choice.flip, choice.normalize, **where)
        # In order, as a protocol has them: each of the stacked scales has weights of its own.
        found.scales = tuple(sorted(choice.scales or self.protocol.scales_for(found.sources()[0].net.image_size)))
        return found.fit()

    def _splits(self) -> list[Split]:
        found, protocol, seed = self.collection, self.protocol, self.settings.seed
        if self.settings.folds is not None and protocol.name != "folder":
            raise UserError(f"--folds: protocol {protocol.name} has its own splits; folds are for --protocol folder")
        if protocol.train:
            return random_splits(found.labels.tolist(), found.classes, protocol, seed)
        if self.settings.folds:
            return folds(found.labels.tolist(), found.classes, self.settings.folds, seed)
        own = found.own
        if "test" in own and "val" in own:
            return [Split("hold-out", own["train"], own["val"], own["test"])]
        # VOC-2012's test labels are withheld, ImageNet's val is its test: C is chosen on a part of train.
        order = generator(seed).permutation(own["train"])
        held = round(VALIDATION_SHARE * len(order))
        test = own["test"] if "test" in own else own["val"]
        name = "test" if "test" in own else "val (test labels are withheld)"
        return [Split(name, np.sort(order[held:]), np.sort(order[:held]), test)]

    @property
    def name(self) -> str:
        """The descriptor in words, as tables name it."""
        if self.descriptor is None:
            choice = self.settings
            return {"pixels": "raw 32x32 pixels", "hog": "gradient histograms (HOG)"}[choice.baseline or ""]
        scales = ",".join(map(str, self.descriptor.scales))
        how = {"mean": "averaged", "stack": "stacked", "max": "maximum"}[self.descriptor.aggregate]
        words = self._in_words(self.descriptor.sources(), self.descriptor.layers())
        return f"{words}@{scales}" + (f", {how}" if len(self.descriptor.scales) > 1 else "")

    def _in_words(self, sources: Sequence[Source], layers: Sequence[str]) -> str:
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
        return self.collection.dataset.provenance

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the result."""
        descriptor = self.descriptor
        found = self.collection
        return {
            "protocol": self.protocol.name,
            "data": found.dataset.name,
            "images": len(found.ids),
            "classes": list(found.classes),
            "weights_hash": [source.hash for source in descriptor.sources()] if descriptor else [],
            **self.settings.to_dict(),
            # Folders of before name the usual layer also where there is no network.
            "layer": " & ".join(dict.fromkeys(descriptor.layers())) if descriptor else PAPERS_LAYER,
            "scales": [int(scale) for scale in descriptor.scales] if descriptor else [],
            "aggregate": descriptor.aggregate if descriptor else None,
        }

    def describe(self) -> dict[str, Rows]:
        """Return the descriptors of all images by what they show: `image`, for actions also `image + person box`."""
        whole = self._rows(self.collection.dataset, self.collection.hashes)
        if self.collection.boxes is None:
            return {"image": whole}
        box = self._rows(self.collection.boxes, content_hashes(self.collection.boxes))
        return {"image": whole, "image + person box": np.hstack([whole, box])}

    def _rows(self, dataset: Any, keys: list[bytes]) -> Rows:
        if self.descriptor is not None:
            return self.descriptor.read(self.store, dataset, keys)
        part = PicturePart(self.settings.baseline or "")
        self.store.fill(part, dataset, keys)
        return combine([[self.store.read(part, keys)]], "mean", self.settings.normalize)

    def classify(self, rows: Rows, split: Split) -> Outcome:
        """Fit a classifier for one split and measure it on the split's test images."""
        targets, choice = self.collection.targets, self.settings
        several, eleven = self.protocol.multi_label, self.protocol.eleven_point
        chosen = choose(
            (rows[split.train], targets[split.train]),
            (rows[split.validation], targets[split.validation]),
            choice.classifier,
            several,
            choice.balanced,
            eleven,
        )
        scores = chosen.linear.scores(rows[split.test])
        posteriors = chosen.linear.posteriors(rows[split.test])
        figures = {
            "name": split.name,
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "C": chosen.C,
            "validation_merit": {str(C): value for C, value in chosen.validation.items()},
            **measure(scores, posteriors, targets[split.test], self.protocol),
        }
        return Outcome(split, chosen, scores, posteriors, figures)

    def imbalance(self) -> dict[str, Any]:
        """Return how many training images the classes have in the first split, and what is done about it."""
        split = self.splits[0]
        used = np.concatenate([split.train, split.validation])
        counts = (self.collection.targets[used] > 0).sum(axis=0)
        weighted = self.settings.balanced and not self.protocol.multi_label
        least, most = int(counts.argmin()), int(counts.argmax())
        return {
            "least": [self.collection.classes[least], int(counts[least])],
            "most": [self.collection.classes[most], int(counts[most])],
            "weighted": weighted,
        }

    def no_network(self) -> str | None:
        """Return why no network's file comes of this transfer; None where one does."""
        if self.descriptor is None or self.settings.baseline:
            return f"baseline {self.settings.baseline} is there to compare with"
        if self.collection.boxes is not None:
            return "a classifier of whole pictures and persons' boxes takes two descriptors, and a network one picture"
        if "fc8" in self.descriptor.layers():
            return "a classifier on fc8, the scores of other classes, has no place in a network; take another --layer"
        return None

    def deploy(self, out: Path, measured: Outcome) -> list[dict[str, Any]]:
        """Write the classifier of the first split as a network and return its figures.

        Of several networks each gets one, with the classifier on its own descriptor alone.

        Parameters
        ----------
        out : Path
            Folder for the files.
        measured : Outcome
            The first split's.
        """
        descriptor, made = self.descriptor, []
        if descriptor is None or self.no_network():
            return []
        split = self.splits[0]
        used = [self.collection.hashes[i] for i in (*split.train, *split.validation)]
        parts, sources, choice = descriptor.parts(), descriptor.sources(), self.settings
        for number, (source, scales) in enumerate(zip(sources, parts, strict=True), start=1):
            outcome = measured
            if len(parts) > 1:
                rows = [self.store.read(part, self.collection.hashes) for part in scales]
                outcome = self.classify(combine([rows], descriptor.aggregate, choice.normalize), split)
            lengths = [np.linalg.norm(self.store.read(part, used), axis=1).mean(dtype=np.float64) for part in scales]
            about = DescriptorConfig(
                tuple(part.protocol.scales[0] for part in scales),
                cast(Aggregate, descriptor.aggregate),
                choice.flip,
                cast(Normalize, choice.normalize),
                float(np.mean(lengths)) or 1.0,
            )
            provenance = self._provenance(source, outcome)
            net = as_network(
                source.net, scales[0].layer, outcome.chosen.linear, about, self.collection.classes, provenance
            )
            path = out / ("classifier.safetensors" if len(parts) == 1 else f"classifier-{number}.safetensors")
            save(net, path)
            made.append(
                {
                    "file": path.name,
                    "system": self._in_words([source], [scales[0].layer]),
                    "split": split.name,
                    "protocol": str(default_protocol(net)),
                    "C": outcome.chosen.C,
                    "merit": outcome.figures["merit"],
                }
            )
        return made

    def _provenance(self, source: Source, outcome: Outcome) -> dict[str, Any]:
        split, scales = outcome.split, source.net.provenance.get("train_scales")
        return {
            **({"train_scales": scales} if scales else {}),  # of the layers, for who trains them further
            "recipe": "transfer",
            "data": self.collection.dataset.name,
            "training_images": len(split.train) + len(split.validation),
            "split": split.name,
            "multi_label": self.protocol.multi_label,
            "transfer": {
                "protocol": self.protocol.name,
                "classifier": self.settings.classifier,
                "C": outcome.chosen.C,
                "created_by": f"verydeep {VERSION}",
            },
            "features": {"weights_hash": source.hash, "provenance": source.net.provenance},
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
        split, file = self.splits[0], find_weights(weights)
        net = load(file)
        own = [max(round(scale * net.image_size / 224), net.least_size) for scale in self.protocol.scales]
        scales = tuple(int(q) for q in self.descriptor.scales) if self.descriptor else tuple(own)
        evaluator = Evaluator(net, self.collection.dataset.subset(split.test.tolist()), runtime=self.runtime)
        protocol = default_protocol(net) if net.config.descriptor else Protocol("dense", scales)
        found = evaluator.posteriors(protocol)
        predicted = found.probabilities.argmax(axis=1)
        return {
            "weights": str(weights),
            "protocol": str(protocol),
            "merit": mean_class_recall(found.labels, predicted, len(found.classes)),
            "accuracy": float((predicted == found.labels).mean()),
            "calibration_error": expected_calibration_error(
                *confidences(found.labels, found.probabilities.astype(np.float64))
            ),
            "recipe": net.provenance.get("recipe"),
        }

    def posteriors(self, outcome: Outcome) -> Posteriors:
        """Return the posteriors of a split's test images, for `verydeep fuse`; one class an image only."""
        found = self.collection
        about = {**self.identity, "kind": "transfer", "split": outcome.split.name, "created_by": f"verydeep {VERSION}"}
        ids = tuple(found.ids[i] for i in outcome.split.test.tolist())
        values = outcome.posteriors.astype(np.float32)
        return Posteriors(ids, found.labels[outcome.split.test], values, found.classes, about)


def measure(
    scores: NDArray[np.float64],
    posteriors: NDArray[np.float64],
    targets: NDArray[np.int8],
    protocol: TransferProtocol,
) -> dict[str, Any]:
    """Return a protocol's figures, JSON-able; `merit` is the one that it is known by, in [0, 1]."""
    if protocol.multi_label:
        kinds = {"ap_11_point": True, "ap_all_points": False}
        each = {
            name: [average_precision(targets[:, k], scores[:, k], eleven) for k in range(targets.shape[1])]
            for name, eleven in kinds.items()
        }
        figures = {f"m{name}": float(np.nanmean(values)) for name, values in each.items()}
        main = "map_11_point" if protocol.eleven_point else "map_all_points"
        counted = targets != 0
        error = expected_calibration_error(posteriors[counted], targets[counted] > 0)
        return {"merit": figures[main], **figures, "calibration_error": error, **each}
    labels, guesses = targets.argmax(axis=1), scores.argmax(axis=1)
    return {
        "merit": mean_class_recall(labels, guesses, targets.shape[1]),
        "accuracy": float((labels == guesses).mean()),
        "calibration_error": expected_calibration_error(*confidences(labels, posteriors)),
        "class_recall": class_recall(labels, guesses, targets.shape[1]).tolist(),
    }
