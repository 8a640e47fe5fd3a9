"""Caffe's files, judged by Google's protocol buffers with Caffe's definition (its names and numbers, restated)."""

import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.checkpoints.writing import write

EXACT = 1e-4
# message: field, number, type; * repeated, + repeated and packed, a capital is another message
DEFINITION = """
BlobShape: dim 1 int64+
BlobProto: num 1 int32, channels 2 int32, height 3 int32, width 4 int32, data 5 float+, diff 6 float+,
    shape 7 BlobShape, double_data 8 double+
ConvolutionParameter: num_output 1 uint32, bias_term 2 bool, pad 3 uint32*, kernel_size 4 uint32*, group 5 uint32,
    stride 6 uint32*, dilation 18 uint32*
PoolingParameter: pool 1 int32, kernel_size 2 uint32, stride 3 uint32, pad 4 uint32, round_mode 13 int32
InnerProductParameter: num_output 1 uint32, bias_term 2 bool, axis 5 int32, transpose 6 bool
LRNParameter: local_size 1 uint32, alpha 2 float, beta 3 float, norm_region 4 int32, k 5 float
DropoutParameter: dropout_ratio 1 float
TransformationParameter: scale 1 float, mirror 2 bool, crop_size 3 uint32, mean_file 4 string, mean_value 5 float*
LayerParameter: name 1 string, type 2 string, bottom 3 string*, top 4 string*, blobs 7 BlobProto*, phase 10 int32,
    transform_param 100 TransformationParameter, convolution_param 106 ConvolutionParameter,
    dropout_param 108 DropoutParameter, inner_product_param 117 InnerProductParameter, lrn_param 118 LRNParameter,
    pooling_param 121 PoolingParameter, relu_param 123 ReLUParameter
ReLUParameter: negative_slope 1 float
V0LayerParameter: name 1 string, type 2 string, blobs 50 BlobProto*
V1LayerParameter: layer 1 V0LayerParameter, bottom 2 string*, top 3 string*, name 4 string, type 5 int32,
    blobs 6 BlobProto*, blobs_lr 7 float*, convolution_param 10 ConvolutionParameter,
    inner_product_param 17 InnerProductParameter, lrn_param 18 LRNParameter, pooling_param 19 PoolingParameter
NetParameter: name 1 string, layers 2 V1LayerParameter*, input 3 string*, input_dim 4 int32*, input_shape 8 BlobShape*,
    layer 100 LayerParameter*
"""


def _messages():
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for entry in DEFINITION.replace("\n    ", " ").strip().splitlines():
        name, _, fields = entry.partition(": ")
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            label, number, kind = field.split()
            bare = kind.rstrip("*+")
            added = message.field.add(name=label, number=int(number), label=3 if kind != bare else 1)
            if bare[0].isupper():
                added.type, added.type_name = 11, f".caffe.{bare}"
            else:
                added.type = getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{bare.upper()}")
            added.options.packed = kind.endswith("+")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


MESSAGE = _messages()
NetParameter = MESSAGE("NetParameter")
V1_TYPES = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18, "Pooling": 17}


