"""Some steps of every kind of training, in one of several processes, in float64."""

import os
from pathlib import Path
from typing import Any

import torch

from tests.training.conftest import tiny_recipe
from verydeep.datasets.loader import Augmentation, Share, TrainingLoader
from verydeep.datasets.opening import Reading
from verydeep.localization.task import Localization
from verydeep.nets.families import with_random_weights
from verydeep.nets.preprocessing import Preprocessing
from verydeep.segmentation.task import Segmentation
from verydeep.training.batch_norm import measure_statistics, trained_batch_norm
from verydeep.training.parallel import Processes, _leave
from verydeep.training.run import grey_levels
from verydeep.training.step import MovingAverage, Stepper, make_optimizer, set_training
from verydeep.training.task import Classification, Task
from verydeep.training.train import create_empty

STEPS = 3
CASES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "batch norm": ("network.batch_norm=true",),
    "accumulation": ("network.batch_norm=true", "optimizer.accumulation=2"),
    "average": ("regularization.ema=0.9",),
    "mixup": ("regularization.mixup=0.4", "optimizer.accumulation=2"),
    "weighted": ("data.balance=weights",),
    "boxes": ("network.batch_norm=true",),
    "pixels": ("network.batch_norm=true", "optimizer.accumulation=2", "segmentation.loss=mean"),
    "bf16": ("optimizer.communication=bf16",),
}
"""Recipes; batches are of 7 images, which neither 2 nor 3 processes share evenly."""


class InFloat64:
    """A network's preprocessing, whose answers are float64."""

    def __init__(self, of: Preprocessing) -> None:
        self.of = of

    def __call__(self, images: torch.Tensor, shifts: torch.Tensor | None = None) -> torch.Tensor:
        return self.of(images, shifts).double()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def work(rank: int, size: int, port: int, data: dict[str, Path], out: Path) -> None:
    """Be process `rank` of `size`, and write what every case comes to."""
    if size > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    processes = Processes.join(torch.device("cpu"))
    found = {name: _train(name, words, processes, data) for name, words in CASES.items()}
    torch.save(found, out / f"{size}-{rank}.pt")
    _leave()  # as Python's end does: a thread of gloo's that outlives it aborts the process now and then
    alive = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    assert not [name for name in alive if "gloo" in name], alive


def _train(name: str, words: tuple[str, ...], processes: Processes, data: dict[str, Path]) -> dict[str, Any]:
    task: Task = {"boxes": Localization("pcr"), "pixels": Segmentation("32s")}.get(name, Classification())
    pixels = (
        "segmentation.crop=[40, 56]",
        "segmentation.padding=map",
        "network.image_size=64",
        "images.scales=[64, 64]",
    )
    recipe = tiny_recipe("optimizer.batch_size=7", "engine=torch", *(pixels if name == "pixels" else ()), *words)
    dataset, _ = task.examples(task.open(Reading(), data.get(name, data["classes"]), "train"))
    net = with_random_weights(create_empty("A", recipe, task, dataset.classes).config, "he", 3)
    net = net.double()
    net.preprocessing = InFloat64(net.preprocessing)  # type: ignore[assignment]
    augmentation = Augmentation(
        net.image_size, recipe.images.scales, sampler=task.sampler(dataset, net.image_size, recipe),
        canvas=task.canvas(recipe), fill=grey_levels(net.preprocessing),
    )  # fmt: skip
    loader = TrainingLoader(
        dataset, augmentation, 7, 3, workers=1, passes=STEPS,
        share=Share(processes.rank, processes.size, recipe.optimizer.accumulation),
    )  # fmt: skip
    stepper = Stepper(net, make_optimizer(net, recipe.optimizer), recipe, processes, task=task)
    average = MovingAverage(net, recipe.regularization.ema)
    set_training(net)
    losses = []
    for step, batch in zip(range(STEPS), loader.epoch(0), strict=False):
        result = stepper(batch, 0, step, 1.0)
        average.update(net)
        losses += processes.mean(float(result.loss))
    tensors = {**net.state_dict(), **{f"average of {key}": value for key, value in average.average.items()}}
    if trained_batch_norm(net):
        measure_statistics(net, [next(loader.epoch(1))], stepper.parts, "float32")
        tensors |= {f"measured {key}": value.clone() for key, value in net.named_buffers()}
    return {"losses": torch.tensor(losses, dtype=torch.float64), **tensors}
