"""Study folders of posteriors that no network made: known metadata, known errors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol

CLASSES = tuple("abcdefgh")
IMAGES = 40


class Study:
    """A folder that posteriors files are put into."""

    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        self.path = path
        self.rng = rng
        self.labels = rng.integers(0, len(CLASSES), IMAGES)

    def add(
        self,
        configuration: str,
        scales: Sequence[int],
        protocol: str,
        wrong: int | None = None,
        *,
        run: str = "",
        **about: Any,
    ) -> Path:
        """Write posteriors of which the first `wrong` images are wrong; random ones where it is None."""
        run = run or f"{configuration}-s{'-'.join(map(str, dict.fromkeys(scales)))}"
        probabilities = self.rng.dirichlet(np.ones(len(CLASSES)), IMAGES)
        if wrong is not None:
            best = np.where(np.arange(IMAGES) < wrong, (self.labels + 1) % len(CLASSES), self.labels)
            probabilities = 0.1 * probabilities + 0.9 * np.eye(len(CLASSES))[best]
        metadata = {
            "protocol": str(Protocol.parse(protocol)),
            "weights": f"{run}/best.safetensors",
            "weights_hash": f"hash of {run}",
            "configuration": configuration,
            "train_scales": list(scales),
            "recipe": "made-up",
            "trained_layers": "all",
            "batch_norm": False,
            "data": "pictures",
            "split": "test",
            "limit": None,
            "options": {**Options().to_dict(), "pool_rounding": "up"},
            "preprocessing": {"pool_round_up": True},
            **about,
        }
        path = self.path / "posteriors" / run / f"{protocol}.parquet"
        ids = tuple(f"{i}.png" for i in range(IMAGES))
        Posteriors(ids, self.labels, probabilities.astype(np.float32), CLASSES, metadata).write(path)
        return path


@pytest.fixture
def study(tmp_path: Path, rng: np.random.Generator) -> Study:
    return Study(tmp_path / "study", rng)


@pytest.fixture
def full_study(study: Study) -> Callable[..., Study]:
    """Fill a study like the paper's whole one, at scales of its own."""

    def fill(
        small: int = 72, large: int = 108, jitter: tuple[int, int] = (72, 144), step: int = 8, **about: Any
    ) -> Study:
        middle, most = sum(jitter) // 2, jitter[1]
        for name in ("A", "A-LRN", "B", "C", "D", "E"):
            study.add(name, (small, small), f"dense@{small}", **about)
            study.add(name, (small, small), f"dense@{small - step},{small},{small + step}", **about)
        for name in ("C", "D", "E"):
            study.add(name, (large, large), f"dense@{large}", **about)
            study.add(name, (large, large), f"dense@{large - step},{large},{large + step}", **about)
            study.add(name, jitter, f"dense@{middle}", **about)
            study.add(name, jitter, f"dense@{jitter[0]},{middle},{most}", **about)
        for name in ("D", "E"):
            study.add(name, jitter, f"crops@{jitter[0]},{middle},{most}", **about)
        fc = {**about, "trained_layers": "fc", "run": "D-fc"}
        study.add("D", jitter, f"dense@{middle}", **fc)
        study.add("D", jitter, f"dense@{jitter[0]},{middle},{most}", **fc)
        return study

    return fill