def caffe_net(plain, *, old=False, doubles=False, renamed=None):
    """Return a plain network as Caffe's message, of the old or the new format of layers."""
    net = NetParameter(name="VGG", input=["data"])
    block = "1"

    def add(name, kind):
        layer = (net.layers if old else net.layer).add(name=name)
        layer.type = V1_TYPES[kind] if old else kind
        return layer

    for name, weight, bias in plain.layers():
        connected = name.startswith("fc")
        if name[4:5] != block and (connected or name[4] > block):
            if block != "done":
                add(f"pool{block}", "Pooling").pooling_param.kernel_size = 2
                (net.layers if old else net.layer)[-1].pooling_param.stride = 2
            block = "done" if connected else name[4]
        layer = add((renamed or {}).get(name, name), "InnerProduct" if connected else "Convolution")
        if connected:
            layer.inner_product_param.num_output = len(weight)
        else:
            layer.convolution_param.num_output = len(weight)
            layer.convolution_param.kernel_size.append(weight.shape[2])
            layer.convolution_param.pad.append(weight.shape[2] // 2)
        for values in (weight, bias):
            blob = layer.blobs.add()
            if old:
                shape = (1,) * (4 - values.ndim) + values.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(values.shape)
            (blob.double_data if doubles else blob.data).extend(values.ravel().tolist())
        if name != "fc8":
            add(f"relu_{name}", "ReLU")
    return net


@pytest.mark.parametrize("letter", "CDE")
@pytest.mark.parametrize("old", [False, True])
def test_same_logits_as_the_network_that_was_written(letter, old, tools, photographs, tmp_path):
    plain = tools.make_plain(letter, ceil=True)
    (tmp_path / "w.caffemodel").write_bytes(caffe_net(plain, old=old).SerializeToString())
    net = vd.load(tmp_path / "w.caffemodel")
    assert (net.configuration.name, net.image_size, len(net.classes)) == (letter, 64, 10)
    assert net.preprocessing == vd.Preprocessing(channel_order="BGR", pool_round_up=True)
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT
    odd = torch.randn(2, 3, 57, 63)  # pools that rounded down would leave less than fc6's window
    with torch.no_grad():
        assert tools.relative_error(net(odd), plain(odd)) < EXACT


def test_the_content_tells_the_format(tools, tmp_path):
    (tmp_path / "weights").write_bytes(caffe_net(tools.make_plain("D")).SerializeToString())
    assert vd.load(tmp_path / "weights").configuration.name == "D"


@pytest.mark.parametrize("variant", ["doubles", "other last layer", "no names", "unpacked"])
def test_other_ways_to_write_it(variant, tools, photographs, tmp_path):
    plain = tools.make_plain("D", ceil=True)
    renamed = {"fc8": "fc8_flowers"} if variant == "other last layer" else None
    if variant == "no names":
        renamed = {name: f"layer{i}" for i, (name, *_) in enumerate(plain.layers())}
    net = caffe_net(plain, doubles=variant == "doubles", renamed=renamed)
    data = net.SerializeToString()
    if variant == "unpacked":
        blob = net.layer[0].blobs[1]
        values = np.array(blob.data, "<f4")
        packed = b"\x2a" + bytes([4 * len(values)]) + values.tobytes()
        # Of the same length, so that no other length changes: the last value stays packed alone.
        unpacked = b"".join(b"\x2d" + value.tobytes() for value in values[:1]) + b"\x2a"
        rest = values[1:].tobytes()
        blob.data.append(0.0)  # room for the one more byte of a tag, and four that are left over
        data = net.SerializeToString()
        old = b"\x2a" + bytes([4 * len(values) + 4]) + values.tobytes() + bytes(4)
        new = unpacked + bytes([len(rest)]) + rest
        filler = b"\x0a" + bytes([len(old) - len(new) - 2]) + bytes(len(old) - len(new) - 2)
        assert data.count(old) == 1
        assert len(packed) == len(old) - 4
        data = data.replace(old, new + filler.replace(b"\x0a", b"\x7a", 1))
    (tmp_path / "w.caffemodel").write_bytes(data)
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.caffemodel"), photographs(64)), expected) < EXACT


def prototxt(net):
    """Return the definition of a message without its weights, as text."""
    bare = NetParameter()
    bare.CopyFrom(net)
    for layer in [*bare.layer, *bare.layers]:
        del layer.blobs[:]
    return text_format.MessageToString(bare)


@pytest.mark.parametrize("old", [False, True])
def test_with_a_prototxt(old, tools, tmp_path):
    net = caffe_net(tools.make_plain("D", ceil=True), old=old)
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    text = prototxt(net)
    if old:
        text = text.replace("type: 4", "type: CONVOLUTION").replace("type: 14", "type: INNER_PRODUCT")
    path = tmp_path / "d.prototxt"
    path.write_text(text + "# the end")
    assert vd.load(tmp_path / "w.caffemodel", prototxt=path).preprocessing.mean == (123.68, 116.779, 103.939)
    data = 'layer { name: "data" type: "Data" transform_param { mean_value: 104 mean_value: 117 mean_value: 123 } }'
    path.write_text(data + text)
    assert vd.load(tmp_path / "w.caffemodel", prototxt=path).preprocessing.mean == (123.0, 117.0, 104.0)
    path.write_text(data.replace("mean_value: 117 mean_value: 123", "") + text)
    assert vd.load(tmp_path / "w.caffemodel", prototxt=path).preprocessing.mean == (104.0, 104.0, 104.0)
    for wrong, said in (
        (data.replace("mean_value: 123", "") + text, "data: has 2 mean values, expected 3"),
        (data.replace("mean_value: 104", 'mean_file: "m"') + text, "data: subtracts a mean image"),
        (data.replace("mean_value: 104", "scale: 0.017") + text, "data: its input is scaled by 0.017"),
        (text.replace("num_output: 32", "num_output: 33", 1), "conv4_1: expected 33 outputs, as in"),
        (text.replace('"conv3_2"', '"conv3_9"'), "conv3_9: .* defines this layer, found no weights for it"),
        (text.replace("pad: 1", "pad: 100", 1), "conv1_1: expected pad 1, found 100"),
        (text.replace("stride: 2", "stride: 1", 1), "pool1: expected a 2 x 2 max-pool of stride 2"),
        (text[: len(text) // 2], "ends inside a message|is no prototxt"),
        (text.replace("{", "(", 1), "line .* is no prototxt"),
        (text + "}", "is no prototxt"),
        ("", "defines no layers"),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=said):
            vd.load(tmp_path / "w.caffemodel", prototxt=path)


def test_local_response_normalization(tools, tmp_path):
    plain = tools.make_plain("A", ceil=True)
    net = caffe_net(plain)
    lrn = NetParameter().layer.add(name="norm1", type="LRN")
    lrn.lrn_param.local_size, lrn.lrn_param.alpha, lrn.lrn_param.k = 5, 5e-4, 2.0
    path = tmp_path / "w.caffemodel"

    def write_with(place, k=2.0, of=net):
        copy = NetParameter.FromString(of.SerializeToString())
        lrn.lrn_param.k = k
        copy.layer.insert(place, lrn)
        path.write_bytes(copy.SerializeToString())

    write_with(2)
    read = vd.load(path)
    assert (read.configuration.name, read.config.lrn_alpha) == ("A-LRN", 1e-4)
    write_with(2, k=1.0)
    with pytest.raises(UserError, match=r"norm1: expected .* k 2 in the first block, .* found size 5, beta 0.75, k 1"):
        vd.load(path)
    write_with(5)
    with pytest.raises(UserError, match=r"norm1: expected .* in the first block, .* behind 1 pools"):
        vd.load(path)
    write_with(2, of=caffe_net(tools.make_plain("D", ceil=True)))
    with pytest.raises(UserError, match="local response normalization, which of the paper's networks A has, not D"):
        vd.load(path)


@pytest.mark.parametrize("emptied", ["fc6", "fc7", "fc8"])
def test_a_layer_without_its_weights_is_named(emptied, tools, tmp_path):
    net = caffe_net(tools.make_plain("A", ceil=True))
    net.layer.add(name="fc9", type="InnerProduct")
    for layer in net.layer:
        if layer.name == emptied:
            del layer.blobs[:]
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=rf"{emptied}: is a fully connected layer without weights"):
        vd.load(tmp_path / "w.caffemodel")


class Caffe:
    """What Caffe computes from a parsed definition and parsed weights, layer by layer."""

    def __init__(self, definition, weights):
        self.layers = definition.layer
        self.blobs = {
            layer.name: [
                torch.tensor(np.array(blob.data, np.float32).reshape(tuple(blob.shape.dim))) for blob in layer.blobs
            ]
            for layer in weights.layer
        }

    def __call__(self, x):
        values = {"data": x}
        for layer in self.layers:
            values[layer.top[0]] = self.run(layer, values[layer.bottom[0]])
        return values

    def run(self, layer, x):
        blobs = self.blobs[layer.name]
        if layer.type == "Convolution":
            return F.conv2d(x, *blobs, padding=layer.convolution_param.pad[0])
        if layer.type == "InnerProduct":
            return F.linear(x.flatten(1), *blobs)
        if layer.type == "Pooling":
            param = layer.pooling_param
            return F.max_pool2d(x, param.kernel_size, param.stride, ceil_mode=param.round_mode == 0)
        if layer.type == "LRN":
            param = layer.lrn_param
            return F.local_response_norm(x, param.local_size, param.alpha, param.beta, param.k)
        simple = {"ReLU": torch.relu, "Dropout": lambda x: x, "Softmax": lambda x: x.softmax(1)}
        return simple[layer.type](x)


@pytest.mark.parametrize("letter", ["A-LRN", "B-5x5", "C", "D"])
@pytest.mark.parametrize("round_up", [True, False])
def test_caffe_computes_the_same_from_what_is_written(letter, round_up, photographs, tools, tmp_path, same_network):
    pre = vd.Preprocessing(channel_order="BGR", pool_round_up=round_up)
    net = vd.create(letter, list("abcdefghi"), width=1 / 16, image_size=64, fc_width=24, preprocessing=pre).eval()
    write(net, tmp_path / "w.caffemodel", "caffe")
    weights = NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes())
    definition = text_format.Parse((tmp_path / "w.prototxt").read_text(), NetParameter())
    assert list(definition.input_shape[0].dim) == [1, 3, 64, 64]
    x = torch.from_numpy(tools.prepare(photographs(64), "caffe")).float()
    with torch.no_grad():
        values = Caffe(definition, weights)(x)
    assert tools.relative_error(tools.logits(net, photographs(64)), values["fc8"]) < EXACT
    assert np.allclose(values["prob"].sum(1), 1)
    same_network(net, vd.load(tmp_path / "w.caffemodel"))
    same_network(net, vd.load(tmp_path / "w.caffemodel", prototxt=tmp_path / "w.prototxt"))


def test_what_cannot_be_written(tmp_path):
    net = vd.create("A", 3, width=1 / 64, image_size=32, fc_width=8, batch_norm=True)
    with pytest.raises(UserError, match="no batch norm: add --fold-batch-norm"):
        write(net, tmp_path / "w.caffemodel", "caffe")
    net = vd.create("A", 3, width=1 / 64, image_size=32, fc_width=8)
    with pytest.raises(UserError, match=r"must end in \.caffemodel"):
        write(net, tmp_path / "w.pth", "caffe")
    assert not list(tmp_path.iterdir())


def spoil(net, change):
    """Spoil a message in one way; return what must be said of it."""
    layers = {layer.name: layer for layer in net.layer}
    if change == "missing layer":
        net.layer.remove(layers["conv3_2"])
        return "conv3_2.weight: expected 16 x 16 x 3 x 3, found no such layer"
    if change == "missing bias":
        del layers["conv3_2"].blobs[1]
        return "conv3_2.bias: expected 16, found no such layer"
    if change == "extra layer":
        net.layer.add().CopyFrom(layers["conv3_2"])
        net.layer[-1].name = "conv3_7"
        return "conv3_7.weight: configuration D has no such layer"
    if change == "layer twice":
        net.layer.add().CopyFrom(layers["conv3_2"])
        return "conv3_2: there are two layers of this name"
    if change == "two swapped":
        layers["conv3_1"].name, layers["conv4_1"].name = "conv4_1", "conv3_1"
        return "conv3_1.weight: expected 16 x 8 x 3 x 3, found 32 x 16 x 3 x 3"
    if change == "wrong shape":
        layers["conv2_2"].blobs[0].shape.dim[:] = [8, 8, 9, 1]
        return "conv2_2.weight: expected 8 x 8 x 3 x 3, found 8 x 8 x 9 x 1"
    if change == "shape that lies":
        layers["fc6"].blobs[0].shape.dim[0] = 2**50
        return "fc6.weight: expected 1125899906842624 x 128 = 144,115,188,075,855,872 values, found 3,072"
    if change == "negative side":
        layers["fc6"].blobs[0].shape.dim[:] = [-24, -128]
        return r"fc6.weight: claims a shape of \(-24, -128\)"
    if change == "not a number":
        layers["fc7"].blobs[1].data[3] = float("nan")
        return r"fc7.bias.*: expected numbers, found 1 of 24 values that are not finite"
    if change == "infinite":
        layers["fc7"].blobs[0].data[3] = float("-inf")
        return r"fc7.weight.*: expected numbers, found 1 of 576 values that are not finite"
    if change == "other fc6":
        layers["fc6"].blobs[0].shape.dim[:] = [32, 96]
        return "fc6.weight: 96 inputs are no square window on the 32 channels of pool5"
    if change == "dilated":
        layers["conv5_1"].convolution_param.dilation.append(2)
        return "conv5_1: expected dilation 1, found 2: is it another network"
    if change == "average pool":
        layers["pool5"].pooling_param.pool = 1
        return "pool5: is Pooling .AVE, pad 0.; expected a 2 x 2 max-pool of stride 2 behind relu_conv5_3"
    del net.layer[:]
    alexnet = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (8, 8, 3, 3)}
    for name, shape in alexnet.items():
        layer = net.layer.add(name=name, type="Convolution")
        layer.blobs.add(data=np.zeros(shape).ravel()).shape.dim.extend(shape)
    return "conv1|conv_1|conv1_1"


