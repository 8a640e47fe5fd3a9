"""A network and a data set become posteriors, by a protocol; what is already there is not computed again."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer
from verydeep.basics.progress import track
from verydeep.basics.rng import generator
from verydeep.basics.version import VERSION
from verydeep.datasets.content import content_digest
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.layout import WNID
from verydeep.datasets.splits import strata
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.posteriors import Posteriors
from verydeep.evaluation.unfinished import Unfinished, check_same_evaluation
from verydeep.inference.forward import Forward
from verydeep.inference.loading import Loader, batches
from verydeep.inference.options import Options
from verydeep.inference.parts import Part
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.runtime import Runtime, RuntimeOptions
from verydeep.nets.families import load
from verydeep.nets.network import Network
from verydeep.nets.weights import weights_hash

ALL = Part(1, 1)


def evaluate(
    net: Network | str | Path,
    dataset: Dataset,
    protocol: Protocol | str | None = None,
    *,
    options: Options | None = None,
    limit: int | None = None,
    cache: str | Path | None = None,
    **runtime: Unpack[RuntimeOptions],
) -> Posteriors:
    """Test a network on a data set by one protocol (paper section 3.2 and 4).

    Parameters
    ----------
    net : Network, str or Path
        The network or its weights file.
    dataset : Dataset
        Its classes must be among the network's, by name.
    protocol : Protocol or str, optional
        For example ``dense@256,384,512``; by default as for `predict`.
    options : Options, optional
        Soft-max and pooling.
    limit : int, optional
        Test on so many images only, evenly over the classes, the same ones every time.
    cache : str or Path, optional
        Folder for ``<protocol>.parquet``, also of the protocols whose mean this one is. What is there is not
        computed again, and a stopped evaluation continues.
    device, engine, memory, precision
        Where and how the network runs: the fields of `verydeep.inference.runtime.Runtime`.

    Returns
    -------
    Posteriors
        In the order of the data set; their labels index the network's classes.

    Raises
    ------
    UserError
        For classes unknown to the network, a scale too small for it, or a `cache` that holds another evaluation.
    BadImageError
        For an image that cannot be read.
    """
    evaluator = Evaluator(net, dataset, options, Runtime(**runtime), limit=limit, cache=cache)
    return evaluator.posteriors(protocol or default_protocol(evaluator.forward.net))


class Evaluator:
    """Tests one network on one data set by several protocols that share what they have in common.

    Parameters are those of `evaluate`, with its keywords of the runtime as one.
    """

    def __init__(
        self,
        net: Network | str | Path,
        dataset: Dataset,
        options: Options | None = None,
        runtime: Runtime = Runtime(),  # noqa: B008 (frozen)
        *,
        limit: int | None = None,
        cache: str | Path | None = None,
    ) -> None:
        weights, digest = ("", _hash(net)) if isinstance(net, Network) else (str(net), weights_hash(net))
        net = net if isinstance(net, Network) else load(net, "classify")
        net.check_task("classify")
        _check_number_of_labels(net, dataset, weights or "this network")
        self.dataset = dataset if limit is None else dataset.subset(evenly(dataset, limit))
        if not len(self.dataset):
            raise UserError(f"data set {dataset.name}, split {dataset.split}: no images to test on")
        self.labels = match_labels(self.dataset, net)
        self.targets = match_targets(self.dataset, net) if net.multi_label else None
        self.forward = Forward(net, options or Options(), runtime, len(self.dataset))
        self.loader = Loader(self.dataset, net, runtime.memory)
        self.cache = Path(cache) if cache is not None else None
        if self.cache and self.cache.exists() and not self.cache.is_dir():
            raise UserError(f"{self.cache}: is no folder; posteriors are written into one")
        self.about = self._describe(dataset, limit, weights, digest)

    def _describe(self, dataset: Dataset, limit: int | None, weights: str, digest: str) -> dict[str, Any]:
        net = self.forward.net
        about = {
            "weights": weights,
            "weights_hash": digest,
            "configuration": net.configuration.name,
            "run": net.provenance.to_dict(),
            "batch_norm": net.batch_norm,
            "data": dataset.name,
            "split": dataset.split,
            "split_provenance": dataset.provenance,
            "content_sha256": content_digest(self.dataset) if self.cache else None,
            "limit": limit and f"{limit} images, evenly over the classes, seed 0",
            "preprocessing": net.preprocessing.to_dict(),
            "options": self.forward.choices,
            "engine": self.forward.engine,
            "created_by": f"verydeep {VERSION}",
        }
        return dict(json.loads(json.dumps(about)))  # as it will be read again: lists, no tuples

    def path(self, protocol: Protocol | str) -> Path | None:
        """Return where the posteriors of a protocol are kept."""
        return self.cache / f"{_protocol(protocol)}.parquet" if self.cache else None

    def check(self, protocol: Protocol | str) -> Protocol:
        """Return the protocol, or raise UserError where this network cannot be tested by it."""
        protocol = _protocol(protocol)
        self.forward.check(protocol)
        return protocol

    def posteriors(self, protocol: Protocol | str) -> Posteriors:
        """Return the posteriors of a protocol, from its file, from those of its components, or from the network."""
        protocol = self.check(protocol)
        path = self.path(protocol)
        if path and path.exists():
            return self._finished(path)
        if protocol.components:
            mean = fuse([self.posteriors(component) for component in protocol.components])
            result = replace(mean, metadata=self._metadata(protocol))
            if path:
                result.write(path)
            return result
        return self._run(protocol, path)

    def _metadata(self, protocol: Protocol) -> dict[str, Any]:
        return {"protocol": str(protocol), **self.about}

    def _start(self, protocol: Protocol) -> Posteriors:
        """Return posteriors of which nothing is known yet: every class equally probable."""
        ids = tuple(sample.id for sample in self.dataset.samples)
        classes = self.forward.net.classes
        uniform = np.full((len(ids), len(classes)), 1 / len(classes), dtype=np.float32)
        return Posteriors(ids, self.labels, uniform, classes, self._metadata(protocol), self.targets)

    def _finished(self, path: Path) -> Posteriors:
        found, wanted = Posteriors.read(path), self._start(Protocol.parse(path.stem))
        check_same_evaluation(found, wanted, path)
        if len(found) != len(wanted):
            raise UserError(f"{path} holds {len(found)} images, here {len(wanted)}; choose another folder or remove it")
        return found.rows(wanted.ids)

    def do_part(self, protocol: Protocol | str, share: Part) -> int:
        """Do a part of what a protocol's file needs, for `posteriors` to find; return how many pictures it has.

        Parts, and whoever does the rest, run the network on the same batches, so the file is the same to the byte.
        UserError where there is no `cache`.
        """
        if self.cache is None:
            raise UserError(f"part {share}: needs a folder to leave its posteriors in")
        pictures: set[int] = set()
        for leaf in self.check(protocol).leaves:
            folder = self.cache / f".{leaf}.part-{share.number}-of-{share.count}"
            if (self.cache / f"{leaf}.parquet").exists():
                continue
            with sole_writer(folder):
                pictures.update(self._complete(leaf, Unfinished(self._start(leaf), folder), share))
        return len(pictures)

    def _run(self, part: Protocol, path: Path | None) -> Posteriors:
        folder = path.with_name(f".{part}.unfinished") if path else None
        with sole_writer(folder), ExitStack() as held:
            if path and path.exists():  # another process has just finished it
                return self._finished(path)
            done = sorted(path.parent.glob(f".{part}.part-*")) if path else []
            for other in done:
                held.enter_context(sole_writer(other))  # or it is still at work
            rows = Unfinished(self._start(part), folder, done)
            self._complete(part, rows)
            if path:
                rows.posteriors.write(path)
                rows.remove()
        return rows.posteriors

    def _complete(self, part: Protocol, rows: Unfinished, share: Part = ALL) -> list[int]:
        """Do what is left of a share of the batches; return the pictures of the share."""
        every = share.of(equal_sizes(self.forward, self.loader.sizes, part))
        left = [kept for batch in every if (kept := [i for i in batch if not rows.done[i]])]
        try:
            for _ in track(self._work(part, left, rows), sum(map(len, left)), f"{part}"):
                pass
        finally:
            rows.save()
        return [i for batch in every for i in batch]

    def _work(self, part: Protocol, left: list[list[int]], rows: Unfinished) -> Iterator[int]:
        """Enter the posteriors of each batch into `rows`; yield the index of every picture done."""
        for indices, scales in zip(left, self.loader.at_scales(part.each_scale, left), strict=True):
            whole = part.kind == "descriptor"
            found = self.forward.by_descriptor(scales) if whole else self.forward.posteriors(part, scales[0])
            rows.add(np.array(indices), found)
            yield from indices


def equal_sizes(forward: Forward, sizes: Sequence[tuple[int, int]], part: Protocol) -> list[list[int]]:
    """Return indices of pictures whose views have one size, as many at a time as the memory allows.

    A function of sizes and memory alone, so that a continued evaluation runs the same batches.
    """
    return batches(part, forward.net.image_size, sizes, lambda *size: forward.pictures_at_once(part, *size))


def evenly(dataset: Dataset, count: int, seed: int = 0) -> list[int]:
    """Choose `count` images evenly over the classes, at random but the same ones every time.

    Indices come in ascending order, all of them where there are no more than `count`; UserError where it is below 1.
    """
    if count < 1:
        raise UserError(f"limit {count}: at least one image is needed")
    rng = generator(seed)
    turns: dict[int, int] = defaultdict(int)  # how many of a class have been drawn before
    drawn = []
    labels = strata(dataset.samples)
    for index in rng.permutation(len(dataset)).tolist():
        label = labels[index]
        drawn.append((turns[label], index))
        turns[label] += 1
    # The first of every class, then the second of every class, and so on; the sort keeps the drawn order.
    return sorted(index for _, index in sorted(drawn, key=lambda pair: pair[0])[:count])


def _protocol(protocol: Protocol | str) -> Protocol:
    return Protocol.parse(protocol) if isinstance(protocol, str) else protocol


def match_labels(dataset: Dataset, net: Network) -> NDArray[np.int64]:
    """Return the labels as indices of the network's classes; -1 for none, and where there may be several."""
    place = _places(dataset, net)
    labels = [place[sample.label] if sample.label >= 0 else -1 for sample in dataset.samples]
    return np.array(labels, dtype=np.int64)


