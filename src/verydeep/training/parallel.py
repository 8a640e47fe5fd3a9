"""Synchronous data parallelism over processes (paper: section 3.3): same weights as one process would get."""

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from verydeep.basics.errors import SharedError, UserError

T = TypeVar("T")


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
            distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)  # gloo's threads, still running when Python ends, now and then abort the process
        return cls(distributed.get_rank(), size)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its mean over the processes, in place."""
        if self.size == 1:
            return
        same = [tensor for tensor in tensors if tensor.is_floating_point()]
        if not same:
            return
        # One message for all: many small ones would each cost a round trip.
        flat = torch.cat([tensor.flatten().float() for tensor in same])
        distributed.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(same, torch.split(flat, [tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(part.view_as(tensor))

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


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