DAMAGE = [
    "missing layer", "missing bias", "extra layer", "layer twice", "two swapped", "wrong shape", "shape that lies",
    "negative side", "not a number", "infinite", "other fc6", "dilated", "average pool", "another network",
]  # fmt: skip


def _of(net, name):
    return next(layer for layer in net.layer if layer.name == name)


def _typed(name, kind):
    return lambda net: setattr(_of(net, name), "type", kind)


def _leaky(net):
    _of(net, "relu_conv2_1").relu_param.negative_slope = 0.1


def _average(net):
    _of(net, "pool3").pooling_param.pool = 1


def _unpadded(net):
    _of(net, "conv3_2").convolution_param.pad[:] = []


def _dropped(net):
    net.layer.remove(_of(net, "relu_conv2_1"))


ANOTHER = [
    (_leaky, r"relu_conv2_1: is ReLU \(negative_slope 0.1\); expected a ReLU behind conv2_1"),
    (_average, r"pool3: is Pooling \(AVE, pad 0\); expected a 2 x 2 max-pool of stride 2 behind relu_conv3_3"),
    (_unpadded, "conv3_2: expected pad 1, found 0"),
    (_typed("relu_conv2_1", "Sigmoid"), "relu_conv2_1: is a sigmoid; expected a ReLU behind conv2_1"),
    (_typed("relu_conv2_1", "TanH"), "relu_conv2_1: is TanH; expected a ReLU behind conv2_1"),
    (lambda net: net.layer.add(name="odd", type="BatchNorm"), "odd: is BatchNorm, and a VGG has none there"),
    (_typed("relu_conv2_1", "Eltwise"), "relu_conv2_1: is Eltwise; expected a ReLU behind conv2_1"),
]


