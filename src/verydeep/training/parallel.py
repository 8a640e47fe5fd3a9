"""Synchronous data parallelism over processes (paper: section 3.3): same weights as one process would get."""

import atexit
import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from verydeep.basics.errors import SharedError, UserError

T = TypeVar("T")
Scores = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Processes:
    """A process among those that `torchrun` started, number `rank` of `size`; alone without it."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> "Processes":
        """Join the group that `torchrun`'s environment variables describe."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if device.type == "cuda" and device.index is None:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # `cuda` alone means the same GPU in all of them
        if not distributed.is_initialized():
            # Imported when there is a group already, it keeps that, and gloo's threads, as its functions' default.
            from torch.distributed.nn import functional  # noqa: F401

            # Figures, messages and results are on the CPU everywhere; gradients are where the network is.
            store, rank, size = next(iter(rendezvous("env://")))
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            here = PrefixStore(meet(store, rank, size), store)
            distributed.init_process_group(backend, store=here, rank=rank, world_size=size)
            atexit.register(_leave)  # gloo's threads, still running when Python ends, now and then abort the process
        return cls(distributed.get_rank(), size)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def wrapped(self, net: nn.Module, run: Scores, communication: str = "float32") -> Scores:
        """Return `run`, which gives scores by the network's weights, so that the backward pass averages gradients.

        It is torch's DistributedDataParallel: while layers' gradients are still computed, others' are already summed.
        Batch norm that is trained takes its statistics from all processes' images.
        """
        if self.size == 1:
            return run
        for layer in net.modules():
            if type(layer) is nn.BatchNorm2d and layer.weight.requires_grad:
                layer.__class__ = SharedBatchNorm  # the same weights and buffers, another forward pass
        device = next(net.parameters()).device
        wrapped = DistributedDataParallel(
            _Scores(net, run),
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )
        if communication == "bf16":
            wrapped.register_comm_hook(None, _in_bf16)
        return wrapped

    def gathered(self, tensor: Tensor, counts: Sequence[int]) -> Tensor:
        """Return all processes' tensors one behind the other; `counts` are their lengths."""
        if self.size == 1:
            return tensor
        most = max(counts)
        padded = torch.cat([tensor, tensor.new_zeros((most - len(tensor), *tensor.shape[1:]))])
        every = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(every, padded)
        return torch.cat([one[:count] for one, count in zip(every, counts, strict=True)])

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a number over the processes."""
        if self.size > 1:
            distributed.all_reduce(value := value.clone())
        return value

    def mean(self, *values: float) -> list[float]:
        """Return the mean of each value over the processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return list((tensor / self.size).tolist())

    def any(self, *here: bool) -> list[bool]:
        """Return for each value whether it holds in any of the processes."""
        return [mean > 0 for mean in self.mean(*map(float, here))]

    def share(self, value: T) -> T:
        """Return the first process's value in every process.

        What the first process writes is shared this way, never read by the others: it may not be there yet.
        """
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Make a UserError within the block one of all processes, lest some wait for others that have gone.

        Where one or more raised it, every process raises a SharedError: that of the first of these.
        """
        if self.size == 1:
            yield
            return
        message = None
        try:
            yield
        except UserError as error:
            message = str(error)
        messages: list[str | None] = [None] * self.size
        distributed.all_gather_object(messages, message)
        for message in messages:
            if message is not None:
                raise SharedError(message, self.first, distributed.barrier)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm that in training takes mean and variance from the images of all processes, as one process would."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize N x C x H x W."""
        if not self.training:
            return super().forward(x)
        count = _sum(x.new_tensor(x.numel() // x.shape[1]))
        mean = _sum(x.sum(dim=(0, 2, 3))) / count
        away = x - mean[:, None, None]
        variance = _sum(away.square().sum(dim=(0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach(), float(count))
        factor = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], away, factor[:, None, None])

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, here: Tensor) -> Tensor:
        distributed.all_reduce(total := here.clone())
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        distributed.all_reduce(total := gradient.contiguous().clone())
        return total


def _sum(here: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(here))  # type: ignore[no-untyped-call]


def _in_bf16(
    state: object,
    bucket: distributed.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Average a bucket of gradients, told in half of the bits; torch's own hook is for GPUs alone."""
    gradients = bucket.buffer()
    told = gradients.div(distributed.get_world_size()).to(torch.bfloat16)
    work = distributed.all_reduce(told, async_op=True)
    return cast(torch.futures.Future[Tensor], work.get_future().then(lambda done: gradients.copy_(done.value()[0])))


class _Scores(nn.Module):
    """What gives a network's scores, as the module that torch wraps."""

    def __init__(self, net: nn.Module, run: Scores) -> None:
        super().__init__()
        self.net, self.run = net, run

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.run(x)


def meet(store: Store, rank: int, size: int, seconds: float = 0.05) -> str:
    """Return a name that these processes share, and no earlier ones that met at the same store.

    torchrun's store outlives processes that were killed, and their addresses in it: who starts anew would connect to
    these and wait. So each process asks by a word of its own, and the first one answers whoever asks, those of before,
    too, until all of now have said that they heard.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"ask/{rank}", mine)
        name = str(store.get(f"answer/{mine}").decode())  # it waits
        store.set(f"heard/{name}/{rank}", "")
        return name
    missing = set(range(1, size))
    while missing:
        for other in sorted(missing):
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", mine)
            if store.check([f"heard/{mine}/{other}"]):
                missing.remove(other)
        time.sleep(seconds)
    return mine


def _leave() -> None:
    if distributed.is_initialized():
        gc.collect()  # what wraps networks goes in circles, and holds the group
        distributed.destroy_process_group()
