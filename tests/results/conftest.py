"""Folders of posteriors, boxes and transfers that no network made: known metadata, known errors."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.options import Options
from verydeep.inference.protocol import Protocol
from verydeep.localization.detections import Detections

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


MERGING = {"threshold": 0.5, "match": "recommended", "held_out": 0.0}
TRUTH = np.array([20.0, 20, 60, 60])


@pytest.fixture
def add_boxes(tmp_path):
    return partial(write_boxes, tmp_path / "study")


def write_boxes(study, name, wrong, protocol="center@384", regression="pcr", layers="all", scales=(384, 384), **about):
    """Write the boxes of 40 images of 100 x 80 pixels, of which the first `wrong` are wrong given the class."""
    count = 40
    boxes = np.tile(TRUTH, (count, 6, 1))
    boxes[:wrong] += 35
    labels = np.arange(count) % 8
    classes = np.stack([(labels + k) % 8 for k in (0, 1, 2, 3, 4, 0)], axis=1)
    metadata = {
        "data": "ilsvrc-2012",
        "split": "val",
        "protocol": protocol,
        "regression": regression,
        "trained_layers": layers,
        "train_scales": list(scales),
        "configuration": "D",
        "batch_norm": False,
        "merging": MERGING,
        "best_constant_box": [0.25, 0.2, 0.75, 0.6],
        **about,
    }
    path = study / "boxes" / name / f"{protocol}.parquet"
    windows, scores = [rows[None].astype(np.float32) for rows in boxes], [np.ones((1, 6), np.float32)] * count
    detections = Detections(
        tuple(f"{i}.png" for i in range(count)),
        labels,
        np.tile([100, 80], (count, 1)),
        [TRUTH[None]] * count,
        classes,
        np.full(classes.shape, 0.1, np.float32),
        windows,
        scores,
        boxes,
        np.ones(classes.shape),
        tuple("abcdefgh"),
        metadata,
    )
    detections.write(path)
    return path


def write_transfer(folder, name, protocol, classes, systems, **others):
    identity = {"protocol": protocol, "data": "pets", "classes": list(map(str, range(classes)))}
    identity |= {"classifier": "svm", "normalize": "l2", "flip": True, **others}
    result = {"identity": identity, "measure": "mean class recall", "compared": None, "systems": systems}
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps(result))


def system(name, merit, std=None):
    return {"name": name, "merit": merit, "std": std}


@pytest.fixture
def transfers(tmp_path):
    write_transfer(tmp_path, "a", "caltech101", 102, [system("B, stacked", 0.5123, 0.0046)])
    write_transfer(tmp_path, "b", "caltech101", 102, [system("B, stacked", 0.49, 0.01)], classifier="logistic")
    write_transfer(tmp_path, "c", "folder", 7, [system("B, stacked", 0.9)])
    write_transfer(
        tmp_path, "d", "voc2012-action", 10, [system("D & E", 0.7), system("D & E, image + person box", 0.8)]
    )
    return tmp_path