@pytest.mark.parametrize(("change", "said"), ANOTHER)
@pytest.mark.parametrize("stated_by", ["file", "prototxt"])
def test_another_network_is_refused_by_the_name_of_its_layer(change, said, stated_by, tools, tmp_path):
    net = caffe_net(tools.make_plain("D", ceil=True))
    path, definition = tmp_path / "w.caffemodel", None
    if stated_by == "prototxt":
        path.write_bytes(net.SerializeToString())
        change(net)
        definition = tmp_path / "d.prototxt"
        definition.write_text(prototxt(net))
    else:
        change(net)
        path.write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=said):
        vd.load(path, prototxt=definition)


def test_the_definition_is_the_graph(tools, tmp_path):
    """Caffe runs the prototxt: a ReLU missing there is missing, one missing in the weights is not."""
    net = caffe_net(tools.make_plain("D", ceil=True))
    path, definition = tmp_path / "w.caffemodel", tmp_path / "d.prototxt"
    definition.write_text(prototxt(net))
    _dropped(net)
    path.write_bytes(net.SerializeToString())
    assert vd.load(path, prototxt=definition).configuration.name == "D"
    definition.write_text(prototxt(net))
    with pytest.raises(UserError, match="conv2_2: is a convolution; expected a ReLU behind conv2_1"):
        vd.load(path, prototxt=definition)


