"""Maps as the native library has them in training: channels last, filled up with zeros to whole blocks of 16."""

from torch import Tensor
from torch.nn import functional as F

from verydeep.engines.stack import LANES


def filled(channels: int) -> int:
    """Return how many channels whole blocks of them have."""
    return -(-channels // LANES) * LANES


def filled_up(x: Tensor) -> Tensor:
    """Lay N x C x H x W out as N x H x W x C, with zeros behind the last channel."""
    x = x.permute(0, 2, 3, 1)
    if x.shape[3] % LANES:
        x = F.pad(x, (0, -x.shape[3] % LANES))
    return x.contiguous()
