"""Which device a network runs on."""

from typing import TYPE_CHECKING

from verydeep.basics.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


def pick_device(name: str = "auto") -> "torch.device":
    """Return the device called `name`; `auto` is CUDA, else Apple's MPS, else the CPU.

    UserError: no such device here.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    kind = name.split(":")[0]
    if not available.get(kind):
        usable = ", ".join(["auto", *(kind for kind, there in available.items() if there)])
        raise UserError(f"device {name!r} is not available here; usable: {usable}")
    return torch.device(name)


def place(net: "nn.Module", device: "torch.device") -> None:
    """Move a network to a device, its weights in the memory layout that is fastest there.

    On CUDA that is channels last, as its images are. On a CPU oneDNN lays weights out anew at every step either way,
    and torch's fused SGD copies the gradients of weights that are not in the default layout, fc6's 400 MB among them.
    """
    import torch

    net.to(device)
    if device.type == "cuda":
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
