"""One step of training: forward, backward, update."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from verydeep.basics.errors import UserError
from verydeep.basics.rng import generator
from verydeep.datasets.loader import Batch, Share
from verydeep.engines.training import run_natively
from verydeep.inference.runtime import layers_by
from verydeep.nets.layers import Dropout
from verydeep.nets.network import Network
from verydeep.training.engine import pick_training_engine
from verydeep.training.parallel import Processes
from verydeep.training.recipe import Optimizer, Recipe
from verydeep.training.task import Classification, Task

AUXILIARY_WEIGHT = 0.3
"""Of each auxiliary classifier's loss (Szegedy et al. 2014, section 5)."""

_MIXUP = 1
"""Key that keeps mixup's draws apart from those of samples."""


@dataclass(frozen=True)
class StepResult:
    """Scalars of a batch before the update, on the network's device: mean loss and share of wrong images in [0, 1]."""

    loss: Tensor
    wrong: Tensor


def make_optimizer(net: Network, settings: Optimizer) -> torch.optim.SGD:
    """Return SGD with momentum over the trained layers, weights and biases in groups of their own.

    UserError for a factor on layers that the network has not, or where nothing is left to train.
    """
    factors = layer_factors(net, settings)
    for name, layer in net.named_children():
        layer.requires_grad_(factors[name] > 0)
    groups: list[dict[str, Any]] = []
    for factor in sorted(set(factors.values()) - {0.0}, reverse=True):
        layers = [layer for name, layer in net.named_children() if factors[name] == factor]
        trained = [parameter for layer in layers for parameter in layer.parameters()]
        weights = [parameter for parameter in trained if parameter.ndim > 1]
        biases = [parameter for parameter in trained if parameter.ndim == 1]
        decay = settings.weight_decay
        groups += [
            {"params": weights, "multiplier": factor, "weight_decay": decay},
            {
                "params": biases,
                "multiplier": factor * settings.bias_learning_rate,
                "weight_decay": decay * settings.bias_weight_decay,
            },
        ]
    if not any(group["params"] for group in groups):
        raise UserError("optimizer.layer_learning_rates: freezes every layer; leave one to train, such as fc8")
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in net.parameters())
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=fused,
    )


def layer_factors(net: Network, settings: Optimizer) -> dict[str, float]:
    """Return the factor on the learning rate of each of the network's modules; batch norm has its convolution's."""
    rates, factors = settings.layer_learning_rates, {}
    names = {name: net.normalized.get(name, name) for name, _ in net.named_children()}
    for prefix in rates:
        if not any(layer.startswith(prefix) for layer in names.values()):
            raise UserError(
                f"optimizer.layer_learning_rates: {net.configuration.name} has no layer that begins with {prefix!r}; "
                "for example conv, conv1_1, fc, fc8"
            )
    for name, layer in names.items():
        fitting = [prefix for prefix in rates if layer.startswith(prefix)]
        factor = float(rates[max(fitting, key=len)]) if fitting else 1.0
        factors[name] = factor if settings.trained_layers == "all" or layer.startswith("fc") else 0.0
    return factors


