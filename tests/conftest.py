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
    from benchmarks.perceptual_peers import import_torchvision

    torchvision = import_torchvision()
    timm = pytest.importorskip("timm", reason="timm is not installed (make test installs it)")
    return SimpleNamespace(timm=timm, torchvision=torchvision)
