"""Networks made of plain torch layers, which know nothing of verydeep, and photographs for them."""

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("KERAS_BACKEND", "torch")

import cv2
import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import nn

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
KERNELS = {
    "A": [[3], [3], [3, 3], [3, 3], [3, 3]],
    "B": [[3, 3]] * 5,
    "C": [[3, 3], [3, 3], [3, 3, 1], [3, 3, 1], [3, 3, 1]],
    "D": [[3, 3], [3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "E": [[3, 3], [3, 3], [3] * 4, [3] * 4, [3] * 4],
}


@dataclass
class Plain:
    """A VGG of Linear layers, as other projects write it; at 1/16 of the width it takes images of 64 pixels."""

    net: nn.Module
    letter: str

    @property
    def state(self):
        return self.net.state_dict()

    def layers(self):
        """Yield (the paper's name, weight, bias) of the layers with weights, as numpy arrays."""
        names = [f"conv{b}_{i}" for b, ks in enumerate(KERNELS[self.letter], 1) for i in range(1, len(ks) + 1)]
        modules = [m for m in self.net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        for name, module in zip([*names, "fc6", "fc7", "fc8"], modules, strict=True):
            yield name, module.weight.detach().numpy(), module.bias.detach().numpy()

    def __call__(self, x):
        with torch.no_grad():
            return self.net(torch.as_tensor(np.ascontiguousarray(x), dtype=torch.float32)).numpy()


def make_plain(letter, *, width=1 / 16, classes=10, fc=24, window=2, batch_norm=False, ceil=False):
    """Random weights under which signals keep their size, random biases, random statistics of batch norm."""
    features: list[nn.Module] = []
    before = 3
    for kernels, full in zip(KERNELS[letter], (64, 128, 256, 512, 512), strict=True):
        for kernel in kernels:
            features.append(nn.Conv2d(before, round(full * width), kernel, padding=kernel // 2))
            before = round(full * width)
            features += [nn.BatchNorm2d(before), nn.ReLU()] if batch_norm else [nn.ReLU()]
        features.append(nn.MaxPool2d(2, 2, ceil_mode=ceil))
    head = [nn.Linear(before * window**2, fc), nn.ReLU(), nn.Dropout(), nn.Linear(fc, fc), nn.ReLU(), nn.Dropout()]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(*features)
            self.classifier = nn.Sequential(*head, nn.Linear(fc, classes))

        def forward(self, x):
            return self.classifier(torch.flatten(self.features(x), 1))

    net = Net().eval()
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.2)
    return Plain(net, letter)


@pytest.fixture(scope="session")
def photographs():
    """Return a function of a side: 20 photographs, uint8, 20 x side x side x 3, RGB."""
    pictures = _photographs()

    def square(picture, side):
        short = min(picture.shape[:2])
        top, left = (picture.shape[0] - short) // 2, (picture.shape[1] - short) // 2
        return cv2.resize(picture[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_AREA)

    return lambda side: np.stack([square(picture, side) for picture in pictures])


def _photographs():
    archive = SHARED / "imagenet-samples.tar"
    if not archive.is_file():  # twenty parts of the two photographs that come with scikit-learn
        return [part[:, 32 * i : 32 * i + 300] for part in load_sample_images().images for i in range(10)]
    pictures = []
    with tarfile.open(archive) as tar:
        for member in [member for member in tar if member.name.endswith(".JPEG")][:200:10]:
            data = np.frombuffer(tar.extractfile(member).read(), dtype=np.uint8)
            pictures.append(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
    return pictures


def relative_error(found, expected):
    """Largest difference, relative to the largest value."""
    return np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max()


CAFFE_MEAN = np.array([103.939, 116.779, 123.68])


def prepare(pictures, kind):
    """Do what a project's users do to pictures, by hand: uint8 N x H x W x 3 RGB to float N x 3 x H x W."""
    x = pictures.astype(np.float64)
    if kind == "torchvision":
        x = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    elif kind == "caffe":
        x = x[..., ::-1] - CAFFE_MEAN
    else:
        x = x - CAFFE_MEAN[::-1]
    return x.transpose(0, 3, 1, 2)


def logits(net, pictures):
    """What our network says to pictures, through its own preprocessing."""
    with torch.no_grad():
        return net(net.preprocessing(torch.from_numpy(pictures))).numpy()


@pytest.fixture(scope="session")
def tools():
    """The functions of this file, for tests."""
    return SimpleNamespace(make_plain=make_plain, prepare=prepare, logits=logits, relative_error=relative_error)


@pytest.fixture(scope="session")
def same_network():
    """Return a function that compares two networks of ours in all they are, bit for bit."""

    def compare(first, second):
        assert first.config == second.config
        one, two = first.state_dict(), second.state_dict()
        assert list(one) == list(two)
        for name in one:
            assert torch.equal(one[name], two[name]), name

    return compare
