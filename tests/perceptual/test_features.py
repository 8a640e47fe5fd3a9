"""Several layers in one pass, compared with one layer after another in float64; pictures whose numbers are said."""

import copy
import pickle

import pytest
import torch
from torch import nn

import verydeep as vd
from tests.perceptual.reference import maps
from verydeep.basics.errors import UserError
from verydeep.engines import library

LAYERS = ["conv3_3.relu", "conv1_1", "conv1_1.relu", "pool2", "conv3_3", "conv2_1", "pool1", "conv1_2"]
ENGINES = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(library.find() is None, reason="the native library is not built")),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_all_layers_are_right_those_before_a_relu_too(net, pair, engine):
    expected = maps(net, pair[0])
    with torch.no_grad():
        found = vd.features(net, LAYERS, engine=engine)(pair[0])
    assert list(found) == LAYERS
    for layer, value in found.items():
        assert float((value - expected[layer]).norm() / expected[layer].norm()) < 1e-5
    assert (found["conv1_1"] < 0).any()
    assert (found["conv3_3"] < 0).any()


def test_gradients_go_to_the_pictures_alone(net, pair):
    module = vd.features(net, LAYERS).double()
    x = pair[0].double().requires_grad_()
    sum(value.sin().sum() for value in module(x).values()).backward()
    y = pair[0].double().requires_grad_()
    sum(value.sin().sum() for layer, value in maps(net, y).items() if layer in LAYERS).backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert all(p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in net.parameters())
    assert (list(module.parameters()), module.state_dict()) == ([], {})


def test_it_stops_after_the_last_layer(net, pair):
    run = []
    module = vd.features(net, ["conv2_1.relu", "conv1_1"], engine="torch")
    for name, child in module.net.named_children():
        child.register_forward_hook(lambda *_, name=name: run.append(name))
    module(pair[0])
    assert (module.net.layer_names[-1], run) == (
        "conv2_1.relu",
        ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "conv2_1", "relu2_1"],
    )


def test_batch_norm_runs_as_in_testing_and_fully_connected_layers_are_given(pair):
    net = vd.create("A", 7, width=1 / 16, image_size=32, fc_width=24, batch_norm=True, initialization="he").eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    layers = ["conv2_1", "fc6", "fc7.relu"]
    x = vd.features(net, layers)  # before the network is set to training
    net.train()
    found = x.train()(pair[0])
    net.eval()
    for layer in layers:
        expected = net.activations(net.preprocessing.of_unit(pair[0]), layer)
        assert float(((found[layer] - expected).norm() / expected.norm()).detach()) < 1e-5


def test_numbers_of_pictures_mean_what_is_said(net, pair):
    layers = ["conv1_2.relu"]
    expected = vd.features(net, layers)(pair[0])["conv1_2.relu"]
    grey = (pair[0] * 255).round()
    for x, words in [
        (pair[0] * 2 - 1, {"range": (-1, 1)}),
        (pair[0] * 255, {"range": (0, 255)}),
        (pair[0].flip(1), {"channels": "bgr"}),
    ]:
        found = vd.features(net, layers, **words)(x)["conv1_2.relu"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    of_bytes = vd.features(net, layers, range=(0, 255))(grey.to(torch.uint8))["conv1_2.relu"]
    torch.testing.assert_close(of_bytes, vd.features(net, layers, range=(0, 255))(grey)["conv1_2.relu"])


def test_each_weights_own_input_is_given(net, pair):
    """Caffe's, of the same arrays: BGR from 0 to 255, the mean subtracted."""
    theirs = copy.deepcopy(net)
    theirs.preprocessing = vd.Preprocessing(channel_order="BGR")
    bytes_ = (pair[0] * 255).round().to(torch.uint8)
    expected = theirs.activations(theirs.preprocessing(bytes_.permute(0, 2, 3, 1)), "conv2_1").detach()
    found = vd.features(theirs, ["conv2_1"], range=(0, 255))(bytes_)["conv2_1"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        ({}, lambda x: x * 2 - 1, r"from 0 to 1, as range=\(0, 1\) says: say range=\(-1, 1\)"),
        ({}, lambda x: x * 255, r"say range=\(0, 255\)"),
        ({"range": (-1, 1)}, lambda x: x * 255, r"say range=\(0, 255\)"),
        ({"range": (0, 255)}, lambda x: x, r"say range=\(0, 1\)"),
        ({"range": (0, 255)}, lambda x: x * 2 - 1, r"say range=\(-1, 1\)"),
        ({}, lambda x: x - 500, "clamp them"),
        ({}, lambda x: torch.where(x > 0.5, x, torch.nan), "nan"),
        ({}, lambda x: (x * 255).to(torch.uint8), "uint8 with range"),
        ({}, lambda x: x[0], r"N x 3 x H x W"),
        ({}, lambda x: x[:, :1], r"N x 3 x H x W"),
        ({}, lambda x: x.numpy(), "found ndarray"),
        ({}, lambda x: x[:, :, :2], "too small"),
    ],
)
def test_other_numbers_are_one_clear_error(net, pair, words, change, message):
    with pytest.raises(UserError, match=message) as caught:
        vd.features(net, ["conv3_1"], **words)(change(pair[0]))
    assert "\n" not in str(caught.value)


