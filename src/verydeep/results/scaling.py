"""How long a study takes on many GPUs: arithmetic, bytes of gradients, and where more of them stop paying.

A model, not a measurement. What a GPU does is its data sheet's; what networks reach of it, and what a step costs
beside, are assumptions that stand here by name.
"""

from dataclasses import dataclass
from typing import Literal

from verydeep.basics.errors import UserError
from verydeep.nets.geometry import summarize
from verydeep.nets.network import Network
from verydeep.results.plan import Plan, empty_network

Scheme = Literal["data", "split"]
"""`data`: every GPU has the whole network, and all gradients are summed. `split`: convolutions so, but each GPU has a
part of the fully connected layers, and sees what convolutions gave of all images ("one weird trick", Krizhevsky 2014).
"""

SHARE = 0.45
"""Of the peak that training reaches: assumed."""
STEP = 2e-3
"""Seconds of a step that more GPUs do not shorten, launches and collectives' latency: assumed."""
BYTES = 2
"""Of a number that is told: bfloat16."""
NODE = 8
"""GPUs that the fast links join."""
PRICE = 3.0
"""Dollars for an hour of one GPU: assumed, the same for all."""


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: bfloat16 multiply-adds a second (dense), bytes a second to others in its node, and beyond."""

    macs: float
    inside: float
    beyond: float


GPUS = {
    # NVIDIA's data sheets: bfloat16 tensor cores without sparsity (two operations a multiply-add), NVLink in one
    # direction, and one InfiniBand port a GPU as in DGX systems (200, 400, 400, 400 Gb/s).
    "a100": Gpu(312e12 / 2, 300e9, 25e9),
    "h100": Gpu(989e12 / 2, 450e9, 50e9),
    "h200": Gpu(989e12 / 2, 450e9, 50e9),
    "b200": Gpu(2250e12 / 2, 900e9, 50e9),
}


@dataclass(frozen=True)
class Load:
    """What a step of training has to do: multiply-adds of the forward pass for an image, and parameters."""

    convolutions: int
    connected: int  # multiply-adds of the fully connected layers
    shared: int  # parameters of the convolutions
    own: int  # and of the fully connected layers
    inputs: int  # numbers an image that the fully connected layers take in, all together

    @staticmethod
    def of(net: Network) -> "Load":
        """Return the load of a network at its own size."""
        layers = summarize(net, net.image_size, net.image_size)
        fully = [layer for layer in layers if layer.name.startswith("fc")]
        sizes = {name: p.numel() for name, p in net.named_parameters()}
        own = sum(count for name, count in sizes.items() if name.startswith("fc"))
        inputs = sum(p[0].numel() for name, p in net.named_parameters() if name.startswith("fc") and p.ndim > 1)
        connected = sum(layer.macs for layer in fully)
        return Load(sum(layer.macs for layer in layers) - connected, connected, sum(sizes.values()) - own, own, inputs)


def told(load: Load, batch: int, gpus: int, scheme: Scheme) -> float:
    """Return the bytes that each GPU sends in a step.

    A sum over n GPUs in a ring takes 2 (n - 1) / n of its bytes. Of a split layer each GPU sends its images' inputs to
    all others, and gets their gradients back: (n - 1) / n of the batch's, twice.
    """
    ring = 2 * (gpus - 1) / gpus
    if scheme == "data":
        return BYTES * ring * (load.shared + load.own)
    return BYTES * ring * (load.shared + batch * load.inputs)


def step_seconds(load: Load, batch: int, gpus: int, gpu: Gpu, scheme: Scheme = "data") -> float:
    """Return the time of a training step: a third is forward; gradients are told while others are computed."""
    arithmetic = 3 * (load.convolutions + load.connected) * batch / gpus / (gpu.macs * SHARE)
    telling = told(load, batch, gpus, scheme) / (gpu.inside if gpus <= NODE else gpu.beyond)
    return STEP + arithmetic / 3 + max(arithmetic * 2 / 3, telling)


def pays_until(load: Load, batch: int, gpu: Gpu, scheme: Scheme) -> int:
    """Return the greatest power of two of GPUs, at most the batch, at which doubling them still gained a quarter."""
    count = 1
    while 2 * count <= batch:
        gain = step_seconds(load, batch, count, gpu, scheme) / step_seconds(load, batch, 2 * count, gpu, scheme)
        if gain < 1.25:
            break
        count *= 2
    return count


def gpu_named(name: str) -> Gpu:
    """Return the GPU of a name; UserError for another."""
    if name not in GPUS:
        raise UserError(f"--gpu {name}: expected one of {', '.join(GPUS)}")
    return GPUS[name]


@dataclass(frozen=True)
class Estimate:
    """What is left of a study on so many GPUs: seconds by each scheme, `data` first, and dollars by the faster."""

    gpus: int
    seconds: tuple[float, float]

    @property
    def dollars(self) -> float:
        """At the price assumed."""
        return min(self.seconds) / 3600 * self.gpus * PRICE


def estimate(plan: Plan, gpus: int, gpu: Gpu) -> Estimate:
    """Return how long a plan's runs take one after another; images are tested on all GPUs without a word to each other.

    UserError for more GPUs than images in a batch.
    """
    totals = {"data": 0.0, "split": 0.0}
    schemes: tuple[Scheme, Scheme] = ("data", "split")
    for run, left in zip(plan.runs, plan.costs, strict=True):
        batch = run.recipe.optimizer.batch_size
        if not 1 <= gpus <= batch:
            raise UserError(f"--gpus {gpus}: expected 1 to {batch}, the images in a batch of recipe {run.recipe.name}")
        load = Load.of(empty_network(run, plan.data.classes))
        epochs = run.recipe.schedule.epochs * run.recipe.passes(plan.data.training_images)
        steps = epochs * plan.data.training_images // batch if left.training else 0
        for scheme in schemes:
            totals[scheme] += steps * step_seconds(load, batch, gpus, gpu, scheme)
            totals[scheme] += left.testing / (gpus * gpu.macs * SHARE)
    return Estimate(gpus, (totals["data"], totals["split"]))


def words(plan: Plan, gpus: int, name: str) -> list[str]:
    """Return rows for people: on 1, 8, 64 and 256 GPUs of a kind, and on as many as asked for."""
    gpu, most = gpu_named(name), min(run.recipe.optimizer.batch_size for run in plan.runs)
    estimate(plan, gpus, gpu)  # or what is wrong with it
    counts = sorted({count for count in (1, 8, 64, 256) if count <= most} | {gpus})
    every = [estimate(plan, count, gpu) for count in counts]
    one = every[0].seconds[0]
    rows = ["GPUs   data parallel      split fc   times one   dollars"]
    rows += [
        f"{each.gpus:4}   {each.seconds[0] / 86400:8.3g} days {each.seconds[1] / 86400:8.3g} days "
        f"{one / min(each.seconds):9.3g} {each.dollars:10,.0f}"
        for each in every
    ]
    heaviest = max(zip(plan.runs, plan.costs, strict=True), key=lambda pair: pair[1].total)[0]
    load, batch = Load.of(empty_network(heaviest, plan.data.classes)), heaviest.recipe.optimizer.batch_size
    ends = {scheme: pays_until(load, batch, gpu, scheme) for scheme in ("data", "split")}
    return [
        *rows,
        f"A model, not measured: {name} by its data sheet, {SHARE:.0%} of its bfloat16 peak, {STEP * 1e3:g} ms a step "
        f"beside, {PRICE:g} dollars an hour (docs/scaling.md). Of {heaviest.name}, in batches of {batch}, doubling the "
        f"GPUs gains a quarter or more up to {ends['data']}, with split fully connected layers, which verydeep has "
        f"not, up to {ends['split']}.",
    ]
