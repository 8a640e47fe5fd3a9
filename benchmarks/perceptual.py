"""LPIPS as a loss and as a metric, beside the programs that people use for it: time and peak memory."""

import gc
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from benchmarks.own_process import OwnProcess
from verydeep.basics.errors import WorkError
from verydeep.basics.machine import describe_machine
from verydeep.basics.memory import resident

WAYS = {"loss": ("verydeep", "lpips"), "metric": ("verydeep", "lpips", "pyiqa")}

_MOST_DIFFERENCE = 1e-6


def run(
    side: int = 256,
    batch_size: int = 8,
    picture: tuple[int, int] = (800, 1080),
    repeats: int = 5,
    threads: int | None = None,
) -> dict[str, Any]:
    """Time each way in turn, each in a process of its own, with the same random trunk and pictures.

    Parameters
    ----------
    side, batch_size : int
        Of the pictures that a loss is computed of, with its gradient to one of the two batches.
    picture : tuple of int
        Height and width of the two pictures that a metric compares.
    repeats : int
        Timed runs of each, after one that is not; medians count.
    threads : int, optional
        Of torch; by default its own choice.

    Returns
    -------
    dict
        `rows` with `task`, `way`, `seconds`, `peak_memory` in bytes (the most that its process held, less what it held
        after its imports), `distance`, and `time_ratio` and `memory_ratio` (a peer's over this project's; above 1 this
        project is better); `machine`.

    Raises
    ------
    WorkError
        The ways do not agree on the distance.
    """
    shapes = {"loss": (batch_size, 3, side, side), "metric": (1, 3, *picture)}
    rows: list[dict[str, Any]] = []
    for task, ways in WAYS.items():
        rows += _rows(task, ways, shapes[task], repeats, threads)
    return {"repeats": repeats, "threads": threads or "default", "rows": rows, "machine": describe_machine()}


def text(result: dict[str, Any]) -> str:
    """Return times and memory that `run` measured, for people."""
    words = "times the seconds and times the memory of this project's behind it"
    lines = [f"LPIPS by D with random weights, float32, median of {result['repeats']}; {words}"]
    lines += [
        f"{row['task']:8}{row['pictures']:16}{row['way']:10}{row['seconds']:8.2f} s"
        f"{row['peak_memory'] / 2**20:8.0f} MiB{row['time_ratio']:8.2f}{row['memory_ratio']:8.2f}"
        for row in result["rows"]
    ]
    return "\n".join(lines)


def _rows(
    task: str, ways: tuple[str, ...], shape: tuple[int, ...], repeats: int, threads: int | None
) -> list[dict[str, Any]]:
    workers = {way: OwnProcess(way, _serve, way, task, shape, threads) for way in ways}
    distances = {way: worker.receive() for way, worker in workers.items()}
    if (apart := max(distances.values()) - min(distances.values())) > _MOST_DIFFERENCE:
        raise WorkError(f"the ways differ by {apart:.1e} in what they compute: {distances}")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, worker in workers.items():
            worker.send("run")
            seconds[way].append(worker.receive())
    memory = {}
    for way, worker in workers.items():
        worker.send("memory")
        memory[way] = worker.receive()
    own = median(seconds["verydeep"])
    return [
        {
            "task": task,
            "pictures": " x ".join(str(number) for number in shape if number != 3),
            "way": way,
            "seconds": median(seconds[way]),
            "peak_memory": memory[way],
            "distance": distances[way],
            "time_ratio": median(seconds[way]) / own,
            "memory_ratio": memory[way] / memory["verydeep"],
        }
        for way in ways
    ]


def _serve(connection: Connection, way: str, task: str, shape: tuple[int, ...], threads: int | None) -> None:
    """Make a way, run it once and send the distance; then seconds, or the peak memory, a request."""
    import torch

    import verydeep as vd
    from benchmarks import perceptual_peers as peers

    peers.use()
    import lpips  # noqa: F401 (so that no way's memory counts its imports)

    if threads:
        torch.set_num_threads(threads)
    _ = vd.LPIPS, vd.create
    before = resident(peak=True)
    compare = _make(way)
    chance = torch.Generator().manual_seed(0)
    pictures = torch.rand(shape, generator=chance)
    references = (pictures + 0.2 * torch.randn(shape, generator=chance)).clamp_(0, 1)

    def once() -> float:
        x = pictures.detach().requires_grad_(task == "loss")
        with torch.set_grad_enabled(task == "loss"):
            distance = compare(x, references).mean()
        if task == "loss":
            distance.backward()
        return float(distance.detach())

    connection.send(once())
    while connection.recv() != "memory":
        begun = time.perf_counter()
        once()
        connection.send(time.perf_counter() - begun)
    connection.send(resident(peak=True) - before)


def _make(way: str) -> Callable[..., Any]:
    import verydeep as vd
    from benchmarks import perceptual_peers as peers
    from verydeep.checkpoints.inputs import TORCHVISION

    net = vd.create("D", 0, trunk="pool5", preprocessing=TORCHVISION, initialization="he", seed=0)
    peer = {"lpips": peers.lpips, "pyiqa": peers.pyiqa_lpips}
    compare: Callable[..., Any] = peer[way](net)[1] if way in peer else vd.LPIPS(net)
    del net  # the peers have copied its weights
    gc.collect()
    return compare
