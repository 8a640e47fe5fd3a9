"""A narrow D with random weights, pairs of pictures, and files of fitted weights."""

from types import SimpleNamespace

import pytest
import torch

import verydeep as vd
from verydeep.checkpoints.inputs import TORCHVISION

WIDTHS = (8, 16, 32, 64, 64)


@pytest.fixture
def net():
    return vd.create("D", 0, width=1 / 8, trunk="pool5", preprocessing=TORCHVISION, initialization="he").eval()


@pytest.fixture
def pair():
    """Two batches of pictures, odd in both sides, a little different."""
    first = torch.rand(3, 3, 49, 38)
    return first, (first + 0.2 * torch.randn_like(first)).clamp(0, 1)


@pytest.fixture
def fitted(tmp_path):
    """Files of LPIPS's and DISTS's own weights for a D of that width, random, and their arrays."""
    lin = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(WIDTHS)}
    shares = {name: torch.rand(1, 3 + sum(WIDTHS), 1, 1) for name in ("alpha", "beta")}
    torch.save(lin, tmp_path / "vgg.pth")
    torch.save(shares, tmp_path / "weights.pt")
    return SimpleNamespace(lpips=tmp_path / "vgg.pth", dists=tmp_path / "weights.pt", lin=lin, shares=shares)
