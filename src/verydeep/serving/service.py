"""The way of a request: decoded in threads, run in batches, drawn in threads."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from verydeep.basics.machine import cores
from verydeep.basics.memory import Budget
from verydeep.evaluation.heatmap import heatmap
from verydeep.images import decode
from verydeep.inference.memory import bytes_to_prepare
from verydeep.inference.runtime import Runtime
from verydeep.nets.network import Network
from verydeep.serving.batching import Batcher
from verydeep.serving.guard import Exchange
from verydeep.serving.metrics import Metrics
from verydeep.serving.models import Models
from verydeep.serving.tasks import Heat, Prepared, Upload

Result = TypeVar("Result")
DRAWN_PIXEL = 96
"""Bytes that a drawing takes for each pixel of its picture, beside 64 MiB."""


@dataclass(frozen=True)
class Shares:
    """Parts of `--memory`: for what requests hold; the rest for decoding, and as much for the network."""

    memory: int

    @property
    def requests(self) -> int:
        return self.memory // 4

    @property
    def each(self) -> int:
        return (self.memory - self.requests) // 2


class Service:
    """What all requests share."""

    def __init__(self, models: Models, wait: float, shares: Shares, metrics: Metrics) -> None:
        self.models, self.metrics = models, metrics
        self.batcher = Batcher(wait, metrics)
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
        with self._preparing.hold(max(bytes_to_prepare(size, scale) for part in task.parts for scale in part.scales)):
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
        return {"queue_pictures": len(self.batcher), "models": len(self.models.names)}

    def stop(self) -> None:
        """Finish what was begun."""
        self.models.stop()
        self.batcher.stop()
        self._threads.shutdown()


def shares_of(runtime: Runtime) -> tuple[Shares, Runtime]:
    """Return the parts of a service's memory, and the runtime of its networks."""
    shares = Shares(runtime.memory)
    return shares, replace(runtime, memory=shares.each)