def test_names_of_a_net_made_convolutional(tools, photographs, tmp_path):
    plain = tools.make_plain("D", ceil=True)
    renamed = {name: f"{name}-conv" for name in ("fc6", "fc7", "fc8")}
    (tmp_path / "w.caffemodel").write_bytes(caffe_net(plain, renamed=renamed).SerializeToString())
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.caffemodel"), photographs(64)), expected) < EXACT


def test_a_definition_states_the_mean_that_a_file_keeps_elsewhere(tools, tmp_path):
    net = caffe_net(tools.make_plain("D", ceil=True))
    layer = net.layer.add(name="data", type="Data")
    layer.transform_param.mean_file = "mean.binaryproto"
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=r"data: subtracts a mean image \(mean_file\), which is not read"):
        vd.load(tmp_path / "w.caffemodel")
    text = 'layer { name: "data" type: "Input" transform_param { mean_value: 104 mean_value: 117 mean_value: 123 } }'
    (tmp_path / "d.prototxt").write_text(text)
    found = vd.load(tmp_path / "w.caffemodel", prototxt=tmp_path / "d.prototxt")
    assert found.preprocessing.mean == (123.0, 117.0, 104.0)


@pytest.mark.parametrize("change", DAMAGE)
def test_damage_is_named(change, tools, tmp_path):
    net = caffe_net(tools.make_plain("D"))
    said = spoil(net, change)
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / "w.caffemodel")
    assert str(tmp_path / "w.caffemodel") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_layers_in_another_order_are_found_by_name(tools, photographs, tmp_path):
    plain = tools.make_plain("D", ceil=True)
    net = caffe_net(plain)
    shuffled = NetParameter()
    layers = list(net.layer)
    random.shuffle(layers)
    shuffled.layer.extend(layers)
    (tmp_path / "w.caffemodel").write_bytes(shuffled.SerializeToString())
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.caffemodel"), photographs(64)), expected) < EXACT


