"""The networks of other papers once more, as everyone writes them: torch's own layers, flattened before the end."""

from itertools import pairwise

import torch
from torch import Tensor, nn

SIZES = {"alexnet": 227, "zfnet": 224, "overfeat-fast": 231, "overfeat-accurate": 221, "nin": 224}


def classic(name: str, classes: int, width: float = 1.0, fc_width: int = 4096) -> nn.Sequential:
    """Return the network for images of its paper's size; `width` and `fc_width` as in this project."""

    def conv(before: int, after: int, *window: int, groups: int = 1) -> list[nn.Module]:
        inputs = before if before == 3 else round(before * width)
        return [nn.Conv2d(inputs, round(after * width), *window, groups=groups), nn.ReLU()]

    def lrn() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # torch divides alpha by 5

    def head(maps: int, side: int, first: int, second: int) -> list[nn.Module]:
        first, second = (round(size * fc_width / 4096) for size in (first, second))
        return [
            *(nn.Flatten(), nn.Linear(round(maps * width) * side**2, first), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(first, second), nn.ReLU(), nn.Dropout(), nn.Linear(second, classes)),
        ]

    def same(*channels: int) -> list[nn.Module]:
        pairs = pairwise(channels)
        return [layer for before, after in pairs for layer in conv(before, after, 3, 1, 1)]

    def up() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers: dict[str, list[nn.Module]] = {
        "alexnet": [
            *(*conv(3, 96, 11, 4), lrn(), up(), *conv(96, 256, 5, 1, 2, groups=2), lrn(), up()),
            *(*conv(256, 384, 3, 1, 1), *conv(384, 384, 3, 1, 1, groups=2), *conv(384, 256, 3, 1, 1, groups=2), up()),
            *head(256, 6, 4096, 4096),
        ],
        "zfnet": [
            *(*conv(3, 96, 7, 2, 1), up(), lrn(), *conv(96, 256, 5, 2), up(), lrn()),
            *(*same(256, 384, 384, 256), up(), *head(256, 6, 4096, 4096)),
        ],
        "overfeat-fast": [
            *(*conv(3, 96, 11, 4), nn.MaxPool2d(2), *conv(96, 256, 5), nn.MaxPool2d(2)),
            *(*same(256, 512, 1024, 1024), nn.MaxPool2d(2), *head(1024, 6, 3072, 4096)),
        ],
        "overfeat-accurate": [
            *(*conv(3, 96, 7, 2), nn.MaxPool2d(3), *conv(96, 256, 7), nn.MaxPool2d(2)),
            *(*same(256, 512, 512, 1024, 1024), nn.MaxPool2d(3), *head(1024, 5, 4096, 4096)),
        ],
        "nin": [
            *(*conv(3, 96, 11, 4), *conv(96, 96, 1), *conv(96, 96, 1), up()),
            *(*conv(96, 256, 5, 1, 2), *conv(256, 256, 1), *conv(256, 256, 1), up()),
            *(*conv(256, 384, 3, 1, 1), *conv(384, 384, 1), *conv(384, 384, 1), up(), nn.Dropout()),
            *(*conv(384, 1024, 3, 1, 1), *conv(1024, 1024, 1), nn.Conv2d(round(1024 * width), classes, 1), nn.ReLU()),
            *(nn.AvgPool2d(6), nn.Flatten()),
        ],
    }
    return nn.Sequential(*layers[name])


def with_weights_of(net: nn.Module, model: nn.Sequential) -> nn.Sequential:
    """Return the model, in float64, with a network's weights, taken in order: the same numbers in other shapes."""
    theirs: list[Tensor] = [value for value in net.state_dict().values() if value.is_floating_point()]
    mine = list(model.parameters())
    assert len(theirs) == len(mine)
    with torch.no_grad():
        for target, source in zip(mine, theirs, strict=True):
            target.copy_(source.reshape(target.shape))
    return model.double().eval()
