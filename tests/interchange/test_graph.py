"""Files whose arrays are a VGG's and whose layers are none: refused by name, or computed as their own runtime does."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

import verydeep as vd
from tests.interchange.test_caffe import caffe_net
from tests.interchange.test_keras_files import build
from tests.interchange.test_matconvnet import simplenn
from tests.interchange.test_onnx_file import Graph
from verydeep.basics.errors import UserError
from verydeep.interchange.graph import Step, check_vgg

onnx = pytest.importorskip("onnx", reason="onnx is not installed (make test installs it)")


class Other(Graph):
    """A VGG's graph with one node replaced or added; `change` says which."""

    def __init__(self, plain, change):
        self.change, self.relus = change, 0
        super().__init__(plain, "torch")
        if change == "sigmoid":
            self.add("Sigmoid")

    def add(self, kind, inputs=(), **attributes):
        self.relus += kind == "Relu"
        here, change = self.relus == 4, self.change
        if kind == "Relu" and here and change in ("LeakyRelu", "Tanh", "Elu"):
            return super().add(change, inputs)
        if kind == "Relu" and here and change == "Clip":
            return super().add("Clip", [self.constant("low", np.float32(0)), self.constant("high", np.float32(6))])
        if kind == "Relu" and here and change == "no ReLU":
            return None
        if kind == "Conv" and change == "normalization" and not self.nodes:
            super().add("Div", [self.constant("std", np.full((1, 3, 1, 1), 0.2, np.float32))])
        if kind == "Conv" and change == "padding":
            attributes["pads"] = [0, 0, 2, 2]
        before = self.x
        super().add(kind, inputs, **attributes)
        if kind == "Relu" and here and change == "skip":
            super().add("Add", [before])
        if kind == "Flatten" and change == "softmax inside":
            super().add("Softmax")
        return None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("LeakyRelu", "is LeakyRelu"),
        ("Tanh", "is Tanh"),
        ("Elu", "is Elu"),
        ("Clip", "is Clip"),
        ("no ReLU", "has no ReLU behind it"),
        ("normalization", "is Div"),
        ("padding", r"padded by \[0, 0, 2, 2\], expected \[1, 1, 1, 1\]"),
        ("skip", "is Add of two layers' values"),
        ("softmax inside", "is a soft-max, and stands before the scores"),
    ],
)
def test_onnx_graphs_of_other_networks_are_refused(change, said, tools, tmp_path):
    onnx.save(Other(tools.make_plain("D"), change).model(), tmp_path / "w.onnx")
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / "w.onnx")
    assert "\n" not in str(caught.value)


