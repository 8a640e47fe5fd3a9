"""Training on few photographs: it ends, whatever their number, and learns what little there is to learn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from tests.conftest import SEED
from verydeep.localization.task import Localization
from verydeep.training.recipe import load_recipe
from verydeep.training.run_folder import find_weights

TINY = ("network.width=0.0625", "network.fc_width=32", "network.image_size=32", "images.scales=[36, 40]")

BOX = """<annotation><size><width>{0}</width><height>{1}</height></size><object><name>{2}</name><bndbox><xmin>5</xmin>
<ymin>8</ymin><xmax>36</xmax><ymax>38</ymax></bndbox></object></annotation>"""


def photographs(folder: Path, a_class: int) -> Path:
    """Pictures of two sizes whose classes differ in the direction of their stripes."""
    rng = np.random.default_rng(SEED)
    for name in ("across", "down"):
        (folder / name).mkdir(parents=True)
        for i in range(a_class):
            height, width = rng.integers(40, 60, 2)
            stripes = np.arange(height if name == "across" else width) // 4 % 2 * 150
            pixels = stripes[:, None] if name == "across" else stripes[None, :]
            image = rng.integers(0, 100, (height, width, 3)) + np.broadcast_to(pixels, (height, width))[..., None]
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize("a_class", [3, 10, 30, 100])
@pytest.mark.parametrize("recipe", ["small-modern", "small-s72"])
def test_training_from_nothing_ends_well(a_class: int, recipe: str, tmp_path: Path, capsys) -> None:
    data = photographs(tmp_path / "photos", a_class)
    words = [*TINY, "schedule.epochs=4", "schedule.least_steps=60", "schedule.warmup_epochs=0.5"]
    effective = load_recipe(recipe, words)
    result = vd.train("A", data, effective, tmp_path / "run")
    assert result.epochs == 4
    assert "too few to learn much from nothing" in capsys.readouterr().err
    if a_class >= 30:
        assert result.metrics["top1_error"] <= 0.3  # guessing: 0.5


@pytest.mark.parametrize("a_class", [3, 10, 30, 100])
def test_fine_tuning_and_boxes_end_well(a_class: int, tmp_path: Path) -> None:
    data = photographs(tmp_path / "photos", a_class)
    for picture in data.glob("*/*.png"):
        width, height = Image.open(picture).size
        picture.with_suffix(".xml").write_text(BOX.format(width, height, picture.parent.name))
    like = {"width": 1 / 16, "image_size": 32, "fc_width": 32, "batch_norm": True, "seed": 1}  # as small-modern's are
    unit = vd.Preprocessing(std=(60.0, 60.0, 60.0), pool_round_up=False)
    net = vd.create("A", 0, **like, initialization="he", preprocessing=unit, trunk="pool5")
    vd.save(net, tmp_path / "trunk.safetensors")
    few = ["schedule.epochs=2", "schedule.least_steps=8", "schedule.warmup_epochs=0.5"]
    words = [*few, "images.scales=[36, 40]"]
    tuned = vd.train(
        None,
        data,
        "finetune",
        tmp_path / "tuned",
        init_from=tmp_path / "trunk.safetensors",
        overrides=words,
        quiet=True,
    )
    boxes = vd.train(
        None,
        data,
        "small-boxes",
        tmp_path / "boxes",
        task=Localization("pcr"),
        init_from=tmp_path / "tuned",
        overrides=words,
        quiet=True,
    )
    assert (tuned.epochs, boxes.epochs) == (2, 2)
    assert 0 <= boxes.metrics["mean_iou"] <= 1


def test_two_images_a_class_are_enough_to_train_on(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    photographs(root / "train", 2)
    photographs(root / "val", 1)
    result = vd.train(
        "A", root, load_recipe("small-modern", [*TINY, "schedule.epochs=2"]), tmp_path / "run", quiet=True
    )
    assert result.epochs == 2


def test_an_average_has_statistics_of_its_own(tmp_path: Path) -> None:
    """The network saved is the one validated; its batch norm fits its averaged weights."""
    data = photographs(tmp_path / "photos", 10)
    words = [*TINY, "schedule.epochs=3", "schedule.least_steps=30", "regularization.ema=0.998"]
    result = vd.train("A", data, load_recipe("small-modern", words), tmp_path / "run", quiet=True)
    net, training = vd.load(result.weights), vd.open_dataset(data, "train")
    import torch

    crops = torch.from_numpy(np.stack([training.image(i)[4:36, 4:36] for i in range(len(training))]))
    with torch.no_grad():
        given = net.activations(net.preprocessing(crops), "conv1_1")
    assert float(given.mean(dim=(0, 2, 3)).sub(net.bn1_1.bias).abs().max()) < 0.5 * float(net.bn1_1.weight.abs().max())


def test_a_run_that_is_not_finished_says_so_wherever_it_is_used(tmp_path: Path, capsys) -> None:
    data = photographs(tmp_path / "photos", 10)
    words = [*TINY, "schedule.epochs=2", "schedule.least_steps=4"]
    vd.train("A", data, load_recipe("small-modern", words), tmp_path / "run", quiet=True)
    capsys.readouterr()
    find_weights(tmp_path / "run")
    assert capsys.readouterr().err == ""
    (tmp_path / "run" / "card.md").unlink()
    find_weights(tmp_path / "run" / "best.safetensors")
    assert "training is not finished (epoch 2 of 2): figures are those of a half-made" in capsys.readouterr().err
    (tmp_path / "run" / "failed.txt").write_text("loss is not a number at step 7\n")
    find_weights(tmp_path / "run")
    assert "training failed: loss is not a number at step 7" in capsys.readouterr().err
