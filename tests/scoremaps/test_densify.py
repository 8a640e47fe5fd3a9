"""Other people's networks, made to slide: their own classes are the judges."""

import pytest
import torch
from torch import nn

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.scoremaps.densify import run


def small(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers)


def windows(model, x, side, stride, layers):
    """Scores of every window by the model's convolutions on the whole image and its head on each crop of them."""
    features = layers(x)
    with torch.inference_mode():
        rows, columns = (n - side + 1 for n in features.shape[2:])
        return torch.stack(
            [
                torch.stack([model(features[:, :, i : i + side, j : j + side])[0] for j in range(columns)], dim=1)
                for i in range(rows)
            ],
            dim=1,
        )


def test_torchvisions_vgg_and_alexnet(peers, tools):
    torch.manual_seed(0)
    vgg = peers.torchvision.models.vgg
    narrow = vgg.VGG(vgg.make_layers([4, "M", 8, "M", 8, "M", 8, "M", 8, "M"], batch_norm=True), init_weights=False)
    narrow.classifier = nn.Sequential(nn.Linear(8 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5))
    models = {"alexnet": peers.torchvision.models.alexnet(num_classes=5), "vgg": narrow}
    for name, height, width in (("alexnet", 321, 290), ("vgg", 257, 288)):
        model = models[name].eval()
        dense = vd.densify(model)
        assert (dense.window, dense.stride, len(dense.classes)) == (224, 32, 5)
        x = torch.randn(1, 3, height, width)
        with torch.inference_mode():
            found = run(dense.layers, x[0])

            def head(part, model=model):
                return model.classifier(torch.flatten(model.avgpool(part), 1))

            side = 6 if name == "alexnet" else 7
            expected = windows(head, x, side, 32, model.features)
        assert tools.off(found, expected) < 1e-5, name


def test_timms_vgg(peers, tools):
    torch.manual_seed(0)
    narrow = (4, "M", 8, "M", 8, "M", 8, "M", 8, "M")
    model = peers.timm.models.vgg.VGG(narrow, num_classes=4, mlp_ratio=1 / 64).eval()
    dense = vd.densify(model)
    x = torch.randn(1, 3, 256, 301)
    with torch.inference_mode():
        found = run(dense.layers, x[0])
        expected = model.pre_logits.fc2(model.pre_logits.act1(model.pre_logits.fc1(model.features(x))))
        expected = model.head.fc(model.pre_logits.act2(expected).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert tools.off(found, expected[0]) < 1e-5


def test_our_own_networks_keep_what_they_know(tools):
    net = tools.make("A", image_size=96)
    dense = vd.densify(net)
    assert (dense.window, dense.stride, dense.classes) == (96, 32, net.classes)
    assert dense.preprocessing == net.preprocessing
    assert dense.least_size == net.least_size == 65


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2)], "layer 1 .AdaptiveAvgPool2d. makes 3 x 3 of 8 x 8"),
        ([nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)], "layer 1 .AdaptiveMaxPool2d. makes 1 x 1"),
        ([nn.GroupNorm(2, 4)], "layer 1 .GroupNorm. is no convolution"),
        ([nn.InstanceNorm2d(4)], "layer 1 .InstanceNorm2d."),
        ([nn.BatchNorm2d(4, track_running_stats=False)], "picture's own statistics"),
        ([nn.ConvTranspose2d(4, 4, 2)], "layer 1 .ConvTranspose2d."),
        ([nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")], "pads by 'reflect'"),
        ([nn.Conv2d(4, 4, (3, 3), stride=(1, 2))], "strides that differ"),
        ([nn.AvgPool2d(3, 2, padding=1)], "layer 1 .AvgPool2d. pads"),
        ([nn.Linear(8, 8)], "not behind a flatten"),
        ([nn.Flatten(), nn.Linear(256, 2), nn.Conv2d(2, 2, 1)], "stands behind a flatten"),
        ([nn.Flatten(2)], "flattens other dimensions"),
        ([nn.ReLU()], "has 8 x 8 cells, expected one"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(layers, message):
    with pytest.raises(UserError, match=message):
        vd.densify(small(*layers), image_size=8)


def test_a_forward_pass_that_does_something_else_is_found_out(peers):
    class Doubled(nn.Sequential):
        def forward(self, x):
            return super().forward(2 * x)

    model = Doubled(nn.Conv2d(3, 4, 8), nn.Tanh(), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(UserError, match="Doubled does more than its layers in order"):
        vd.densify(model, image_size=8)
    with pytest.raises(UserError, match="what ResNet does between its layers is unknown"):
        vd.densify(peers.torchvision.models.resnet18())


def test_a_global_mean_is_a_mean_of_windows(rng, tools):
    torch.manual_seed(1)
    model = small(nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    dense = vd.densify(model, image_size=16)
    x = torch.from_numpy(rng.normal(size=(3, 40, 33))).float()
    with torch.inference_mode():
        features = model[2](model[1](model[0](x[None])))
        means = nn.functional.avg_pool2d(features, 8, 1)
        expected = model[5](means.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)[0]
        assert tools.off(run(dense.layers, x), expected) < 1e-5


def test_wrong_numbers_of_names():
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 2))
    assert vd.densify(model, image_size=8, classes=["a", "b"]).classes == ("a", "b")
    with pytest.raises(UserError, match="3 class names are given, and the network has 2 scores"):
        vd.densify(model, image_size=8, classes=["a", "b", "c"])
