"""A training step of D against the same step of VGG-16 as it is usually written: time and peak memory."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.own_process import OwnProcess
from verydeep.basics.machine import describe_machine
from verydeep.basics.memory import resident

VARIANTS = {
    "verydeep": "this project's D: convolutions throughout, images channels last",
    "plain": "nn.Sequential of Conv2d, ReLU(inplace), MaxPool2d, Flatten, Linear",
    "plain channels_last": "the same, channels last",
}


_STD = 60.0
"""Pixels are divided by this, so that the loss of random weights says something when it is compared."""


@dataclass(frozen=True)
class TrainingRow:
    """One variant's figures.

    Attributes
    ----------
    variant : str
        Key of `VARIANTS`.
    seconds : float
        Median time of a step: forward, backward, update.
    peak_memory : int
        Most bytes that its process held, less what it held after its imports.
    loss : float
        Loss of the first step; equal weights and images give equal losses.
    """

    variant: str
    seconds: float
    peak_memory: int
    loss: float


def run(batch_size: int = 16, repeats: int = 5, width: float = 1.0, threads: int | None = None) -> dict[str, Any]:
    """Time the variants' steps in turn, each in a process of its own.

    Parameters
    ----------
    batch_size : int
        Images of 224 x 224 pixels in a step.
    repeats : int
        Steps timed of each variant, after one that is not; the median counts.
    width : float
        Factor on all channels, of the fully connected layers too; 1 is the paper's D.
    threads : int, optional
        Of torch; by default its own choice.

    Returns
    -------
    dict
        `rows` (TrainingRow as dict), `time_ratio` and `memory_ratio` (this project's over the better plain one's;
        below 1 is better), `machine`.
    """
    workers = {variant: OwnProcess(variant, _serve, variant, batch_size, width, threads) for variant in VARIANTS}
    losses = {variant: worker.receive() for variant, worker in workers.items()}
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(repeats):
        for variant, worker in workers.items():
            worker.send("step")
            seconds[variant].append(worker.receive())
    rows = []
    for variant, worker in workers.items():
        worker.send("memory")
        rows.append(TrainingRow(variant, statistics.median(seconds[variant]), worker.receive(), losses[variant]))
    mine, *plain = rows
    return {
        "batch_size": batch_size,
        "repeats": repeats,
        "width": width,
        "rows": [vars(row) for row in rows],
        "time_ratio": mine.seconds / min(row.seconds for row in plain),
        "memory_ratio": mine.peak_memory / min(row.peak_memory for row in plain),
        "loss_difference": max(abs(mine.loss - row.loss) / abs(row.loss) for row in plain),
        "machine": describe_machine(),
    }


def text(result: dict[str, Any]) -> str:
    """Return times and memory that `run` measured, for people."""
    lines = [
        f"a step of D, width {result['width']}, at 224 x 224, batch {result['batch_size']}, float32, "
        f"median of {result['repeats']}"
    ]
    lines += [
        f"{row['variant']:22}{row['seconds']:8.2f} s{row['peak_memory'] / 2**30:8.2f} GiB   loss {row['loss']:.4f}"
        for row in result["rows"]
    ]
    lines += [
        f"time: {result['time_ratio']:.2f} of the faster plain one's; memory: {result['memory_ratio']:.2f} of the "
        f"smaller one's; losses differ by {result['loss_difference']:.1e}",
    ]
    return "\n".join(lines)


def _serve(connection: Connection, variant: str, batch_size: int, width: float, threads: int | None) -> None:
    """Make a variant, do one step and send its loss; then a step, or the peak memory, a request."""
    import torch

    import verydeep.training.train  # noqa: F401 (so that no variant's memory counts its imports)

    if threads:
        torch.set_num_threads(threads)
    before = resident(peak=True)
    if variant == "verydeep":
        step = _ours(batch_size, width)
    else:
        step = _plain(batch_size, width, variant.endswith("channels_last"))
    connection.send(step())
    while True:
        if connection.recv() == "memory":
            connection.send(resident(peak=True) - before)
            return
        begun = time.perf_counter()
        step()
        connection.send(time.perf_counter() - begun)


def _inputs(batch_size: int) -> tuple[Any, Any]:
    import torch

    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 224, 224, 3), dtype=torch.uint8, generator=chance)
    return images, torch.randint(0, 1000, (batch_size,), generator=chance)


def _ours(batch_size: int, width: float) -> Callable[[], float]:
    import torch

    from verydeep.basics.device import place
    from verydeep.datasets.loader import Batch
    from verydeep.training.parallel import Processes
    from verydeep.training.recipe import load_recipe
    from verydeep.training.step import Stepper, make_optimizer

    recipe = load_recipe("paper-s256", [f"optimizer.batch_size={batch_size}", "optimizer.learning_rate=1e-6"])
    net = _network(width)
    place(net, torch.device("cpu"))
    stepper = Stepper(net, make_optimizer(net, recipe.optimizer), recipe, Processes())
    images, labels = _inputs(batch_size)
    batch = Batch(images, labels, torch.arange(batch_size), torch.zeros(batch_size, 3), torch.empty(batch_size, 0))
    return lambda: float(stepper(batch, 0, 0, 1.0).loss)


def _plain(batch_size: int, width: float, channels_last: bool) -> Callable[[], float]:
    import torch
    from torch import nn

    net = plain_vgg16(width)
    for theirs, value in zip(net.parameters(), _network(width).parameters(), strict=True):
        theirs.data = value.data.reshape(theirs.shape)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    images, labels = _inputs(batch_size)
    mean = torch.tensor([123.68, 116.779, 103.939])

    def step() -> float:
        optimizer.zero_grad()
        x = ((images.float() - mean) / _STD).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def _network(width: float) -> Any:
    from verydeep.nets.families import create
    from verydeep.nets.preprocessing import Preprocessing

    preprocessing = Preprocessing(std=(_STD, _STD, _STD))
    fc_width = round(4096 * width)
    return create(
        "D", width=width, fc_width=fc_width, dropout=0.0, initialization="he", seed=0, preprocessing=preprocessing
    )


def plain_vgg16(width: float = 1.0) -> Any:
    """Return VGG-16 in the usual way of writing it, an nn.Sequential with Linear layers, dropout left out."""
    from torch import nn

    layers: list[nn.Module] = []
    before = 3
    for count, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(before, round(channels * width), 3, padding=1), nn.ReLU(inplace=True)]
            before = round(channels * width)
        layers.append(nn.MaxPool2d(2))
    wide = round(4096 * width)
    layers += [nn.Flatten(), nn.Linear(49 * before, wide), nn.ReLU(inplace=True)]
    layers += [nn.Linear(wide, wide), nn.ReLU(inplace=True), nn.Linear(wide, 1000)]
    return nn.Sequential(*layers)
