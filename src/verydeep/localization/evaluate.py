"""A classifier, a localizer and a data set become detections, by a protocol; what is there is not done again."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer
from verydeep.basics.progress import track
from verydeep.basics.version import VERSION
from verydeep.datasets.content import content_digest
from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.evaluate import Evaluator, evenly, match_labels
from verydeep.evaluation.posteriors import Posteriors
from verydeep.images.crops import grid
from verydeep.inference.loading import Loader, batches
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import Picture
from verydeep.localization.boxes import Frame, as_array
from verydeep.localization.dense import LocalizationModel, boxes_of_windows
from verydeep.localization.detections import MOST_DETECTIONS, Detections
from verydeep.localization.merging import MergeRule
from verydeep.localization.scoring import merge_detections, together
from verydeep.nets.families import load
from verydeep.nets.network import Network
from verydeep.nets.weights import weights_hash

_IDENTITY = ("localizer_hash", "classifier_hash", "data", "split", "limit", "options", "labels_from")


class BoxEvaluator:
    """Localizes on one data set, every image with a box, with one pair of networks.

    The classifier's scores rate boxes, and name classes where no `posteriors` are given: those of the best
    classification system there is, since the paper's detections come from another system than its boxes. `cache` is the
    folder for ``<protocol>.parquet``. UserError where networks, data and posteriors do not fit together.
    """

    def __init__(
        self,
        classifier: str | Path,
        localizer: str | Path,
        dataset: Dataset,
        *,
        posteriors: Posteriors | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        limit: int | None = None,
        cache: Path | None = None,
    ) -> None:
        nets = load(classifier, "classify"), load(localizer, "localize")
        names = str(classifier), str(localizer)
        options = {**Options().to_dict(), "precision": runtime.precision}
        self.dataset = dataset if limit is None else dataset.subset(evenly(dataset, limit))
        self.model = LocalizationModel(*nets, Options(), runtime, names, len(self.dataset))
        self.labels = match_labels(self.dataset, nets[0])
        self.loader = Loader(self.dataset, nets[0], runtime.memory)
        self.posteriors, self.cache, self.runtime = posteriors, cache, runtime
        self.files = Path(classifier), Path(localizer)
        about = {**_about(*nets), "data": dataset.name, "split": dataset.split, "split_provenance": dataset.provenance}
        about |= {"classifier": names[0], "localizer": names[1], "options": options}
        about |= {"classifier_hash": weights_hash(classifier), "localizer_hash": weights_hash(localizer)}
        about |= {"labels_from": _source(posteriors), "created_by": f"verydeep {VERSION}"}
        about |= {"content_sha256": content_digest(self.dataset) if cache else None}
        about |= {"limit": limit and f"{limit} images, evenly over the classes, seed 0"}
        self.about: dict[str, Any] = json.loads(json.dumps(about))  # as it will be read again

    def check(self, protocol: Protocol) -> None:
        """Raise UserError where this pair cannot be tested by a protocol."""
        check_protocol(protocol, self.model)

    def path(self, protocol: Protocol) -> Path | None:
        """Return where the detections of a protocol are kept."""
        return self.cache / f"{protocol}.parquet" if self.cache else None

    def detections(self, protocol: Protocol | str, rule: MergeRule | None) -> Detections:
        """Return the detections by a protocol, merged by a rule; from its file where the networks have run already.

        Without a rule the windows' boxes are not merged; they are what a threshold is chosen with. Where classes are
        those of given posteriors, several scales are put together of one file for each.
        """
        protocol = Protocol.parse(protocol) if isinstance(protocol, str) else protocol
        self.check(protocol)
        path = self.path(protocol)
        found = self._found(path) if path and path.exists() else None
        if found and (rule is None or found.metadata.get("merging") == asdict(rule)):
            return found
        if not found and (found := self._from_scales(protocol)) is None:
            with sole_writer(path.with_name(f".{protocol}.unfinished") if path else None):
                found = self._run(protocol)
        merged = merge_detections([found], rule) if rule else found
        if path:
            merged.write(path)
        return merged

    def _found(self, path: Path) -> Detections:
        found = Detections.read(path)
        for key in _IDENTITY:
            there, here = found.metadata.get(key), self.about.get(key)
            if there != here:
                raise UserError(f"{path}: holds other boxes: {key} is {there}, here {here}; choose another folder")
        there = found.metadata.get("content_sha256")
        if there is not None and there != self.about["content_sha256"]:
            raise UserError(f"{path}: holds boxes of images that have changed since; choose another folder")
        if found.ids != tuple(sample.id for sample in self.dataset.samples):
            raise UserError(f"{path}: holds boxes of other images; choose another folder or remove it")
        return found

    def _from_scales(self, protocol: Protocol) -> Detections | None:
        """Return the windows of several scales out of a file each, where the classes are the same in all.

        A file that is there keeps its own rule of merging; a new one is left unmerged.
        """
        if len(protocol.scales) == 1 or self.posteriors is None or self.cache is None:
            return None
        parts = [self.detections(Protocol(protocol.kind, (scale,)), None) for scale in protocol.scales]
        metadata = {"protocol": str(protocol), **self.about}
        return replace(together(parts), metadata=metadata)

    def _run(self, protocol: Protocol) -> Detections:
        """Run the networks: every window's boxes and scores, not yet merged."""
        classes, posteriors = self._classes(protocol)
        count, shape = len(self.dataset), classes.shape
        windows: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
        scores: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
        for scale in protocol.scales:
            part = Protocol(protocol.kind, (scale,))
            for index, found, rated in self._windows(part, classes):
                windows[index].append(found)
                scores[index].append(rated)
        return Detections(
            ids=tuple(sample.id for sample in self.dataset.samples),
            labels=self.labels,
            sizes=np.array(self.loader.sizes, np.int64),
            truths=[as_array(sample.boxes) for sample in self.dataset.samples],
            classes=classes,
            posteriors=posteriors,
            windows=[np.concatenate(rows) for rows in windows],
            scores=[np.concatenate(rows) for rows in scores],
            boxes=np.zeros((*shape, 4)),
            ratings=np.zeros(shape),
            names=self.model.classifier.net.classes,
            metadata={"protocol": str(protocol), **self.about},
        )

    def _classes(self, protocol: Protocol) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return each image's most probable classes, and last its own, with their posteriors."""
        found = self.posteriors
        if found is None:
            cache = self.cache / "classes" if self.cache else None
            options = self.model.classifier.options
            found = Evaluator(self.files[0], self.dataset, options, self.runtime, cache=cache).posteriors(protocol)
        names = self.model.classifier.net.classes
        if found.classes != names:
            raise UserError("posteriors: their classes are not those of the networks, in the same order")
        ids = tuple(sample.id for sample in self.dataset.samples)
        absent = set(ids) - set(found.ids)
        if absent:
            raise UserError(f"posteriors: without {len(absent)} of the {len(ids)} images (for example {min(absent)})")
        probabilities = found.rows(ids).probabilities
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST_DETECTIONS]
        own = np.where(self.labels >= 0, self.labels, best[:, 0])
        classes = np.concatenate([best, own[:, None]], axis=1)
        return classes, np.take_along_axis(probabilities, classes, axis=1)

    def _windows(
        self, part: Protocol, classes: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
        """Yield index, boxes and scores of every image at one scale."""
        size, sizes = self.model.size, self.loader.sizes
        every = batches(part, size, sizes, lambda *view: max(1, self.model.at_once(*view) // VIEWS[part.kind]))
        loaded = zip(every, self.loader.pictures(part, every), strict=True)
        progress = track(loaded, len(sizes), f"{part}", size=max(map(len, every)))
        for indices, pictures in progress:
            shown = [views(part, p, sizes[index], size) for index, p in zip(indices, pictures, strict=True)]
            scores, answers = self.model.maps([view for row in shown for view, _ in row])
            each = len(shown[0])
            for n, (index, row) in enumerate(zip(indices, shown, strict=True)):
                cells = zip(scores[n * each :], answers[n * each :], row, strict=False)
                parts = [windows_of(score, answer, frame, size, classes[index]) for score, answer, (_, frame) in cells]
                boxes, rated = (np.concatenate(rows) for rows in zip(*parts, strict=True))
                yield index, boxes, rated


def check_protocol(protocol: Protocol, model: LocalizationModel) -> None:
    """Raise UserError where a pair of networks cannot be tested by a protocol."""
    if protocol.kind not in VIEWS:
        raise UserError(f"protocol {protocol}: boxes come from center@Q, dense@Q,... or crops@Q,...")
    protocol.check_scales(model.least_size, model.size)


VIEWS = {"center": 1, "dense": 1, "crops": 25}
"""Views that `views` returns for each kind."""


def views(part: Protocol, picture: Picture, original: tuple[int, int], size: int) -> list[tuple[Picture, Frame]]:
    """Return what of a prepared picture the networks are shown, and where the first window of each view lies.

    ``center``: the central window. ``dense``: the whole picture, whose windows are the cells of the map. ``crops``: 5x5
    windows from edge to edge, each by itself. None is mirrored. `original` is height and width of the original picture.
    """
    scale = part.scales[0]
    if part.kind == "center":
        return [(picture, Frame.central(*original, scale, size))]
    if part.kind == "dense":
        return [(picture, Frame(*original, scale))]
    places = grid(picture.shape[0], picture.shape[1], size)
    return [(picture[y : y + size, x : x + size], Frame(*original, scale, y, x)) for y, x in places]


def windows_of(
    scores: NDArray[np.float32], answers: NDArray[np.float32], frame: Frame, size: int, classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return boxes (n, G, 4) and soft-max scores (n, G) of some classes in a picture's windows."""
    flat = scores.reshape(-1, scores.shape[-1]).astype(np.float64)
    powers = np.exp(flat - flat.max(axis=1, keepdims=True))
    posteriors = powers / powers.sum(axis=1, keepdims=True)
    boxes = boxes_of_windows(answers, frame, size, classes)
    return boxes.astype(np.float32), posteriors[:, classes].astype(np.float32)


def _about(classifier: Network, localizer: Network) -> dict[str, Any]:
    scales = classifier.provenance.train_scales
    return {
        "run": localizer.provenance.to_dict(),
        "configuration": localizer.configuration.name,
        "regression": localizer.regression,
        "batch_norm": localizer.batch_norm,
        "classifier_train_scales": scales and list(scales),
        "preprocessing": localizer.preprocessing.to_dict(),
    }


def _source(posteriors: Posteriors | None) -> str:
    """Return what names the posteriors that classes are guessed by: their networks and protocol."""
    if posteriors is None:
        return "the classifier, by the same protocol"
    about = posteriors.metadata
    parts = about.get("fused") or [about]
    return " and ".join(
        f"{part.get('configuration')} {part.get('weights_hash', '')[:16]} {part.get('protocol')}" for part in parts
    )
