"""The networks of other papers once more, as everyone writes them: torch's own layers, flattened before the end."""

from itertools import pairwise

import torch
from torch import Tensor, nn

SIZES = {"alexnet": 227, "zfnet": 224, "overfeat-fast": 231, "overfeat-accurate": 221, "nin": 224, "googlenet": 224}


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
    if name == "googlenet":
        return _googlenet(classes, width)
    return nn.Sequential(*layers[name])


class _Inception(nn.Module):
    """Four branches written out."""

    def __init__(self, before: int, a: int, b: int, c: int, d: int, e: int, f: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, a, 1)
        self.three = nn.Sequential(nn.Conv2d(before, b, 1), nn.ReLU(), nn.Conv2d(b, c, 3, padding=1))
        self.five = nn.Sequential(nn.Conv2d(before, d, 1), nn.ReLU(), nn.Conv2d(d, e, 5, padding=2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(before, f, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in (self.one, self.three, self.five, self.pooled)], 1).relu()


def _googlenet(classes: int, width: float) -> nn.Sequential:
    table = (
        "64 96 128 16 32 32 / 128 128 192 32 96 64 ; "
        "192 96 208 16 48 64 / 160 112 224 24 64 64 / 128 128 256 24 64 64 / "
        "112 144 288 32 64 64 / 256 160 320 32 128 128 ; 256 160 320 32 128 128 / 384 192 384 48 128 128"
    )

    def w(channels: int) -> int:
        return max(1, round(channels * width))

    def lrn() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    layers: list[nn.Module] = [nn.Conv2d(3, w(64), 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), lrn()]
    layers += [nn.Conv2d(w(64), w(64), 1), nn.ReLU(), nn.Conv2d(w(64), w(192), 3, padding=1), nn.ReLU(), lrn()]
    before = w(192)
    for stage in table.split(";"):
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for module in stage.split("/"):
            a, b, c, d, e, f = (w(int(channels)) for channels in module.split())
            layers.append(_Inception(before, a, b, c, d, e, f))
            before = a + c + e + f
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(before, classes))


def with_weights_of(net: nn.Module, model: nn.Sequential) -> nn.Sequential:
    """Return the model, in float64, with a network's weights, taken in order: the same numbers in other shapes."""
    theirs: list[Tensor] = [value for value in net.state_dict().values() if value.is_floating_point()]
    mine = list(model.parameters())
    assert len(theirs) == len(mine)
    with torch.no_grad():
        for target, source in zip(mine, theirs, strict=True):
            target.copy_(source.reshape(target.shape))
    return model.double().eval()