def match_targets(dataset: Dataset, net: Network) -> NDArray[np.int8]:
    """Return which of the network's classes images have, N x K: 1 or -1, and 0 for classes the data set has not."""
    targets = np.zeros((len(dataset), len(net.classes)), np.int8)
    targets[:, _places(dataset, net)] = dataset.targets()
    return targets


def _check_number_of_labels(net: Network, dataset: Dataset, name: str) -> None:
    if net.multi_label and not dataset.multi_label:
        raise UserError(
            f"{name}: its images may have several classes, {dataset.name} is read with one each; add --labels several "
            "where that has labels or boxes in files"
        )
    if dataset.multi_label and not net.multi_label:
        raise UserError(
            f"{name}: gives an image one class, those of {dataset.name} have several; test a network that was trained "
            "on such data"
        )


def _places(dataset: Dataset, net: Network) -> list[int]:
    """Return where the network has the data set's classes: matched by name, never by position."""
    # ILSVRC's networks call a class "n01440764 tench", its data sets "n01440764".
    wnids = {name.split(" ")[0]: i for i, name in enumerate(net.classes) if WNID.fullmatch(name.split(" ")[0])}
    place = wnids | {name: i for i, name in enumerate(net.classes)}
    unknown = [name for name in dataset.classes if name not in place]
    if unknown:
        raise UserError(
            f"data set {dataset.name} and network differ in classes: the network does not know {len(unknown)} of the "
            f"data set's {len(dataset.classes)} (for example {unknown[0]!r}; it knows {net.classes[0]!r}, ...); "
            "test on data with the classes it was trained on"
        )
    return [place[name] for name in dataset.classes]


def _hash(net: Network) -> str:
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