def set_training(net: Network) -> None:
    """Put a network in training mode, but for the batch norm of layers that are not trained: it stays as it is."""
    net.train()
    for layer in net.children():
        parameters = list(layer.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            layer.eval()


def arithmetic(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network runs in `float32` or `bf16`."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def frozen_until(net: Network) -> str | None:
    """Return the last pool before which nothing is trained, drawn by chance or used elsewhere; None for none."""
    last = None
    for name, module in net.named_children():
        if isinstance(module, nn.Dropout) or any(parameter.requires_grad for parameter in module.parameters()):
            break
        last = name if isinstance(module, nn.MaxPool2d) else last
        if name == net.first_skip:
            break
    return last


def _forward(net: Network, device: torch.device, recipe: Recipe) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return what scores a batch: layers that are not trained run by the engine of inference, as they are now."""
    if pick_training_engine(recipe, net, device) == "torch":
        return net.in_training
    layer = frozen_until(net)
    tested = copy(net)
    tested.training = False  # of the network alone: its layers, which it shares, stay as they are
    lower = layers_by("native", tested, layer) if layer else None

    def through(x: Tensor, later: str, after: str | None) -> Tensor:
        if after is None and lower:
            x, after = lower(x), layer
        return x if later == after else run_natively(net, x, later, after)

    return lambda x: net.in_training_by(x, through)


class Stepper:
    """Runs the steps of a run; every random choice follows from (seed, epoch, step)."""

    def __init__(
        self,
        net: Network,
        optimizer: torch.optim.SGD,
        recipe: Recipe,
        processes: Processes,
        compiled: bool = False,
        task: Task | None = None,
    ) -> None:
        self.net = net
        self.task = task or Classification()
        self.optimizer = optimizer
        self.recipe = recipe
        self.processes = processes
        self.device = next(net.parameters()).device
        run = torch.compile(net.in_training) if compiled else _forward(net, self.device, recipe)
        self.forward = processes.wrapped(net, run, recipe.optimizer.communication)
        self.autocast = arithmetic(self.device, recipe.precision)
        self.dropouts = [module for module in net.modules() if isinstance(module, Dropout)]
        self.count = 0

    def __call__(self, batch: Batch, epoch: int, step: int, factor: float) -> StepResult:
        """Do step `step` of epoch `epoch` at `factor` times the initial learning rate."""
        chance = int(generator(self.recipe.seed, epoch, step, 0).integers(2**62))
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.parts(batch)
        batch = Batch(
            *(tensor.to(self.device, non_blocking=True) for tensor in vars(batch).values() if tensor is not None)
        )
        total = StepResult(torch.zeros((), device=self.device), torch.zeros((), device=self.device))
        mix = self._mixing(batch, epoch, step)
        counted = [self.task.counted(batch, part, self.recipe) for part in parts]
        every = self._of_all(batch, counted)
        for number, part in enumerate(parts):
            # Dropout draws from torch's global generator: seeded by the step, a resumed run is exact; anew for each
            # part, what an image's numbers get does not depend on how the batch is shared out.
            torch.manual_seed(chance)
            with self._unsynchronized(number + 1 < len(parts)):
                result, beside = self._part(batch, part, mix)
                here = counted[number]
                weight = self.processes.size * (here.to(result.loss) if isinstance(here, Tensor) else here) / every
                ((result.loss + beside) * weight).backward()  # type: ignore[no-untyped-call]
            total = StepResult(total.loss + result.loss.detach() * weight, total.wrong + result.wrong * weight)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.learning_rate * group["multiplier"] * factor
        self.optimizer.step()
        return total

    def parts(self, batch: Batch) -> list[Tensor]:
        """Return the numbers of this process's images that go through the network together, part by part."""
        here = len(batch.labels)
        count = here if batch.rows is None else self._images(here)
        lengths = [len(rows) for rows in self._share(self.processes.rank).rows(count)]
        return list(torch.split(torch.arange(here), lengths))

    def _share(self, rank: int) -> Share:
        return Share(rank, self.processes.size, self.recipe.optimizer.accumulation)

    def _images(self, here: int) -> int:
        """Return how many images the whole batch has; it is the same in every step."""
        if not self.count:
            self.count = int(self.processes.sum(torch.tensor(here)))
        return self.count

    def _of_all(self, batch: Batch, counted: list[int | Tensor]) -> int | Tensor:
        """Return of how many images, or pixels, the whole batch has the mean loss."""
        here = sum(counted)
        if isinstance(here, Tensor):
            return self.processes.sum(here).clamp_min(1)
        return here if batch.rows is None else self._images(here)

    def _unsynchronized(self, so: bool) -> AbstractContextManager[object]:
        """Return the context in which gradients are added up and not yet told to the other processes."""
        return self.forward.no_sync() if so and isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def _part(self, batch: Batch, part: Tensor, mix: "_Mix") -> tuple[StepResult, Tensor | float]:
        """Return loss and error of the images numbered `part`, and the loss of auxiliary classifiers.

        Mixup takes its partners from the whole batch.
        """
        part = part.to(self.device)
        x = self.net.preprocessing(batch.images[part], batch.shifts[part])
        rows = part if batch.rows is None else batch.rows[part]
        other = mix.partner[rows]
        if mix.share < 1:
            partners = self.net.preprocessing(mix.whole.images[other], mix.whole.shifts[other])
            x = x.mul_(mix.share).add_(partners, alpha=1 - mix.share)
        for module in self.dropouts:
            module.rows = len(mix.partner), rows
        with self.autocast:
            every = [scores.to(torch.promote_types(scores.dtype, torch.float32)) for scores in self.forward(x)]
        losses = [self.task.loss(scores, batch, part, self.recipe) for scores in every]
        if mix.share < 1:
            others = [self.task.loss(scores, mix.whole, other, self.recipe) for scores in every]
            losses = [mix.share * loss + (1 - mix.share) * of for loss, of in zip(losses, others, strict=True)]
        wrong = self.task.wrong(every[0].detach(), batch, part).float().mean()
        return StepResult(losses[0], wrong), AUXILIARY_WEIGHT * sum(losses[1:])

    def _mixing(self, batch: Batch, epoch: int, step: int) -> "_Mix":
        """Draw mixup's share of the image itself, and every image's partner in the whole batch."""
        strength = self.recipe.regularization.mixup
        here = len(batch.labels)
        count = here if batch.rows is None else self._images(here)
        if not strength:
            return _Mix(1.0, torch.arange(count, device=self.device), batch)
        rng = generator(self.recipe.seed, epoch, step, 0, _MIXUP)
        share = float(rng.beta(strength, strength))
        partner = torch.from_numpy(rng.permutation(count)).to(self.device)
        return _Mix(max(share, 1 - share), partner, self._whole(batch, count))

    def _whole(self, batch: Batch, count: int) -> Batch:
        """Return the batch of all processes, in its order."""
        size = self.processes.size
        if batch.rows is None or size == 1:
            return batch
        rows = [np.concatenate(self._share(rank).rows(count)) for rank in range(size)]
        order = torch.from_numpy(np.concatenate(rows).argsort()).to(self.device)
        counts = [len(each) for each in rows]
        return Batch(*(self.processes.gathered(tensor, counts)[order] for tensor in vars(batch).values()))


@dataclass(frozen=True)
class _Mix:
    """The share of the image itself, the partner of each image of the whole batch, and that batch."""

    share: float
    partner: Tensor
    whole: Batch


class MovingAverage:
    """Exponential moving average of weights and buffers; each step keeps the share `decay` of the old one."""

    def __init__(self, net: Network, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def update(self, net: Network) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        # Early on the average follows faster, lest the random initial weights stay in it for long.
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for old, new in _pairs(self.average, net):
            if old.is_floating_point():
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)


def _pairs(average: dict[str, Tensor], net: Network) -> Iterator[tuple[Tensor, Tensor]]:
    for name, tensor in net.state_dict().items():
        yield average[name], tensor.detach()