def test_the_oldest_format_is_named(tmp_path):
    net = NetParameter()
    net.layers.add().layer.name = "conv1_1"
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(UserError, match="Caffe's oldest format"):
        vd.load(tmp_path / "w.caffemodel")


def test_a_large_file_is_copied_once(tmp_path):
    """A file of 140 MB; beyond what torch itself takes, memory grows by the file's pages and by one copy."""
    net = vd.create("A", 10, width=1 / 8, image_size=224, fc_width=9_000)
    write(net, tmp_path / "w.caffemodel", "caffe")
    size = (tmp_path / "w.caffemodel").stat().st_size
    del net
    code = (
        "import resource, sys, torch, verydeep as vd\n"
        "from verydeep.checkpoints import caffe, recognize\n"
        "from pathlib import Path\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "vd.load(sys.argv[1])\n"
        "print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "w.caffemodel"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert size > 130_000_000
    assert int(done.stdout) < 2.3 * size


@pytest.fixture(scope="module")
def small(tools, tmp_path_factory):
    """A whole file of ten thousand bytes, to be damaged at random."""
    path = tmp_path_factory.mktemp("small") / "w.caffemodel"
    plain = tools.make_plain("A", width=1 / 64, fc=4, window=1, classes=2)
    path.write_bytes(caffe_net(plain).SerializeToString())
    return path


@st.composite
def damage(draw):
    """Some changes, each a place (a share of the file) and what happens there."""
    kinds = st.sampled_from(["flip", "cut", "insert", "lie", "repeat", "zero"])
    share = st.floats(0, 1)
    return draw(st.lists(st.tuples(kinds, share, st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))


def apply(data, changes):
    data = bytearray(data)
    for kind, share, payload in changes:
        # Half of all damage falls on the first bytes, where the lengths of the outer messages stand.
        at = int(share * len(data)) if payload[0] % 2 else int(share * min(len(data), 200))
        if kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = payload
        elif kind == "lie":  # a length of up to 2^63
            data[at:at] = b"\x2a" + bytes([0xFF] * (payload[0] % 9)) + b"\x7f"
        elif kind == "repeat":
            data[at:at] = data[at : at + 300]
        else:
            data[at : at + len(payload)] = payload if kind == "flip" else bytes(len(payload))
    return bytes(data)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=damage())
def test_random_damage_never_crashes_the_reader(changes, small, tmp_path):
    """Either a network comes out, or one line; memory stays small, whatever lengths the file claims."""
    path = tmp_path / "w.caffemodel"
    path.write_bytes(apply(small.read_bytes(), changes))
    tracemalloc.start()
    try:
        vd.load(path)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8_000_000


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400))
def test_random_bytes_are_refused(data, tmp_path):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"w\.caffemodel"):
        vd.load(path)


def test_countless_tiny_fields_are_refused_soon(tmp_path):
    (tmp_path / "w.caffemodel").write_bytes(b"\xa2\x06\x00" * 300_000)
    with pytest.raises(UserError, match="has over 200,000 fields"):
        vd.load(tmp_path / "w.caffemodel")
