"""Fixtures that every folder of tests shares."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.setdefault("VERYDEEP_TEST_SEED", str(random.SystemRandom().randrange(2**32))))

# No test is timed: a busy machine must not fail one.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


def pytest_report_header() -> str:
    return f"random inputs: VERYDEEP_TEST_SEED={SEED} draws the same again"


@pytest.fixture(autouse=True)
def fresh_chance() -> None:
    """Fresh inputs every run, the same again when the seed of the report's header is given."""
    import torch

    torch.manual_seed(SEED)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing remembered from other runs, nothing left in the user's home."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random inputs that follow from the seed of the report's header."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs beside the repository; the test is skipped, saying so, where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder}")
    return folder


@pytest.fixture(scope="session")
def peers() -> SimpleNamespace:
    """torchvision and timm themselves."""
    import torch

    # torchvision's operators are missing beside a CPU build of torch, and its import wants to describe two of them.
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library = torch.library.Library("torchvision", "FRAGMENT")
            _LIBRARIES.append(library)  # it undoes its definitions when it goes
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    timm = pytest.importorskip("timm", reason="timm is not installed (make test installs it)")
    import torchvision

    return SimpleNamespace(timm=timm, torchvision=torchvision)


_LIBRARIES: list[object] = []
