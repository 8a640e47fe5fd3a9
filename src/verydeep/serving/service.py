"""The way of a request: decoded in threads, run in batches, drawn in threads."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

import numpy as np

from verydeep.basics.machine import cores
from verydeep.basics.memory import Budget
from verydeep.evaluation.heatmap import heatmap
from verydeep.images import decode
from verydeep.inference.runtime import Runtime
from verydeep.inference.views import Picture
from verydeep.nets.network import Network
from verydeep.perceptual.pictures import MetricName, check_pair
from verydeep.scoremaps.score_map import Wanted
from verydeep.serving.batching import Batcher
from verydeep.serving.guard import Exchange
from verydeep.serving.jobs import Job, Jobs
from verydeep.serving.large import LargePicture
from verydeep.serving.metrics import Metrics
from verydeep.serving.models import Model, Models
from verydeep.serving.refusal import RefusedError
from verydeep.serving.tasks import Distance, Heat, Prepared, Upload

Result = TypeVar("Result")
DRAWN_PIXEL = 96
"""Bytes that a drawing takes for each pixel of its picture, beside 64 MiB."""


@dataclass(frozen=True)
class Shares:
    """Parts of `--memory`: for what requests hold, and for the job at work; the rest for decoding and for networks."""

    memory: int

    @property
    def requests(self) -> int:
        return self.memory // 4

    @property
    def jobs(self) -> int:
        return self.memory // 8

    @property
    def each(self) -> int:
        return (self.memory - self.requests - self.jobs) // 2


class Service:
    """What all requests share."""

    def __init__(self, models: Models, wait: float, shares: Shares, metrics: Metrics) -> None:
        self.models, self.metrics = models, metrics
        self.batcher = Batcher(wait, metrics)
        self.jobs = Jobs()
        self.measured: dict[tuple[str, str], float] = {}  # seconds a picture, by weights and protocol
        self._shares = shares
        self._preparing = Budget(shares.each)
        self._threads = ThreadPoolExecutor(max(2, min(16, cores())), thread_name_prefix="pictures")
        self._drawing = Lock()  # Matplotlib's caches are of the whole process

    async def run(self, task: Any, uploads: Sequence[Upload], exchange: Exchange) -> list[Any]:
        """Return the task's result for each upload; UserError or RefusedError for the first that has none."""
        prepared: list[Prepared] = []
        for upload in uploads:
            prepared.append(await self.in_thread(partial(self._prepare, task, upload)))
            exchange.hold(prepared[-1].bytes)
        futures = self.batcher.submit(task, [(one.sizes, one) for one in prepared])
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    async def compare(
        self, model: Model, metric: MetricName, files: Sequence[bytes], exchange: Exchange
    ) -> tuple[Distance, float]:
        """Return how far apart two pictures look, and what measured it."""
        task = await self.in_thread(partial(model.distance, metric))
        names = ("the first picture", "the second picture")
        pictures = []
        for file, name in zip(files, names, strict=True):
            pictures.append(await self.in_thread(partial(self._decode, file, name)))
            exchange.hold(pictures[-1].nbytes)
        check_pair(pictures[0], pictures[1], names, model.net, self._shares.each)
        (future,) = self.batcher.submit(task, [(pictures[0].shape, tuple(pictures))])
        return task, await asyncio.wrap_future(future)

    def _decode(self, file: bytes, name: str) -> Picture:
        most = self._shares.each // decode.BYTES_A_PIXEL
        header = decode.read_header(file, name, max_pixels=most)
        with self._preparing.hold(decode.BYTES_A_PIXEL * header.height * header.width):
            return decode.decode(file, name, max_pixels=most)

    async def large(self, name: str, model: Model, upload: bytes, wanted: Wanted, threshold: float) -> Job:
        """Enter a job for a picture's score map."""
        dense = model.dense
        if dense is None:
            raise RefusedError(404, "this network gives no score maps")

        def make(folder: Path) -> LargePicture:
            device = str(model.forward.device)
            return LargePicture(folder, upload, dense, device, wanted, threshold, self._shares.jobs)

        return await self.in_thread(partial(self.jobs.add, name, make))

    async def measure(self, model: Model, exchange: Exchange) -> dict[str, float]:
        """Return what a picture of 640 x 480 pixels takes by each protocol, in seconds; run once for each network."""
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        for protocol, task in model.choices.items():
            if (model.hash, protocol) not in self.measured:
                took = []
                for _ in range(3):  # the first time memory is laid out
                    begin = monotonic()
                    await self.run(task, [picture], exchange)
                    took.append(monotonic() - begin)
                self.measured[model.hash, protocol] = min(took)
        return {protocol: self.measured[model.hash, protocol] for protocol in model.choices}

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Run a function that takes its time."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _prepare(self, task: Any, upload: Upload) -> Prepared:
        most = self._shares.each // decode.BYTES_A_PIXEL
        if isinstance(upload, bytes):
            header = decode.read_header(upload, "picture", max_pixels=most)
            size = header.height, header.width
        else:
            size = upload.shape[0], upload.shape[1]
        with self._preparing.hold(task.bytes_to_prepare(size)):
            prepared: Prepared = task.prepare(upload)
        return prepared

    async def draw(self, heat: Heat, net: Network) -> bytes:
        """Return a heat map as a PNG file."""
        return await self.in_thread(partial(self._draw, heat, net))

    def _draw(self, heat: Heat, net: Network) -> bytes:
        height, width = heat.picture.shape[:2]
        file = BytesIO()
        with self._drawing, self._preparing.hold(DRAWN_PIXEL * height * width + (64 << 20)):
            title = f"{heat.label} ({heat.posterior:.0%})"
            heatmap(heat.picture, heat.scores, net, title).savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()

    def warm_up(self) -> None:
        """Draw once: fonts are loaded then."""
        model = self.models[self.models.names[0]]
        blank = np.zeros((64, 64, 3), np.uint8)
        self._threads.submit(self._draw, Heat(blank, np.zeros((1, 1), np.float32), "", 0.0), model.net).result()

    def gauges(self) -> dict[str, float]:
        """Return what is so now."""
        return {"queue_pictures": len(self.batcher), "models": len(self.models.names), "jobs": len(self.jobs)}

    def stop(self) -> None:
        """Finish what was begun."""
        self.models.stop()
        self.jobs.stop()
        self.batcher.stop()
        self._threads.shutdown()


def shares_of(runtime: Runtime) -> tuple[Shares, Runtime]:
    """Return the parts of a service's memory, and the runtime of its networks."""
    shares = Shares(runtime.memory)
    return shares, replace(runtime, memory=shares.each)
