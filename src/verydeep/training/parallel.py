"""Synchronous data parallelism over processes (paper: section 3.3): same weights as one process would get."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Processes:
    """A process among those that `torchrun` started; alone without it.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> "Processes":
        """Join the group that `torchrun`'s environment variables describe."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
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

    def share(self, value: float) -> float:
        """Return the first process's value in every process."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        if distributed.get_backend() == "nccl":
            tensor = tensor.cuda()
        distributed.broadcast(tensor, 0)
        return float(tensor)
