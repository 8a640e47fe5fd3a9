"""Whole trainings for pixels: they learn, go on to the same bits, and begin from other runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.main import app
from verydeep.segmentation.task import Segmentation
from verydeep.training import run as module
from verydeep.training.recipe import load_recipe
from verydeep.training.train import train

TINY = (
    "network.width=0.0625",
    "network.image_size=32",
    "network.fc_width=16",
    "network.dropout=0.1",
    "network.batch_norm=true",
    "images.divide_by_std=true",
    "segmentation.crop=[40, 48]",
    "segmentation.factors=[1.0, 1.2]",
    "segmentation.skip_scales=[1.0, 1.0]",
    "optimizer.batch_size=3",
    "optimizer.learning_rate=0.05",
    "schedule.epochs=2",
)


def recipe(*overrides: str):
    return load_recipe("small-segment", [*TINY, *overrides])


def test_it_learns_in_stages_and_is_tested(camvid: Path, tmp_path: Path, capsys) -> None:
    learning = recipe("schedule.epochs=8", "schedule.least_steps=30")
    coarse = train("A", camvid, learning, tmp_path / "32s", task=Segmentation("32s"), quiet=True)
    fine = train(
        "A",
        camvid,
        recipe("schedule.epochs=6"),
        tmp_path / "8s",
        task=Segmentation("8s"),
        init_from=tmp_path / "32s",
        quiet=True,
    )
    assert fine.metrics["pixel_accuracy"] > 0.6
    net = vd.load(fine.weights)
    assert net.provenance.task == "segment"
    assert net.provenance.more["factors"] == [1.0, 1.2]
    assert "--task segment --head 8s" in (tmp_path / "8s" / "card.md").read_text()
    words = ["evaluate", str(fine.weights), "--task", "segment", "--data", str(camvid), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second time from the file
        app([*words, "--json"], standalone_mode=False)
        said = json.loads(capsys.readouterr().out)
        assert said["pictures"] == 3
        assert said["mean_iou"]["low"] <= said["mean_iou"]["value"] <= said["mean_iou"]["high"]
    app([*words, "--split", "val", "--out", str(tmp_path / "val"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["mean_iou"]["value"] == pytest.approx(fine.metrics["mean_iou"], abs=1e-6)
    with pytest.raises(UserError, match="another test"):
        app([*words, "--limit", "2"], standalone_mode=False)
    assert coarse.names["mean_iou"] == "mean IoU"
    picture = camvid / "test" / "0.png"
    found = vd.segment(fine.weights, picture)
    app(
        ["segment", str(picture), "--weights", str(fine.weights), "--out", str(tmp_path / "m"), "--json"],
        standalone_mode=False,
    )
    (row,) = json.loads(capsys.readouterr().out)
    assert {area["class"]: area["pixels"] for area in row["areas"]} == found.areas
    assert (np.asarray(Image.open(tmp_path / "m" / "0.png")) == found.labels).all()
    assert (
        sum(f["properties"]["pixels"] for f in json.loads((tmp_path / "m" / "0.geojson").read_text())["features"])
        == found.labels.size
    )


@pytest.mark.parametrize("freeze", [{}, {"conv1": 0, "conv2": 0, "conv3": 0, "conv4": 0}])
def test_a_stopped_run_goes_on_to_the_same_bits(camvid: Path, tmp_path: Path, monkeypatch, freeze) -> None:
    rates = [f"optimizer.layer_learning_rates.{name}={rate}" for name, rate in freeze.items()]
    task, chosen = Segmentation("8s"), recipe(*rates)
    expected = vd.load(train("A", camvid, chosen, tmp_path / "whole", task=task, quiet=True).weights).state_dict()
    step = module.Run._step

    def stopping(self, batch, number, count):
        step(self, batch, number, count)
        if self.state.progress.steps == 3:
            self._save()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.Run, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train("A", camvid, chosen, tmp_path / "run", task=task, quiet=True)
    found = vd.load(train("A", camvid, chosen, tmp_path / "run", task=task, quiet=True).weights).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_losses_as_published_and_by_mean(rng) -> None:
    from types import SimpleNamespace

    scores, part = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.arange(2)
    labels = torch.from_numpy(rng.choice([0.0, 1.0, 2.0, 255.0], (2, 20)).astype(np.float32))
    labels[0, 0] = 1
    batch = SimpleNamespace(targets=labels)
    total, count = 0.0, 0
    for n in range(2):
        for place, label in enumerate(labels[n].tolist()):
            if label != 255:
                row = scores[n, :, place // 5, place % 5]
                total += float(row.exp().sum().log() - row[int(label)])
                count += 1
    task = Segmentation()
    assert float(task.loss(scores, batch, part, recipe("segmentation.loss=sum"))) == pytest.approx(total / 2)
    assert float(task.loss(scores, batch, part, recipe())) == pytest.approx(total / count)
    batch.targets.fill_(255)
    assert float(task.loss(scores, batch, part, recipe())) == 0
    assert not task.wrong(scores, batch, part).any()


def test_what_is_refused(camvid: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mixup"):
        train("A", camvid, recipe("regularization.mixup=0.2"), tmp_path / "a", task=Segmentation(), quiet=True)
    with pytest.raises(UserError, match="no masks"):
        train("A", "scenes", recipe(), tmp_path / "b", task=Segmentation(), quiet=True)
    for words in (["--head", "8s"], ["--task", "segment", "--regression", "scr"]):
        with pytest.raises(UserError):
            app(
                ["train", "--net", "A", "--data", str(camvid), "--out", str(tmp_path / "c"), *words],
                standalone_mode=False,
            )
    assert not list(tmp_path.glob("[abc]"))
    assert load_recipe("fcn").segmentation.loss == "sum"
