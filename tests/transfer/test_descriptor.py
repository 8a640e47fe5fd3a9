"""The descriptor against plain float64 arithmetic, and as a scikit-learn transformer."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.utils import estimator_checks
from torch.nn import functional as F

import verydeep as vd
from verydeep.basics.errors import BadImageError, UserError
from verydeep.images.rescale import rescale


def reference_map(net, picture, layer):
    """One layer's map in float64 by torch's plain functions; `fc7` is what its ReLU takes, `fc7.relu` what it gives."""
    x = torch.from_numpy(picture.astype(np.float64)).permute(2, 0, 1)[None]
    x = x - torch.tensor(net.preprocessing.mean, dtype=torch.float64)[:, None, None]
    maps, last = {}, ""
    for name, module in net.named_children():
        if name.startswith(("conv", "fc")):
            padding = 1 if name.startswith("conv") else 0
            x, last = F.conv2d(x, module.weight.double(), module.bias.double(), padding=padding), name
        elif name.startswith("bn"):
            mean, var = module.running_mean.double()[:, None, None], module.running_var.double()[:, None, None]
            x = (x - mean) / torch.sqrt(var + module.eps)
        elif name.startswith("relu"):
            x, last = x.clamp(min=0), f"{last}.relu"
        elif name.startswith("pool"):
            x, last = F.max_pool2d(x, 2, 2, ceil_mode=True), name
        maps[last] = x
    return maps[layer]


def reference(net, picture, layer, scale, flip=True):
    views = [rescale(picture, scale)]
    views += [views[0][:, ::-1].copy()] if flip else []
    return np.mean([reference_map(net, view, layer).detach().numpy()[0].mean(axis=(1, 2)) for view in views], axis=0)


def unit(row):
    return row / np.linalg.norm(row)


LAYERS = (
    "conv1_1",
    "conv1_1.relu",
    "pool1",
    "conv3_2",
    "conv3_2.relu",
    "pool5",
    "fc6",
    "fc6.relu",
    "fc7",
    "fc7.relu",
    "fc8",
)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_kind_of_layer_equals_float64(make_net, pictures, batch_norm):
    net = make_net(batch_norm=batch_norm)
    assert set(LAYERS) <= set(net.layer_names)
    for layer in LAYERS:
        found = vd.Descriptor(net, layer, (64,), normalize="none").transform(pictures[:2])
        wanted = np.stack([reference(net, picture, layer, 64) for picture in pictures[:2]])
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4 * abs(wanted).max(), err_msg=layer)


def test_the_norm_of_a_lrn_is_a_layer_too(make_net, pictures):
    net = make_net("A-LRN")
    assert net.layer_names[:4] == ("conv1_1", "conv1_1.relu", "norm1", "pool1")
    assert vd.Descriptor(net, "norm1", (64,)).transform(pictures[:1]).shape == (1, 4)


def test_scales_are_averaged_stacked_or_maximal_and_normalized_where_said(make_net, pictures):
    nets = [make_net(), make_net("B", fc_width=16)]
    parts = [[np.stack([reference(net, p, "fc7.relu", scale) for p in pictures]) for scale in (64, 96)] for net in nets]
    units = np.vectorize(unit, signature="(d)->(d)")

    def found(**choice):
        return vd.Descriptor(choice.pop("nets", nets[0]), scales=(64, 96), **choice).transform(pictures)

    def check(rows, wanted):
        np.testing.assert_allclose(rows, wanted, rtol=1e-3, atol=1e-4 * abs(wanted).max())

    check(found(), units(np.mean(parts[0], axis=0)))
    check(found(aggregate="max"), units(np.max(parts[0], axis=0)))
    check(found(aggregate="stack"), units(np.hstack(parts[0])))
    check(found(aggregate="stack", normalize="none"), np.hstack(parts[0]))
    check(found(aggregate="stack", normalize="l2-scales"), np.hstack([units(rows) for rows in parts[0]]))
    check(found(nets=nets), np.hstack([units(np.mean(rows, axis=0)) for rows in parts]))
    check(found(nets=nets, normalize="l2-whole"), units(np.hstack([np.mean(rows, axis=0) for rows in parts])))
    unflipped = np.stack([reference(nets[0], p, "fc7.relu", 64, flip=False) for p in pictures])
    check(vd.Descriptor(nets[0], scales=(64,), flip=False, normalize="none").transform(pictures), unflipped)


def test_a_map_is_the_layer_at_every_place(make_net, pictures):
    net = make_net()
    maps = vd.Descriptor(net, "conv5_2.relu", (64,)).maps(pictures)
    for found, picture in zip(maps, pictures, strict=True):
        wanted = reference_map(net, rescale(picture, 64), "conv5_2.relu").detach().numpy()[0].transpose(1, 2, 0)
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * abs(wanted).max())
    with pytest.raises(UserError, match="one network and one scale"):
        vd.Descriptor(net, scales=(64, 96)).maps(pictures)


def test_paths_arrays_and_pil_images_are_the_same(make_net, pictures, tmp_path):
    describe = vd.Descriptor(make_net(), scales=(64,))
    files = []
    for i, picture in enumerate(pictures):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(files[-1])
    wanted = describe.transform(pictures)
    for X in (files, list(map(str, files)), np.array(list(map(str, files))), [Image.open(file) for file in files]):
        np.testing.assert_allclose(describe.transform(X), wanted, atol=1e-6)
    mixed = [files[0], pictures[1], Image.fromarray(pictures[2])]
    np.testing.assert_allclose(describe.transform(mixed), wanted[:3], atol=1e-6)
    np.testing.assert_array_equal(
        describe.transform([files[0], files[0]])[0], describe.transform([files[0], files[0]])[1]
    )
    four = np.stack([pictures[0], pictures[2]])
    np.testing.assert_allclose(describe.transform(four), wanted[[0, 2]], atol=1e-6)


CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_get_params_invariance",
    "check_set_params",
)


@pytest.mark.parametrize("check", CHECKS)
def test_estimator_checks_that_apply(check, weights):
    """The other checks of scikit-learn feed tables of numbers, which are no pictures."""
    if not hasattr(estimator_checks, check):
        pytest.skip(f"this version of scikit-learn has no {check}")
    describe = vd.Descriptor(str(weights), scales=(64,))
    getattr(estimator_checks, check)("Descriptor", describe)


@pytest.mark.filterwarnings("ignore:Can't test estimator")
def test_scikit_learns_own_choice_of_checks(weights):
    """As the tags say what it takes, scikit-learn leaves out what needs tables."""
    results = estimator_checks.check_estimator(vd.Descriptor(str(weights), scales=(64,)))
    print([(result["check_name"], result["status"]) for result in results or []])


def test_it_is_a_transformer_like_any_other(weights, pictures, rng):
    describe = vd.Descriptor(str(weights), scales=(64, 96), aggregate="stack")
    wanted = describe.fit_transform(pictures)
    assert describe.fit(pictures) is describe
    names = describe.get_feature_names_out()
    assert len(set(names)) == len(names) == wanted.shape[1]
    assert names[0] == "fc7.relu@64_0"
    assert names[-1] == "fc7.relu@96_23"
    for other in (pickle.loads(pickle.dumps(describe)), clone(describe)):
        assert other.get_params() == describe.get_params()
        np.testing.assert_array_equal(other.transform(pictures), wanted)
    two = vd.Descriptor([str(weights), str(weights)], scales=(64,))
    assert two.get_feature_names_out()[[0, -1]].tolist() == ["1:fc7.relu@64_0", "2:fc7.relu@64_23"]
    many = [np.full((64, 64, 3), rng.integers(0, 100) + 150 * (i % 2), np.uint8) for i in range(16)]
    y = [i % 2 for i in range(16)]
    pipeline = make_pipeline(vd.Descriptor(str(weights), scales=(64,)), LinearSVC(C=10))
    assert cross_val_score(pipeline, many, y, cv=2).mean() > 0.6
    search = GridSearchCV(pipeline, {"descriptor__layer": ["fc7.relu", "pool5"], "linearsvc__C": [1, 10]}, cv=2)
    assert set(search.fit(many, y).best_params_) == {"descriptor__layer", "linearsvc__C"}


def test_changed_parameters_change_the_network(make_net, pictures):
    first, second = make_net(), make_net()
    describe = vd.Descriptor(first, scales=(64,))
    before = describe.transform(pictures)
    describe.set_params(weights=second)
    np.testing.assert_array_equal(describe.transform(pictures), vd.Descriptor(second, scales=(64,)).transform(pictures))
    assert not np.allclose(describe.transform(pictures), before)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"layer": "fc9"}, "no layer 'fc9'.*did you mean fc"),
        ({"layer": "conv5_9.relu"}, "no layer"),
        ({"scales": (20,)}, "scale 20 is too small.*least is 33"),
        ({"scales": ()}, "expected one or more"),
        ({"scales": (64, 64)}, "each once"),
        ({"aggregate": "sum"}, "aggregate is 'sum', expected mean, stack or max"),
        ({"normalize": "l1"}, "normalize is 'l1'"),
        ({"weights": "nowhere.safetensors"}, "no such weights file"),
        ({"weights": []}, "at least one network"),
        ({"memory": "lots"}, "is no size"),
    ],
)
def test_wrong_parameters_are_named_by_fit(make_net, choice, said):
    describe = vd.Descriptor(**{"weights": make_net(), "scales": (64,), **choice})  # never by __init__
    with pytest.raises(UserError, match=said):
        describe.fit()


def test_what_is_no_picture_is_named(make_net, tmp_path):
    describe = vd.Descriptor(make_net(), scales=(64,))
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(BadImageError, match=r"bad\.jpg: not an image"):
        describe.transform([tmp_path / "bad.jpg"])
    with pytest.raises(BadImageError, match=r"gone\.jpg"):
        describe.transform([tmp_path / "gone.jpg"])
    with pytest.raises(UserError, match=r"image 1 is an array of float64, shape \(64, 64, 3\)"):
        describe.transform([np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3))])
    with pytest.raises(BadImageError, match=r"photo\.jpg"):
        describe.transform("photo.jpg")
    assert describe.transform(np.zeros((64, 64, 3), np.uint8)).shape == (1, 24)
    assert describe.transform([]).shape == (0, 24)