def test_values_are_looked_at_as_often_as_said(net, pair):
    wrong = pair[0] * 2 - 1
    first = vd.features(net, ["conv1_1"])
    first(pair[0])
    first(wrong)
    vd.features(net, ["conv1_1"], check="never")(wrong)
    always = vd.features(net, ["conv1_1"], check="always")
    always(pair[0])
    with pytest.raises(UserError, match="values from"):
        always(wrong)


@pytest.mark.parametrize(
    ("layers", "words", "message"),
    [
        (["conv9_9"], {}, "no layer 'conv9_9'"),
        ([], {}, "one or more"),
        ("conv1_1", {}, "one or more"),
        (["conv1_1", "conv1_1"], {}, "each once"),
        (["fc8"], {}, "before fc8"),
        (["conv1_1"], {"range": (0, 2)}, "range is"),
        (["conv1_1"], {"channels": "gbr"}, "channels is"),
        (["conv1_1"], {"check": "sometimes"}, "check is"),
        (["conv1_1"], {"engine": "magic"}, "engine"),
    ],
)
def test_words_that_are_none(layers, words, message):
    net = vd.create("A", 5, width=1 / 16, image_size=32, fc_width=8)
    with pytest.raises(UserError, match=message):
        vd.features(net, layers, **words)


def test_copies_run_too(net, pair):
    module = vd.features(net, ["conv2_1"])
    with torch.no_grad():
        expected = module(pair[0])["conv2_1"]
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            torch.testing.assert_close(other(pair[0])["conv2_1"], expected)


def test_trunks(net, tmp_path):
    whole = vd.create("D", 3, width=1 / 8, image_size=64, fc_width=8).eval()
    cut = vd.trunk(whole)
    assert (cut.layer_names[-1], cut.classes) == ("pool5", ())
    assert cut.conv1_1.weight.data_ptr() == whole.conv1_1.weight.data_ptr()
    vd.save(whole, tmp_path / "whole.safetensors")
    of_file = vd.trunk(tmp_path / "whole.safetensors")
    says = [vd.features(one, ["conv1_1"]).provenance["trunk"]["sha256"] for one in (whole, cut, of_file)]
    assert len({*says}) == 1
    other = vd.features(net, ["conv1_1"])
    assert other.provenance["trunk"]["sha256"] not in says
    assert other.provenance["trunk"]["sha256"][:12] in repr(other)
    random = vd.trunk("A", seed=3)
    assert "random numbers" in repr(vd.features(random, ["conv1_1"]))
    torch.testing.assert_close(random.conv1_1.weight, vd.trunk("A", seed=3).conv1_1.weight)
    with pytest.raises(UserError, match="no such weights file"):
        vd.trunk("F")
