"""Work that takes minutes: accepted at once, done one after the other, looked at by its number, forgotten in time."""

import secrets
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Any, Literal, Protocol

from verydeep.basics.errors import UserError
from verydeep.basics.scratch import scratch_folder
from verydeep.serving.refusal import RefusedError

MOST = 8
"""Jobs that are there at a time: waiting, running, and done."""
KEPT = 15 * 60.0
"""Seconds after its end at which a job and its files are deleted."""
State = Literal["waiting", "running", "done", "failed", "cancelled"]
Tell = Callable[[float], None]


class StoppedError(Exception):
    """The job was cancelled, or the service ends."""


class Work(Protocol):
    """What a job does; made in the job's folder."""

    def run(self, tell: Tell) -> dict[str, Any]:
        """Do it, telling the share done; what `tell` raises goes through. Return what there is to say of the result."""


@dataclass
class Job:
    """A job, and the folder of its files."""

    model: str
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    progress: float = 0.0
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    work: Work | None = None
    product: Any = None  # the work, once it is done
    begin: float = field(default_factory=monotonic)
    end: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.end is not None

    def about(self) -> dict[str, Any]:
        """Return what a client is told."""
        said: dict[str, Any] = {
            "job": self.id,
            "model": self.model,
            "state": self.state,
            "progress": round(self.progress, 4),
            "seconds": round((self.end or monotonic()) - self.begin, 1),
        }
        if self.end is not None:
            said["deleted_in"] = max(0, round(self.end + KEPT - monotonic()))
        if self.error:
            said["error"] = self.error
        return {**said, "result": self.result} if self.state == "done" else said

    def over(self, state: State, error: str = "") -> None:
        """Note its end."""
        self.state, self.error, self.end, self.work = state, error, monotonic(), None


class Jobs:
    """All jobs, and the thread that does them. Their files are in a scratch folder."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._jobs: dict[str, Job] = {}
        self._changed = Condition()
        self._stopping = False
        self._scratch = ExitStack()
        self._folder = self._scratch.enter_context(scratch_folder("verydeep-jobs-"))
        self._thread = Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, id: str) -> Job:
        job = self._jobs.get(id)
        if job is None:
            raise RefusedError(404, "no such job, or it was deleted: that is done 15 minutes after its end")
        return job

    def add(self, model: str, make: Callable[[Path], Work]) -> Job:
        """Enter what `make` makes in the job's folder; RefusedError where too many are there, or what `make` raises."""
        job = Job(model, Path(tempfile.mkdtemp(dir=self._folder)))
        with self._changed:
            full = len(self._jobs) >= self._most
            if not full:
                self._jobs[job.id] = job
        try:
            if full:
                raise RefusedError(
                    429, f"{self._most} jobs are there; delete one (DELETE /jobs/ID), or try again later"
                )
            work = make(job.folder)
        except BaseException:
            self._jobs.pop(job.id, None)
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        with self._changed:
            job.work = work
            self._changed.notify_all()
        return job

    def delete(self, id: str) -> None:
        """Cancel a job where it is not over, and delete its files once its work has ended."""
        job = self[id]
        with self._changed:
            self._jobs.pop(id, None)
            running = job.state == "running"
            if not job.is_over:
                job.over("cancelled")
        if not running:
            shutil.rmtree(job.folder, ignore_errors=True)

    def stop(self) -> None:
        """Cancel all jobs, end the thread, and delete all files."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        self._scratch.close()

    def forget(self) -> None:
        """Delete what has been over for long enough."""
        for job in [*self._jobs.values()]:
            if job.end is not None and monotonic() > job.end + KEPT:
                self._jobs.pop(job.id, None)
                shutil.rmtree(job.folder, ignore_errors=True)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> Job | None:
        while True:
            self.forget()
            with self._changed:
                if self._stopping:
                    return None
                waiting = [job for job in self._jobs.values() if job.state == "waiting" and job.work]
                if waiting:
                    waiting[0].state = "running"
                    return waiting[0]
                self._changed.wait(5)

    def _run(self, job: Job) -> None:
        def tell(progress: float) -> None:
            job.progress = progress
            self.forget()
            if self._stopping or job.state == "cancelled":
                raise StoppedError

        try:
            assert job.work is not None
            result = job.work.run(tell)
            with self._changed:
                if job.state == "running":
                    job.result, job.product, job.progress = result, job.work, 1.0
                    job.over("done")
        except StoppedError:
            pass
        except UserError as error:
            self._fail(job, str(error))
        except MemoryError:
            self._fail(job, "not enough memory for this picture")
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._fail(job, "internal error; the service's log says more")
        if job.id not in self._jobs:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _fail(self, job: Job, why: str) -> None:
        with self._changed:
            if not job.is_over:
                job.over("failed", why)
