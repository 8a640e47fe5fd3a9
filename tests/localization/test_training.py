"""Whole trainings of localizers: layers, resumption, refusals, and that they learn."""

import json

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset, scenes
from verydeep.localization.dense import same_trunk
from verydeep.localization.task import Localization
from verydeep.training import run as module
from verydeep.training.recipe import load_recipe
from verydeep.training.train import train

TINY = (
    "network.width=0.03125",
    "network.fc_width=8",
    "network.batch_norm=true",
    "optimizer.batch_size=10",
    "optimizer.learning_rate=0.01",
    "schedule.epochs=1",
    "precision=float32",
)
PCR, SCR = Localization("pcr"), Localization("scr")


def recipe(*overrides):
    return load_recipe("scenes-wide", [*TINY, "initialization.copy_layers=auto", *overrides])


@pytest.fixture
def few(monkeypatch):
    for split, count in {"train": 30, "val": 10, "test": 10}.items():
        monkeypatch.setitem(scenes.COUNTS, split, count)


@pytest.fixture
def classifier(few, tmp_path):
    return train("A", "scenes", recipe(), tmp_path / "classifier", quiet=True).weights


def _layers(weights):
    return vd.load(weights).state_dict()


@pytest.mark.parametrize("task", [SCR, PCR])
@pytest.mark.parametrize("tune", ["fc", "all"])
def test_what_is_tuned_changes_and_nothing_else(classifier, tmp_path, task, tune):
    chosen = recipe(f"optimizer.trained_layers={tune}")
    result = train("A", "scenes", chosen, tmp_path / "boxes", task=task, init_from=classifier, quiet=True)
    before, after = vd.load(classifier), vd.load(result.weights)
    assert after.regression == task.regression
    assert after.fc8.out_channels == (4 if task is SCR else 40)
    assert same_trunk(before, after) == (tune == "fc")
    for name in ("fc6.weight", "fc7.weight"):
        assert not torch.equal(before.state_dict()[name], after.state_dict()[name])
    about = after.provenance
    assert about.trained_layers == tune
    assert len(about.best_constant_box) == 4
    assert about.init_from_sha256
    assert set(result.metrics) == {"localization_error", "mean_iou"}
    card = (tmp_path / "boxes" / "card.md").read_text()
    assert "--task localize" in card
    assert f"--regression {task.regression}" in card
    assert "mean IoU" in card


def test_stopped_and_continued_gives_the_same_bits(classifier, tmp_path, monkeypatch):
    whole = train("A", "scenes", recipe(), tmp_path / "whole", task=PCR, init_from=classifier, quiet=True, workers=1)
    original, seen = module.Stepper.__call__, []

    def call(stepper, *words):
        seen.append(words)
        if len(seen) == 2:
            raise MemoryError
        return original(stepper, *words)

    how = {"task": PCR, "init_from": classifier, "quiet": True, "checkpoint_minutes": 0}
    with monkeypatch.context() as patch:
        patch.setattr(module.Stepper, "__call__", call)
        with pytest.raises(MemoryError):
            train("A", "scenes", recipe(), tmp_path / "parts", workers=3, **how)
    parts = train("A", "scenes", recipe(), tmp_path / "parts", **how)
    one, two = _layers(whole.weights), _layers(parts.weights)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_task_or_regression_is_another_run(classifier, tmp_path):
    train("A", "scenes", recipe(), tmp_path / "boxes", task=PCR, init_from=classifier, quiet=True)
    for task, said in ((SCR, r"run.regression is pcr there, scr here"), (None, "holds another run")):
        with pytest.raises(UserError, match=said):
            train("A", "scenes", recipe(), tmp_path / "boxes", task=task, init_from=classifier, quiet=True)
    with pytest.raises(UserError, match="boxes"):  # a localizer is nothing to start from
        train("A", "scenes", recipe(), tmp_path / "c", task=PCR, init_from=tmp_path / "boxes", quiet=True)
    assert not (tmp_path / "c").exists()


def test_it_learns_where_a_rectangle_is(tmp_path, rng):
    """Bright rectangles anywhere on noise, two classes: far better than the best constant box within a minute."""
    from PIL import Image

    folder = tmp_path / "set"
    for name, color in (("green", 1), ("red", 0)):
        for part, count in (("train", 150), ("val", 30)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
                (x0, y0), (w, h) = rng.integers(0, 34, 2), rng.integers(16, 30, 2)
                picture[y0 : y0 + h, x0 : x0 + w, color] = 255
                Image.fromarray(picture).save(folder / part / name / f"{i}.png")
                box = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x0 + w}</xmax><ymax>{y0 + h}</ymax>"
                xml = f"<annotation><object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
                (folder / part / name / f"{i}.xml").write_text(xml)
    chosen = recipe(
        "images.scales=[64, 64]", "schedule.epochs=20", "network.fc_width=64", "optimizer.learning_rate=0.02"
    )
    result = train("A", folder, chosen, tmp_path / "boxes", task=PCR, quiet=True)
    constant = np.array(vd.load(result.weights).provenance.best_constant_box) * 64
    validation = open_dataset(folder, "val", boxes=True)
    from verydeep.localization.boxes import as_array, iou

    overlaps = iou(np.concatenate([as_array(s.boxes) for s in validation.samples]), constant)
    print("mean IoU", result.metrics["mean_iou"], "constant box", overlaps.mean())
    assert result.metrics["mean_iou"] > overlaps.mean() + 0.1
    losses = [line["val_loss"] for line in _epochs(tmp_path / "boxes")]
    assert losses[-1] < losses[0] / 2


def _epochs(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]