def test_sigmoids_at_the_end_are_classes_by_themselves(tools, photographs, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (make test installs it)")
    onnx.save(Other(tools.make_plain("D"), "sigmoid").model(), tmp_path / "w.onnx")
    net = vd.load(tmp_path / "w.onnx")
    x = tools.prepare(photographs(64), "torchvision")
    (expected,) = runtime.InferenceSession(tmp_path / "w.onnx").run(None, {"input": np.asarray(x, np.float32)})
    with torch.inference_mode():
        found = net.posteriors(net(net.preprocessing(torch.from_numpy(photographs(64))))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="keras is not installed (it needs Python 3.11; make test installs it)")


def in_front(keras, model, layer):
    start = keras.Input((64, 64, 3))
    x = layer(start)
    for own in model.layers[1:]:
        x = own(x)
    return keras.Model(start, x)


def changed(keras, kind):
    """Return Keras's VGG with another layer in it."""
    model = build(keras, "D")
    layers = keras.layers
    if kind == "rescaling":
        return in_front(keras, model, layers.Rescaling(1 / 255))
    if kind == "elu":
        model.get_layer("block3_conv1").activation = keras.activations.elu
    elif kind == "no ReLU":
        model.get_layer("block3_conv1").activation = keras.activations.linear
    elif kind == "strides":
        model.get_layer("block1_conv2").strides = (2, 2)
    elif kind == "not padded":
        model.get_layer("block1_conv2").padding = "valid"
    elif kind == "average":
        config = model.get_config()
        for layer in config["layers"]:
            if layer["class_name"] == "MaxPooling2D":
                layer["class_name"] = "AveragePooling2D"
        return keras.Model.from_config(config)
    return model


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rescaling", "is a layer of type Rescaling"),
        ("elu", "block3_conv1: is followed by the activation elu"),
        ("no ReLU", "block3_conv1: has no ReLU behind it, before block3_conv2"),
        ("strides", r"block1_conv2: is a convolution with strides \[2, 2\]"),
        ("not padded", "block1_conv2: is a convolution of 3 x 3 without padding"),
        ("average", "is a layer of type AveragePooling2D"),
    ],
)
@pytest.mark.parametrize("ending", [".h5", ".keras"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_keras_models_that_are_other_networks_are_refused(kind, said, ending, keras, tmp_path):
    changed(keras, kind).save(tmp_path / f"w{ending}")
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / f"w{ending}")
    assert "\n" not in str(caught.value)


def test_caffes_other_layers_are_refused(tools, tmp_path):
    for kind in ("TanH", "Eltwise", "BatchNorm"):
        net = caffe_net(tools.make_plain("D"))
        net.layer.add(name="odd", type=kind)
        (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
        with pytest.raises(UserError, match=f"odd: is a layer of type {kind}"):
            vd.load(tmp_path / "w.caffemodel")


def test_fully_connected_layers_of_net_surgery_are_known(tools, tmp_path):
    renamed = {name: f"{name}-conv" for name in ("fc6", "fc7", "fc8")}
    plain = tools.make_plain("D", ceil=True)
    (tmp_path / "w.caffemodel").write_bytes(caffe_net(plain, renamed=renamed).SerializeToString())
    (tmp_path / "own.caffemodel").write_bytes(caffe_net(plain).SerializeToString())
    ours, theirs = (vd.load(tmp_path / f"{name}.caffemodel").state_dict() for name in ("w", "own"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("kind", "key", "value", "said"),
    [
        ("pool", "method", "avg", "pool1: is a pool by avg"),
        ("conv", "pad", np.zeros((1, 4)), r"conv1_1: is a convolution of 3 x 3 padded by \[0, 0, 0, 0\], expected 1"),
        ("conv", "stride", np.array([[2.0]]), r"conv1_1: is a convolution of stride \[2\]"),
        ("relu", "leak", np.array([[0.1]]), "is a ReLU with slope 0.1 below 0"),
    ],
)
def test_matconvnets_other_layers_are_refused(kind, key, value, said, tools, tmp_path):
    content = simplenn(tools.make_plain("D"))
    for layer in content["layers"].ravel():
        if layer["type"] == kind:
            layer[key] = value
    savemat(tmp_path / "w.mat", content)
    with pytest.raises(UserError, match=said):
        vd.load(tmp_path / "w.mat")


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ("conv relu norm", "is batch norm, and stands behind no convolution"),
        ("conv relu mean dense", "is a mean over the whole map, and stands before the scores"),
        ("conv relu dense softmax relu", "stands behind 3, which should be the end"),
        ("dense relu dense relu dense relu dense", "is fully connected layer number 4, a VGG has 3"),
    ],
)
def test_layers_at_a_wrong_place(kinds, said):
    with pytest.raises(UserError, match=said):
        check_vgg([Step(kind, str(i)) for i, kind in enumerate(kinds.split())], "a file")


def test_a_pool_may_stand_before_its_relu():
    kinds = ["conv", "norm", "pool", "relu", "conv", "relu", "pool", "nothing", *3 * ["dense", "relu"]]
    kinds[-1:] = ["mean", "softmax"]
    assert not check_vgg([Step(kind, str(i)) for i, kind in enumerate(kinds)], "a file")
