"""A classifier as fc8: exact where it is said to be, and no other network."""

import numpy as np
import pytest
import torch

import verydeep as vd
from verydeep.transfer.fold import as_network, common_scale
from verydeep.transfer.linear import Linear


@pytest.fixture
def linear(rng):
    return Linear(rng.normal(size=(3, 24)), rng.normal(size=3), np.full(3, 1.7), np.zeros(3), False)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_mean_of_its_score_map_is_the_classifiers_score(make_net, pictures, linear, batch_norm):
    net = make_net(batch_norm=batch_norm)
    describe = vd.Descriptor(net, scales=(96,), flip=False, normalize="none")
    rows = describe.transform(pictures)
    scale = common_scale(rows)
    deployed = as_network(net, linear, scale, ("x", "y", "z"), {"data": "test"})
    wanted = linear.scores(rows / scale)
    for picture, row in zip(pictures, wanted, strict=True):
        part = vd.Descriptor(deployed, "fc8", (96,), flip=False, normalize="none")
        np.testing.assert_allclose(part.transform([picture])[0], row, rtol=1e-3, atol=1e-3 * abs(wanted).max())


def test_over_scales_and_mirror_images_scores_are_averaged(make_net, pictures, linear):
    net = make_net()
    rows = vd.Descriptor(net, scales=(64, 96), normalize="none").transform(pictures)
    deployed = as_network(net, linear, 2.5, ("x", "y", "z"), {})
    found = vd.Descriptor(deployed, "fc8", (64, 96), normalize="none").transform(pictures)
    wanted = linear.scores(rows / 2.5)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * abs(wanted).max())


def test_it_is_a_network_like_any_other(make_net, pictures, linear, tmp_path):
    net = make_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    vd.save(as_network(net, linear, 2.0, ("x", "y", "z"), {"train_scales": [64, 96]}), tmp_path / "c.safetensors")
    loaded = vd.load(tmp_path / "c.safetensors")
    assert (loaded.classes, loaded.preprocessing) == (("x", "y", "z"), net.preprocessing)
    assert str(vd.predict(loaded, pictures[0]).protocol) == "dense@80"
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])  # the source is not touched
        if not name.startswith("fc8"):
            assert torch.equal(loaded.state_dict()[name], tensor)
