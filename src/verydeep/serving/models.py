"""The networks that are served, loaded whole and checked before they answer, and again when their files change."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch

from verydeep.basics.errors import UserError
from verydeep.evaluation.predict import Predictor
from verydeep.inference.forward import Forward
from verydeep.inference.memory import release_memory
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol, default_protocol
from verydeep.inference.runtime import Runtime
from verydeep.localization.localize import Localizer
from verydeep.nets.families import load
from verydeep.nets.weights import weights_hash
from verydeep.perceptual.comparison import Comparison
from verydeep.perceptual.pictures import MetricName, make_metric
from verydeep.perceptual.trunk import trunk
from verydeep.scoremaps.densify import Dense, densify, run
from verydeep.segmentation.segmenter import Segmenter
from verydeep.serving.metrics import Metrics
from verydeep.serving.refusal import RefusedError
from verydeep.serving.tasks import Classify, Describe, Distance, HeatMap, Localize, Segment
from verydeep.training.run_folder import RunFolder, find_weights
from verydeep.transfer.elementary import usual_layer

Signature = tuple[tuple[int, int, int], ...]


class Model:
    """One network, and what it can be asked; UserError where it cannot be tested by the protocol, or runs wrong."""

    def __init__(self, source: str, localizer: str | None, protocol: str | None, runtime: Runtime) -> None:
        path = find_weights(source)
        self.hash, net = weights_hash(path), load(path)
        if net.task == "localize":
            raise UserError(f"{source}: is a localizer; give it as --localizer, with its classifier as WEIGHTS")
        self.net = net
        self.classify = self.localize = self.segment = None
        self.dense: Dense | None = None
        self.choices: dict[str, Classify] = {}
        self._metrics: dict[str, Comparison] = {}
        if net.task == "classify":
            predictor = Predictor(net, protocol, len(net.classes), runtime=runtime)
            self.forward, self.protocol = predictor.forward, predictor.protocol
            self.classify = Classify(predictor)
            self.choices = {str(one.predictor.protocol): one for one in _choices(self.classify)}
            with suppress(UserError):  # one that classifies descriptors has no map
                self.dense = densify(net).to(self.forward.device)
        elif net.task == "segment":
            self.segment = Segment(Segmenter.of(net, runtime))
            self.forward, self.protocol = self.segment.segmenter.forward, default_protocol(net)
        else:
            self.forward, self.protocol = Forward(net, Options(), runtime), default_protocol(net)
        self.layer = usual_layer(net)
        own = net.config.described if net.config.descriptor else "pool5"
        self.forward.stops = tuple(
            dict.fromkeys(name for name in (own, "pool5", self.layer) if name in net.layer_names)
        )
        self.least_size = self.forward.least_size
        if localizer is not None:
            if self.classify is None:
                raise UserError(f"{source}: is a trunk; --localizer needs a classifier as the first of the WEIGHTS")
            self.localize = Localize(Localizer(self.forward, find_weights(localizer), runtime=runtime))
        self._check(source)

    def describe(self, scales: Sequence[int]) -> Describe:
        """Return what computes descriptors at these scales, by default the protocol's."""
        if self.segment is not None:
            raise RefusedError(404, "this network says what each pixel is: ask it to segment")
        chosen = tuple(sorted(set(scales))) or self.protocol.scales
        if min(chosen) < self.least_size:
            raise UserError(f"scale {min(chosen)} is too small for this network: the least is {self.least_size}")
        return Describe(self.forward, self.layer, chosen)

    def classify_by(self, protocol: str | None) -> Classify | None:
        """Return what names classes by one of the protocols that may be chosen, by default the service's own."""
        if protocol is None or self.classify is None:
            return self.classify
        if protocol not in self.choices:
            raise UserError(f"protocol {protocol!r:.60}: expected one of {', '.join(self.choices)}")
        return self.choices[protocol]

    def distance(self, metric: MetricName) -> Distance:
        """Return what measures how far apart two pictures look."""
        if self.segment is not None:
            raise RefusedError(404, "this network says what each pixel is: ask it to segment")
        if metric not in self._metrics:
            self._metrics[metric] = make_metric(metric, trunk(self.net)).to(self.forward.device)
        return Distance(self._metrics[metric], self.forward.device)

    def heat_map(self, label: str | None, protocol: str | None = None) -> HeatMap:
        """Return what computes a class's score map, at the largest scale of a protocol that may be chosen."""
        classify = self.classify_by(protocol)
        if classify is None:
            raise RefusedError(404, "this network names no classes: it gives descriptors alone")
        if label is not None and label not in self.net.classes:
            raise UserError(f"class {label!r} is none of this network's")
        return HeatMap(classify.predictor, label)

    def _check(self, source: str) -> None:
        """Run everything once, which also packs the weights: memory does not grow with the first requests."""
        side = max(self.net.image_size, self.least_size)
        blank = np.zeros((side, side, 3), np.uint8)
        tasks = (self.classify, self.localize, self.classify and self.heat_map(None), self.segment)
        for task in (*tasks, None if self.segment else self.describe(())):
            if task is not None:
                try:
                    task.run([task.prepare(blank)])
                except UserError as error:
                    raise UserError(f"{source}: {error}") from None
        if self.dense is not None:
            with torch.inference_mode():
                run(self.dense.layers, torch.zeros(3, side, side, device=self.forward.device))


