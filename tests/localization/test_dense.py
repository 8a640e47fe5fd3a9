"""A classifier and a localizer side by side: the same bits with a shared trunk, the right cells, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime
from verydeep.localization.boxes import Frame
from verydeep.localization.dense import LocalizationModel, boxes_of_windows, check_pair, same_trunk

CPU = torch.device("cpu")
NAMES = ("the classifier", "the localizer")


def _pair(nets):
    return LocalizationModel(*nets, Options(), Runtime("cpu", "torch"))


@pytest.mark.parametrize("regression", ["scr", "pcr"])
@pytest.mark.parametrize("shape", [(64, 64), (96, 128), (83, 119)])
def test_a_shared_trunk_gives_the_same_bits(make_pair, rng, regression, shape):
    nets = make_pair(regression)
    shared, separate = _pair(nets), _pair(nets)
    assert shared.shares_trunk
    separate.shares_trunk = False
    pictures = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(3)]
    for one, two in zip(shared.maps(pictures), separate.maps(pictures), strict=True):
        assert one.tobytes() == two.tobytes()


def test_a_shared_trunk_runs_once(make_pair, rng, monkeypatch):
    runs = []
    original = vd.VGG.activations
    monkeypatch.setattr(
        vd.VGG,
        "activations",
        lambda net, x, layer, after=None: (layer == "pool5" and runs.append(net)) or original(net, x, layer, after),
    )
    for same, expected in ((True, 1), (False, 2)):
        pair = _pair(make_pair(same_trunk=same))
        runs.clear()
        pair.maps([rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)])
        assert len(runs) == expected


def test_maps_are_those_of_the_networks(make_pair, rng):
    classifier, localizer = make_pair("pcr", same_trunk=False)
    pictures = [rng.integers(0, 256, (96, 130, 3), dtype=np.uint8) for _ in range(2)]
    scores, answers = _pair((classifier, localizer)).maps(pictures)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack(pictures))
        expected = classifier.score_map(classifier.preprocessing(pixels))
        boxes = localizer.score_map(localizer.preprocessing(pixels))
    np.testing.assert_array_equal(scores, expected.permute(0, 2, 3, 1))
    assert answers.shape == (2, *scores.shape[1:3], 8, 4)
    # Four numbers of a class stand side by side among the 4 x K outputs.
    np.testing.assert_array_equal(answers[1, 0, 1, 5], boxes[1, 20:24, 0, 1])


def test_of_one_window_the_map_is_the_crops(make_pair, rng):
    """Where nothing lies around the window, dense application and the plain network are the same."""
    classifier, localizer = make_pair("pcr", same_trunk=False)
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    _, answers = _pair((classifier, localizer)).maps([picture])
    with torch.inference_mode():
        plain = localizer(localizer.preprocessing(torch.from_numpy(picture[None])))
    np.testing.assert_allclose(answers.ravel(), plain.numpy().ravel(), rtol=1e-5, atol=1e-6)


def test_boxes_of_one_for_all_classes_are_repeated(rng):
    answers, frame = rng.random((2, 3, 1, 4)).astype(np.float32), Frame(200, 300, 96)
    found = boxes_of_windows(answers, frame, 64, [5, 2, 7])
    assert found.shape == (6, 3, 4)
    for k in (1, 2):
        np.testing.assert_array_equal(found[:, k], found[:, 0])
    own = boxes_of_windows(np.repeat(answers, 8, axis=2), frame, 64, [5, 2, 7])
    np.testing.assert_array_equal(own, found)


def test_a_trunk_is_the_same_bit_by_bit_only(make_pair):
    classifier, localizer = make_pair()
    assert same_trunk(classifier, localizer)
    with torch.no_grad():
        localizer.fc6.weight += 1
        assert same_trunk(classifier, localizer)
        localizer.conv5_2.bias[3] += 1e-6
    assert not same_trunk(classifier, localizer)
    assert not same_trunk(classifier, vd.create("B", classifier.classes, width=1 / 16, image_size=64, fc_width=24))


def test_networks_that_do_not_fit_together_are_refused(make_pair):
    classifier, localizer = make_pair()
    check_pair(classifier, localizer, NAMES)
    with pytest.raises(UserError, match="the classifier"):
        check_pair(localizer, localizer, NAMES)
    with pytest.raises(UserError, match="the localizer"):
        check_pair(classifier, classifier, NAMES)
    how = {"width": 1 / 16, "fc_width": 24, "regression": "pcr"}
    others = {
        "differ in classes: 'c' in the one stands where 'cat' does": vd.create(
            "A", ("a", "b", "cat", *"defgh"), image_size=64, **how
        ),
        "differ in classes: 8 in the one, 3 in the other": vd.create("A", ("a", "b", "c"), image_size=64, **how),
        "differ in their windows: 64 and 96 pixels": vd.create("A", classifier.classes, image_size=96, **how),
    }
    for said, net in others.items():
        with pytest.raises(UserError, match=said) as raised:
            check_pair(classifier, net, NAMES)
        assert str(raised.value).startswith("the classifier and the localizer")
        assert "\n" not in str(raised.value)
    localizer.preprocessing = replace(localizer.preprocessing, mean=(1.0, 2.0, 3.5))
    with pytest.raises(UserError, match=r"differ in preprocessing: mean is .* in the one, 1, 2, 3\.5 in the other"):
        check_pair(classifier, localizer, NAMES)


def test_numbers_that_are_not_finite_are_refused(make_pair, rng):
    classifier, localizer = make_pair()
    with torch.no_grad():
        localizer.fc8.weight[0] = torch.inf
    with pytest.raises(UserError, match="not finite"):
        _pair((classifier, localizer)).maps([rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)])
