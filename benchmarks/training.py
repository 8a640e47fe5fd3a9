"""A training step of a network, by each engine, beside the same network as it is usually written: time and memory."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.own_process import OwnProcess
from verydeep.basics.errors import UserError
from verydeep.basics.machine import describe_machine
from verydeep.basics.memory import keep_memory, resident

VARIANTS = {
    "native": "this project's network and step, memory kept, 3x3 convolutions and batch norm by the native engine",
    "torch": "the same by torch, memory kept",
    "plain": "nn.Sequential of Conv2d, ReLU(inplace), MaxPool2d, Flatten, Linear",
    "plain channels_last": "the same, channels last",
    "plain bf16": "the same, channels last, under torch's autocast to bfloat16",
    "plain compiled": "the same, channels last, through torch.compile",
}
OURS = ("native", "torch")
FLOAT32 = ("plain", "plain channels_last")
"""What ratios are to: the faster, or the smaller, of these."""


_STD = 60.0
"""Pixels are divided by this, so that the loss of random weights says something when it is compared."""


@dataclass(frozen=True)
class Task:
    """What is trained, on how many images of which size, by how many threads (None: torch's choice)."""

    net: str = "D"
    width: float = 1.0
    size: int = 224
    batch_size: int = 16
    batch_norm: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class TrainingRow:
    """One variant's figures.

    Attributes
    ----------
    variant : str
        Key of `VARIANTS`.
    seconds : float
        Median time of a step: forward, backward, update. With one thread it is the processor's, which other programs
        on the machine hardly change.
    peak_memory : int
        Most bytes that its process held, less what it held after its imports.
    loss : float
        Loss of the first step; equal weights and images give equal losses.
    speedup : float
        Time of the faster float32 `FLOAT32` over this one's.
    """

    variant: str
    seconds: float
    peak_memory: int
    loss: float
    speedup: float


def run(task: Task, repeats: int = 5, variants: Sequence[str] = tuple(VARIANTS)) -> dict[str, Any]:
    """Time the variants' steps in turn, each in a process of its own.

    Parameters
    ----------
    task : Task
        What is trained.
    repeats : int
        Steps timed of each variant, after one that is not; the median counts.
    variants : sequence of str
        Of `VARIANTS`, which must have those of `FLOAT32`: all of D hold 14 GB together.

    Returns
    -------
    dict
        `rows` (TrainingRow as dict), `missing` (variants that do not run here, and why), `time_ratio` and
        `memory_ratio` (the first variant's over the better plain one's in float32; below 1 is better), `machine`.
    """
    if wrong := [*(set(variants) - set(VARIANTS)), *(set(FLOAT32) - set(variants))]:
        raise UserError(
            f"variants {', '.join(variants)}: wrong or missing is {', '.join(wrong)}; all: {', '.join(VARIANTS)}"
        )
    workers = {variant: OwnProcess(variant, _serve, variant, task) for variant in VARIANTS if variant in variants}
    first = {variant: worker.receive() for variant, worker in workers.items()}
    missing = {variant: loss for variant, loss in first.items() if isinstance(loss, str)}
    seconds: dict[str, list[float]] = {variant: [] for variant in workers if variant not in missing}
    for _ in range(repeats):
        for variant, times in seconds.items():
            workers[variant].send("step")
            times.append(workers[variant].receive())
    medians = {variant: statistics.median(each) for variant, each in seconds.items()}
    fastest = min(medians[variant] for variant in FLOAT32)
    rows = {}
    for variant, time_taken in medians.items():
        workers[variant].send("memory")
        memory = workers[variant].receive()
        rows[variant] = TrainingRow(variant, time_taken, memory, first[variant], fastest / time_taken)
    mine, plain = next(iter(rows.values())), [rows[variant] for variant in FLOAT32]
    losses = [row.loss for row in rows.values() if row.variant != "plain bf16"]
    return {
        **vars(task),
        "repeats": repeats,
        "clock": _clock_name(task),
        "rows": [vars(row) for row in rows.values()],
        "missing": missing | {variant: "not asked for" for variant in VARIANTS if variant not in variants},
        "time_ratio": mine.seconds / fastest,
        "memory_ratio": mine.peak_memory / min(row.peak_memory for row in plain),
        "loss_difference": (max(losses) - min(losses)) / abs(min(losses)),
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return times and memory that `run` measured, for people."""
    norm = " with batch norm" if result["batch_norm"] else ""
    lines = [
        f"a step of {result['net']}{norm}, width {result['width']}, at {result['size']} x {result['size']}, "
        f"batch {result['batch_size']}, median of {result['repeats']}, {result['clock']}"
    ]
    lines += [
        f"{row['variant']:22}{row['seconds']:9.3f} s{row['speedup']:7.2f}{row['peak_memory'] / 2**30:8.2f} GiB   "
        f"loss {row['loss']:.4f}"
        for row in result["rows"]
    ]
    lines += [f"{variant:22} not measured: {why}" for variant, why in result["missing"].items()]
    lines += [
        f"time: {result['time_ratio']:.2f} of the faster plain one's in float32; memory: {result['memory_ratio']:.2f} "
        f"of the smaller one's; losses in float32 differ by {result['loss_difference']:.1e}; "
        f"torch {result['machine']['torch']}",
    ]
    return "\n".join(lines)


def _clock_name(task: Task) -> str:
    return "processor time of one thread" if task.threads == 1 else "time on the wall"


def _serve(connection: Connection, variant: str, task: Task) -> None:
    """Make a variant, do one step and send its loss, or why there is none; then a step, or the peak, a request."""
    if variant in OURS:
        keep_memory()  # as the commands that train do
    import torch

    import verydeep.training.train  # noqa: F401 (so that no variant's memory counts its imports)

    if task.threads:
        torch.set_num_threads(task.threads)
    clock = time.process_time if task.threads == 1 else time.perf_counter
    before = resident(peak=True)
    try:
        step = _ours(task, variant) if variant in OURS else _plain(task, variant)
        connection.send(step())
    except Exception as error:  # whatever keeps a peer from running here is told, not hidden
        connection.send(str(error).strip().partition("\n")[0] or type(error).__name__)
        return
    while True:
        if connection.recv() == "memory":
            connection.send(resident(peak=True) - before)
            return
        begun = clock()
        step()
        connection.send(clock() - begun)


def _inputs(task: Task) -> tuple[Any, Any]:
    import torch

    chance = torch.Generator().manual_seed(0)
    shape = (task.batch_size, task.size, task.size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=chance)
    return images, torch.randint(0, 1000, (task.batch_size,), generator=chance)


def _ours(task: Task, engine: str) -> Callable[[], float]:
    import torch

    from verydeep.basics.device import place
    from verydeep.datasets.loader import Batch
    from verydeep.training.parallel import Processes
    from verydeep.training.recipe import load_recipe
    from verydeep.training.step import Stepper, make_optimizer

    settings = {
        "optimizer.batch_size": task.batch_size, "optimizer.learning_rate": 1e-6, "engine": engine,
        "network.image_size": task.size,
    }  # fmt: skip
    recipe = load_recipe("paper-s256", [f"{key}={value}" for key, value in settings.items()])
    net = _network(task)
    place(net, torch.device("cpu"))
    stepper = Stepper(net, make_optimizer(net, recipe.optimizer), recipe, Processes())
    images, labels = _inputs(task)
    count = task.batch_size
    batch = Batch(images, labels, torch.arange(count), torch.zeros(count, 3), torch.empty(count, 0))
    return lambda: float(stepper(batch, 0, 0, 1.0).loss)


def _plain(task: Task, variant: str) -> Callable[[], float]:
    import torch
    from torch import nn

    from verydeep.training.step import arithmetic

    net = plain_vgg(task)
    for theirs, value in zip(net.parameters(), _network(task).parameters(), strict=True):
        theirs.data = value.data.reshape(theirs.shape)
    layout = torch.contiguous_format if variant == "plain" else torch.channels_last
    net = net.to(memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    forward = torch.compile(net) if variant == "plain compiled" else net
    precision = arithmetic(torch.device("cpu"), "bf16" if variant == "plain bf16" else "float32")
    images, labels = _inputs(task)
    mean = torch.tensor([123.68, 116.779, 103.939])

    def step() -> float:
        optimizer.zero_grad()
        x = ((images.float() - mean) / _STD).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        with precision:
            scores = forward(x)
        loss = nn.functional.cross_entropy(scores.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def _network(task: Task) -> Any:
    from verydeep.nets.families import create
    from verydeep.nets.preprocessing import Preprocessing

    preprocessing = Preprocessing(std=(_STD, _STD, _STD))
    return create(
        task.net, width=task.width, fc_width=round(4096 * task.width), image_size=task.size,
        batch_norm=task.batch_norm, dropout=0.0, initialization="he", seed=0, preprocessing=preprocessing,
    )  # fmt: skip


def plain_vgg(task: Task) -> Any:
    """Return a network in the usual way of writing it, an nn.Sequential with Linear layers, dropout left out."""
    from torch import nn

    from verydeep.nets.configurations import CONFIGURATIONS

    layers: list[nn.Module] = []
    before, side = 3, task.size
    for block in CONFIGURATIONS[task.net].blocks:
        for conv in block:
            channels = round(conv.channels * task.width)
            layers += [nn.Conv2d(before, channels, conv.kernel, padding=conv.kernel // 2)]
            layers += [nn.BatchNorm2d(channels)] * task.batch_norm + [nn.ReLU(inplace=True)]
            before = channels
        layers.append(nn.MaxPool2d(2))
        side //= 2
    wide = round(4096 * task.width)
    layers += [nn.Flatten(), nn.Linear(side * side * before, wide), nn.ReLU(inplace=True)]
    layers += [nn.Linear(wide, wide), nn.ReLU(inplace=True), nn.Linear(wide, 1000)]
    return nn.Sequential(*layers)
