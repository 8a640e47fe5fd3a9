"""What the service has done and holds, as Prometheus reads it."""

from collections import Counter
from collections.abc import Iterator
from threading import Lock

from verydeep.basics.memory import resident

_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_ABOUT = {
    "requests_total": ("counter", "Requests answered, by path and status."),
    "pictures_total": ("counter", "Pictures run, by task."),
    "batches_total": ("counter", "Batches run, by task."),
    "reloads_total": ("counter", "Weights files that changed, by model and whether they were taken."),
    "request_seconds": ("histogram", "From a request's headers to the end of its answer, by path."),
}


class Metrics:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _ABOUT if name != "request_seconds"}
        self._seconds: dict[str, list[float]] = {}  # by path: requests within each bound, all of them, their sum
        self._lock = Lock()

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is the template, never what a client wrote."""
        with self._lock:
            self._counts["requests_total"][f'path="{path}",status="{status}"'] += 1
            row = self._seconds.setdefault(path, [0.0] * (len(_BOUNDS) + 2))
            for place, bound in enumerate(_BOUNDS):
                row[place] += seconds <= bound
            row[-2] += 1
            row[-1] += seconds

    def batch(self, task: str, pictures: int) -> None:
        """Count a batch."""
        with self._lock:
            self._counts["batches_total"][f'task="{task}"'] += 1
            self._counts["pictures_total"][f'task="{task}"'] += pictures

    def reload(self, model: str, taken: bool) -> None:
        """Count a weights file that changed."""
        with self._lock:
            self._counts["reloads_total"][f'model="{model}",taken="{str(taken).lower()}"'] += 1

    def text(self, now: dict[str, float]) -> str:
        """Return all as Prometheus's text format, with the gauges given."""
        with self._lock:
            return "\n".join([*self._lines({**now, "resident_memory_bytes": resident()}), ""])

    def _lines(self, gauges: dict[str, float]) -> Iterator[str]:
        for name, (kind, about) in _ABOUT.items():
            yield f"# HELP verydeep_{name} {about}"
            yield f"# TYPE verydeep_{name} {kind}"
            for labels, count in self._counts.get(name, Counter()).items():
                yield f"verydeep_{name}{{{labels}}} {count}"
        for path, row in self._seconds.items():
            for bound, within in zip([*map(str, _BOUNDS), "+Inf"], row[:-1], strict=True):
                yield f'verydeep_request_seconds_bucket{{path="{path}",le="{bound}"}} {within:g}'
            yield f'verydeep_request_seconds_count{{path="{path}"}} {row[-2]:g}'
            yield f'verydeep_request_seconds_sum{{path="{path}"}} {row[-1]:.6f}'
        for name, value in gauges.items():
            yield f"# TYPE verydeep_{name} gauge"
            yield f"verydeep_{name} {value:.0f}"