def _choices(own: Classify) -> Iterator[Classify]:
    """Yield the protocols that may be chosen, the cheapest first: at the service's own scale and those around it."""
    predictor, net = own.predictor, own.forward.net
    scale = predictor.protocol.scales[-1]
    around = {max(net.image_size, scale + step * scale // 8) for step in (-1, 0, 1)}
    protocols = [Protocol("center", (scale,)), Protocol("dense", (scale,)), Protocol("dense", tuple(around))]
    protocols += [Protocol("crops", (scale,))]
    for protocol in dict.fromkeys([*protocols, predictor.protocol]):
        if protocol == predictor.protocol:
            yield own
            continue
        with suppress(UserError):  # not every network can be tested by every one
            yield Classify(predictor.by(protocol))


class Models:
    """The served networks by name. A thread looks every `every` seconds whether a file has changed.

    A file is read once it looks the same twice; the old network answers until the new one is loaded and checked, and
    goes on where it cannot be.
    """

    def __init__(
        self,
        sources: Sequence[str],
        localizer: str | None,
        protocol: str | None,
        runtime: Runtime,
        metrics: Metrics,
        every: float = 1.0,
    ) -> None:
        if protocol is not None:
            Protocol.parse(protocol)
        self._sources: dict[str, str] = {}
        for source in sources:
            name = name_of(source)
            if name in self._sources:
                raise UserError(f"{source}: {self._sources[name]} is served as {name}, too; rename one file or folder")
            self._sources[name] = source
        self._localizer, self._protocol, self._runtime = localizer, protocol, runtime
        self._metrics, self._every, self._end = metrics, every, Event()
        self._loaded = {name: self._signature(name) for name in self._sources}
        self._models = {name: self._load(name) for name in self._sources}
        self._thread = Thread(target=self._watch, name="reload", daemon=True)
        self._thread.start()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all networks, in the order given."""
        return tuple(self._sources)

    def __getitem__(self, name: str) -> Model:
        if name not in self._models:
            raise RefusedError(404, f"no such model; served here: {', '.join(self.names)}")
        return self._models[name]

    def stop(self) -> None:
        """End the thread that looks for changes."""
        self._end.set()
        self._thread.join()

    def _load(self, name: str) -> Model:
        localizer = next(iter(self._localizers(name)), None)
        return Model(self._sources[name], localizer, self._protocol, self._runtime)

    def _localizers(self, name: str) -> list[str]:
        """Return the first network's localizer, where there is one; none of the others'."""
        return [self._localizer] if self._localizer and next(iter(self._sources)) == name else []

    def _signature(self, name: str) -> Signature:
        files = [self._sources[name], *self._localizers(name)]
        found = []
        for file in files:
            path = RunFolder(Path(file)).weights if Path(file).is_dir() else Path(file)
            try:
                about = path.stat()
            except OSError:  # the name of public weights, or gone: what is loaded stays
                continue
            found.append((about.st_ino, about.st_size, about.st_mtime_ns))
        return tuple(found)

    def _watch(self) -> None:
        seen = dict(self._loaded)
        while not self._end.wait(self._every):
            for name in self._sources:
                now, before = self._signature(name), seen[name]
                seen[name] = now
                if now and now == before and now != self._loaded[name]:
                    self._reload(name, now)

    def _reload(self, name: str, now: Signature) -> None:
        self._loaded[name] = now  # tried once, whatever comes of it
        try:
            model = self._load(name)
            if self._signature(name) != now:
                raise UserError("it changed again while it was read")
        except Exception as error:
            print(f"verydeep: warning: {name}: kept as it was: {error}", file=sys.stderr, flush=True)
            self._metrics.reload(name, taken=False)
            return
        self._models[name] = model
        self._metrics.reload(name, taken=True)
        release_memory()
        print(f"verydeep: {name}: loaded anew (SHA-256 {model.hash[:16]})", file=sys.stderr, flush=True)


def name_of(source: str) -> str:
    """Return what a weights file, run or name of public weights is served as.

    Examples
    --------
    >>> [name_of(text) for text in ("runs/A", "x/photos.safetensors", "caffe:vgg16", "A/best.safetensors")]
    ['A', 'photos', 'vgg16', 'A']
    """
    path = Path(source)
    name = path.absolute().name if path.is_dir() or not path.suffix else path.stem
    if name == "best" and path.parent.name:
        name = path.parent.name
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in name.rpartition(":")[2])
    return kept.strip(".") or "model"
