"""A bounded queue of pictures, and the thread that runs them in batches."""

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import monotonic
from typing import Any, Protocol

from verydeep.serving.metrics import Metrics
from verydeep.serving.refusal import RefusedError

QUEUE = 256
"""Requests in work at a time, and pictures that wait for a batch."""


class Task(Protocol):
    """One kind of work of one network; equal ones, for pictures of equal sizes, share a batch."""

    @property
    def name(self) -> str: ...

    def __hash__(self) -> int: ...

    def at_once(self, prepared: Any) -> int:
        """Return how many pictures like this one share a batch."""

    def run(self, prepared: Sequence[Any]) -> Sequence[Any]:
        """Return the result for each picture."""


@dataclass
class _Job:
    task: Task
    prepared: Any
    key: Hashable
    since: float = field(default_factory=monotonic)
    future: "Future[Any]" = field(default_factory=Future)


class Batcher:
    """Runs pictures in one thread, the oldest first, and with it those of its task and sizes.

    A batch waits until its first picture is `wait` seconds old, or the batch is full, or `stop` was called; no longer
    than the one before it takes in any case. At most `most` pictures wait.
    """

    def __init__(self, wait: float, metrics: Metrics, most: int = QUEUE) -> None:
        self.wait, self.most, self._metrics = wait, most, metrics
        self._jobs: list[_Job] = []
        self._changed = Condition()
        self._stopping = False
        self._thread = Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, task: Task, pictures: Sequence[tuple[Hashable, Any]]) -> "list[Future[Any]]":
        """Enter pictures, each with its sizes, all or none; RefusedError where there is no room for them."""
        jobs = [_Job(task, prepared, (task, sizes)) for sizes, prepared in pictures]
        with self._changed:
            self._jobs = [job for job in self._jobs if not job.future.cancelled()]
            if len(jobs) > self.most:
                raise RefusedError(413, f"{len(jobs)} pictures in a request; the most is {self.most}")
            if len(self._jobs) + len(jobs) > self.most:
                raise RefusedError(429, f"the queue is full: {len(self._jobs)} pictures wait; try again")
            self._jobs += jobs
            self._changed.notify_all()
        return [job.future for job in jobs]

    def stop(self) -> None:
        """Run what waits, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if running:
                self._run(running)

    def _next(self) -> list[_Job]:
        """Return the next batch, waiting for it; none at the end."""
        with self._changed:
            while True:
                self._jobs = [job for job in self._jobs if not job.future.cancelled()]
                if self._jobs:
                    first = self._jobs[0]
                    most = self._at_once(first)
                    batch = [job for job in self._jobs if job.key == first.key][:most]
                    left = first.since + self.wait - monotonic()
                    if len(batch) == most or left <= 0 or self._stopping:
                        taken = set(map(id, batch))
                        self._jobs = [job for job in self._jobs if id(job) not in taken]
                        return batch
                    self._changed.wait(left)
                elif self._stopping:
                    return []
                else:
                    self._changed.wait()

    @staticmethod
    def _at_once(job: _Job) -> int:
        try:
            return job.task.at_once(job.prepared)
        except Exception:  # alone it fails for itself, and not this thread with it
            return 1

    def _run(self, batch: Sequence[_Job]) -> None:
        try:
            results = batch[0].task.run([job.prepared for job in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:  # one picture's fault is not the others'
                for job in batch:
                    self._run([job])
            return
        self._metrics.batch(batch[0].task.name, len(batch))
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)
