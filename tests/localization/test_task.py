"""Learning boxes: the loss by hand, gradients where they belong, figures in original pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Box, Sample
from verydeep.datasets.loader import Batch
from verydeep.localization.boxes import Frame, as_array, encode
from verydeep.localization.task import Localization
from verydeep.training.recipe import load_recipe
from verydeep.training.task import CentralCrops

RECIPE = load_recipe("small-boxes")


def _batch(rng, count=6, classes=5):
    labels = torch.from_numpy(rng.integers(classes, size=count))
    targets = torch.from_numpy(rng.random((count, 4)).astype(np.float32))
    nothing = torch.zeros(count, 1)
    return Batch(nothing, labels, torch.arange(count), nothing, targets)


@pytest.mark.parametrize(("regression", "boxes"), [("scr", 1), ("pcr", 5)])
def test_the_loss_is_half_the_squared_distance_of_the_own_classes_box(regression, boxes, rng):
    batch, part = _batch(rng), torch.tensor([0, 2, 3, 5])
    scores = torch.from_numpy(rng.random((4, 4 * boxes)).astype(np.float32)).requires_grad_()
    loss = Localization(regression).loss(scores, batch, part, RECIPE)
    expected = 0.0
    for row, image in enumerate(part.tolist()):
        first = 4 * int(batch.labels[image]) if boxes > 1 else 0
        answer = scores[row, first : first + 4].detach().numpy()
        expected += ((answer - batch.targets[image].numpy()) ** 2).sum() / 2 / len(part)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    touched = (scores.grad != 0).reshape(4, boxes, 4).any(2)
    own = batch.labels[part] if boxes > 1 else torch.zeros(4, dtype=torch.int64)
    assert torch.equal(touched.nonzero()[:, 1], own)


def test_an_answer_is_wrong_below_half_an_overlap(rng):
    batch = _batch(rng, 3, 1)
    batch.targets[:] = torch.tensor([0.5, 0.5, 0.4, 0.4])
    answers = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.21], [0.5, 0.5, 0.4, 0.19]])
    assert Localization("scr").wrong(answers, batch, torch.arange(3)).tolist() == [False, False, True]


def test_figures_are_of_the_best_instance_in_original_pixels(rng):
    boxes = (Box(10, 20, 60, 90), Box(100, 30, 160, 95))
    samples = [Sample("a", 0, boxes), Sample("b", 1, boxes[:1])]
    crops = CentralCrops(samples, [(120, 200), (120, 200)], 72, 64)
    frame = Frame.central(120, 200, 72, 64)
    answers = np.zeros((2, 2, 4))
    answers[0, 0] = encode(frame.to_window(as_array(boxes))[1], 64)  # the second instance, exactly
    answers[1, 1] = encode(frame.to_window(np.array([10.0, 20, 60, 55])), 64)  # the upper half
    found = Localization("pcr").measure(torch.from_numpy(answers.reshape(2, 8)).float(), crops)
    np.testing.assert_allclose(found["mean_iou"], [1, 0.5], atol=1e-5)
    assert found["localization_error"].tolist()[0] == 0
    assert found["val_loss"][0] < 1e-10
    assert found["val_loss"][1] == pytest.approx((17.5**2 + 35**2) * (72 / 120 / 64) ** 2 / 2, rel=1e-4)


def test_recipes_for_classes_are_refused():
    for key in ("mixup", "label_smoothing"):
        with pytest.raises(UserError, match=f"regularization.{key} is for classes; set it to 0 for boxes"):
            Localization("scr").check(load_recipe("small-boxes", [f"regularization.{key}=0.1"]))
    Localization("scr").check(RECIPE)


def test_all_layers_but_the_last_come_from_the_classifier():
    net = vd.create("A", ("a", "b"), width=1 / 16, image_size=64, fc_width=8, regression="pcr")
    layers = Localization("pcr").layers_to_copy(net, net)
    assert "fc7" in layers
    assert "fc8" not in layers
    assert len(layers) == 8 + 2
    assert net.fc8.out_channels == 8
    assert vd.create("A", ("a", "b"), width=1 / 16, image_size=64, fc_width=8, regression="scr").fc8.out_channels == 4


def test_training_images_without_boxes_are_left_out(boxed):
    boxed.split = "train"
    boxed.samples[4] = replace(boxed.samples[4], boxes=())
    part, about = Localization("scr").examples(boxed)
    assert len(part) == 8
    assert "4.png" not in [sample.id for sample in part.samples]
    assert about["training_boxes"] == sum(len(sample.boxes) for sample in part.samples)
    assert len(about["best_constant_box"]) == 4
    assert "1 images without good boxes left out" in part.provenance
