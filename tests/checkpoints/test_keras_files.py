"""Keras's files, written and read by Keras itself (torch backend), by hand where Keras no longer writes them."""

import io
import re
import zipfile

import numpy as np
import pytest
import torch

import verydeep as vd
from tests.conftest import SEED
from verydeep.basics.errors import UserError
from verydeep.checkpoints.writing import write

h5py = pytest.importorskip("h5py", reason="h5py is not installed (make test installs it)")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
EXACT = 1e-4
DEPTHS = {"D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="keras is not installed (it needs Python 3.11; make test installs it)")


def build(keras, letter, width=1 / 16, top=True, prefix=True):
    """Build keras.applications' VGG in narrow, with random biases; `prefix` gives the layers its names."""
    layers = keras.layers
    x = start = keras.Input((64, 64, 3))
    for b, (depth, full) in enumerate(zip(DEPTHS[letter], (64, 128, 256, 512, 512), strict=True), 1):
        for i in range(1, depth + 1):
            name = f"block{b}_conv{i}" if prefix else None
            x = layers.Conv2D(round(full * width), 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D()(x)
    if top:
        x = layers.Flatten()(x)
        for name in ("fc1", "fc2"):
            x = layers.Dense(24, activation="relu", name=name if prefix else None)(x)
        x = layers.Dense(10, name="predictions" if prefix else None)(x)
    model = keras.Model(start, x)
    rng = np.random.default_rng(SEED)
    model.set_weights(
        [w if w.ndim > 1 else rng.normal(0, 0.1, w.shape).astype(np.float32) for w in model.get_weights()]
    )
    return model


def says(keras, model, pictures):
    x = keras.applications.vgg16.preprocess_input(pictures.astype(np.float32))
    return model.predict(x, verbose=0)


@pytest.mark.parametrize("letter", "DE")
@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_same_logits_as_keras(letter, ending, keras, tools, photographs, tmp_path):
    model = build(keras, letter)
    path = tmp_path / f"w{ending}"
    (model.save_weights if ending == ".weights.h5" else model.save)(path)
    net = vd.load(path)
    assert (net.configuration.name, net.image_size, net.fc_width) == (letter, 64, 24)
    assert net.preprocessing.to_dict() == vd.Preprocessing(channel_order="BGR", pool_round_up=False).to_dict()
    expected = says(keras, model, photographs(64))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_layers_without_names(ending, keras, tools, photographs, tmp_path):
    """Layers called conv2d_7, and files of Keras 3's first versions, whose groups lack the layers' names."""
    model = build(keras, "E", prefix=False)
    path = tmp_path / f"w{ending}"
    (model.save_weights if ending == ".weights.h5" else model.save)(path)
    if ending == ".weights.h5":
        with h5py.File(path, "r+") as file:
            file.visititems(lambda _, item: item.attrs.pop("name", None))
    expected = says(keras, model, photographs(64))
    assert tools.relative_error(tools.logits(vd.load(path), photographs(64)), expected) < EXACT


def write_keras_1(path, layers):
    """Write the layout and names of the published vgg16_weights_tf_dim_ordering_tf_kernels.h5."""
    with h5py.File(path, "w") as file:
        names = [name for name, *_ in layers]
        file.attrs["layer_names"] = [name.encode() for name in [*names[:2], "block1_pool", *names[2:]]]
        file.create_group("block1_pool").attrs["weight_names"] = []
        for name, kernel, bias in layers:
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = kernel, bias


def keras_layers(plain):
    """Name and arrange a plain network's weights as Keras does: fc6 sees height x width x channels."""
    head = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    for name, weight, bias in plain.layers():
        if name == "fc6":
            weight = weight.reshape(len(weight), -1, 2, 2).transpose(0, 2, 3, 1).reshape(len(weight), -1)
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        yield head.get(name) or re.sub(r"conv(\d)_(\d)", r"block\1_conv\2", name), kernel, bias


def test_files_of_keras_1(tools, photographs, tmp_path):
    plain = tools.make_plain("D")
    write_keras_1(tmp_path / "w.h5", list(keras_layers(plain)))
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.h5"), photographs(64)), expected) < EXACT


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_without_top(ending, keras, photographs, tools, tmp_path):
    model = build(keras, "D", top=False)
    path = tmp_path / f"w{ending}"
    (model.save_weights if ending == ".weights.h5" else model.save)(path)
    net = vd.load(path)
    assert (net.classes, net.layer_names[-1], net.window) == ((), "pool5", 32)
    x = net.preprocessing(torch.from_numpy(photographs(64)))
    with torch.no_grad():
        found = net.activations(x, "pool5").permute(0, 2, 3, 1)
    assert tools.relative_error(found, says(keras, model, photographs(64))) < EXACT
    vd.save(net, tmp_path / "trunk.safetensors")
    weights = sum(tensor.numel() for tensor in net.state_dict().values())
    assert (tmp_path / "trunk.safetensors").stat().st_size < 4 * weights + 10_000  # no fully connected layer in it
    with pytest.raises(UserError, match=r"is a trunk \(its last layer is pool5\).*verydeep transfer"):
        vd.predict(net, photographs(64)[0])
    with pytest.raises(UserError, match="no fully connected layers, so no classes"):
        vd.load(path, classes=["cat", "dog"])


@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
@pytest.mark.parametrize("letter", "DE")
def test_keras_loads_what_is_written(letter, ending, keras, tools, photographs, tmp_path, same_network):
    pre = vd.Preprocessing(channel_order="BGR", pool_round_up=False)
    net = vd.create(letter, list("abcdefghij"), width=1 / 16, image_size=64, fc_width=24, preprocessing=pre).eval()
    write(net, tmp_path / f"w{ending}", "keras")
    model = build(keras, letter)
    model.load_weights(tmp_path / f"w{ending}")
    expected = says(keras, model, photographs(64))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT
    same_network(net, vd.load(tmp_path / f"w{ending}"))


def test_there_and_back_with_many_classes(tmp_path, same_network):
    """More text than an attribute of HDF5 holds."""
    net = vd.create("A", [f"class {i} " + "x" * 90 for i in range(1000)], width=1 / 64, image_size=32, fc_width=8)
    for ending in (".h5", ".weights.h5"):
        write(net, tmp_path / f"w{ending}", "keras")
        same_network(net, vd.load(tmp_path / f"w{ending}"))


def test_what_cannot_be_written(tmp_path):
    net = vd.create("A", 3, width=1 / 64, image_size=32, fc_width=8, batch_norm=True)
    with pytest.raises(UserError, match="no batch norm: add --fold-batch-norm"):
        write(net, tmp_path / "w.h5", "keras")
    net = vd.create("A-LRN", 3, width=1 / 64, image_size=32, fc_width=8)
    with pytest.raises(UserError, match="A-LRN cannot be written"):
        write(net, tmp_path / "w.h5", "keras")
    net = vd.create("A", 3, width=1 / 64, image_size=32, fc_width=8)
    with pytest.raises(UserError, match=r"must end in \.weights\.h5 or \.h5"):
        write(net, tmp_path / "w.keras", "keras")
    assert not list(tmp_path.iterdir())


def spoil(change, layers):
    """Change a list of layers; return it and what the message must say."""
    if change == "missing layer":
        return [layer for layer in layers if layer[0] != "block3_conv2"], "conv3_2.weight: expected 16 x 16 x 3 x 3"
    if change == "extra layer":
        _, kernel, bias = layers[4]
        return [*layers, ("block3_conv7", kernel, bias)], "block3_conv7/kernel: configuration D has no such layer"
    if change == "other layer":
        return [*layers, ("attention", np.zeros((3, 3), np.float32), np.zeros(3))], "attention/kernel: configuration D"
    if change == "two swapped":
        names = [name for name, *_ in layers]
        names[4], names[7] = names[7], names[4]
        return [(n, k, b) for n, (_, k, b) in zip(names, layers, strict=True)], (
            r"conv3_1.weight \(block3_conv1/kernel in the file\): expected 16 x 8 x 3 x 3, found 32 x 16 x 3 x 3"
        )
    if change == "wrong shape":
        layers[-2] = ("fc2", np.zeros((24, 23), np.float32), np.zeros(24, np.float32))
        return layers, r"fc7.bias \(fc2/bias in the file\): expected 23, found 24"
    layers[1][2][1] = np.nan
    return layers, r"conv1_2.bias \(block1_conv2/bias in the file\): expected numbers, found 1 of 4 values that are not"


@pytest.mark.parametrize(
    "change", ["missing layer", "extra layer", "other layer", "two swapped", "wrong shape", "not a number"]
)
def test_damage_is_named(change, tools, tmp_path):
    layers, said = spoil(change, [(n, k.copy(), b.copy()) for n, k, b in keras_layers(tools.make_plain("D"))])
    write_keras_1(tmp_path / "w.h5", layers)
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / "w.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_a_file_cut_off(share, ending, tools, tmp_path):
    write_keras_1(tmp_path / "w.h5", list(keras_layers(tools.make_plain("D"))))
    whole = (tmp_path / "w.h5").read_bytes()
    if ending == ".keras":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("model.weights.h5", whole)
        whole = buffer.getvalue()
    path = tmp_path / f"cut{ending}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=re.escape(str(path))):
        vd.load(path)


def test_files_that_claim_more_than_they_hold(tools, tmp_path):
    write_keras_1(tmp_path / "w.h5", list(keras_layers(tools.make_plain("D"))))
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        del file["fc1/fc1_W_1:0"]
        file["fc1"].create_dataset("fc1_W_1:0", (2**20, 2**20), dtype="f4", chunks=(1024, 1024))
    with pytest.raises(UserError, match=r"fc1_W.*: claims more values than the file holds"):
        vd.load(tmp_path / "w.h5")
    with zipfile.ZipFile(tmp_path / "w.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**8))
    with pytest.raises(UserError, match="claims to hold 100,000,000 bytes"):
        vd.load(tmp_path / "w.keras")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("elsewhere", "fc1_W.*: its values lie in another file"),
        ("records", r"fc1_W.*: expected numbers, found values of type \["),
        ("description", "verydeep: claims more values"),
        ("link", "passwords: its values lie in another file"),
        ("circle", "groups without end"),
    ],
)
def test_datasets_that_are_no_numbers_of_this_file(kind, said, tools, tmp_path):
    write_keras_1(tmp_path / "w.h5", list(keras_layers(tools.make_plain("D"))))
    (tmp_path / "secret").write_bytes(bytes(100_000))
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        if kind == "description":
            file.create_dataset("verydeep", (2**33,), dtype="f4", chunks=(1024,))
        elif kind == "link":
            file["fc1/passwords"] = h5py.ExternalLink(str(tmp_path / "secret"), "/")
        elif kind == "circle":
            file["fc1/again"] = file["fc1"]
        else:
            del file["fc1/fc1_W_1:0"]
        if kind == "elsewhere":
            file["fc1"].create_dataset("fc1_W_1:0", (128, 24), "f4", external=[(tmp_path / "secret", 0, 12288)])
        elif kind == "records":
            file["fc1"].create_dataset("fc1_W_1:0", (128, 24), [("a", "f4"), ("b", "i8")])
    with pytest.raises(UserError, match=said):
        vd.load(tmp_path / "w.h5")


def test_other_hdf5_files(keras, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(UserError, match="an HDF5 file without Keras's layers"):
        vd.load(tmp_path / "w.h5")
    x = start = keras.Input((32, 32, 3))
    for _ in range(3):
        x = keras.layers.Conv2D(8, 3)(x)
    keras.Model(start, x).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UserError, match="has 3 layers with weights; the smallest VGG has 8"):
        vd.load(tmp_path / "w.weights.h5")


def stack(keras, *, first=(), conv=None, behind=None, pool=None, head="dense", units=10, end=None):
    """Return a narrow A, layer by layer, with what a test has in place of the usual ones."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((64, 64, 3)), *first])
    convolution = conv or (lambda filters: [layers.Conv2D(filters, 3, padding="same", activation="relu")])
    for depth, filters in zip((1, 1, 2, 2, 2), (4, 8, 16, 32, 32), strict=True):
        for _ in range(depth):
            for layer in [*convolution(filters), *(behind() if behind else [])]:
                model.add(layer)
        model.add(pool() if pool else layers.MaxPooling2D())
    if head == "dense":
        model.add(layers.Flatten())
        for size, activation in ((24, "relu"), (24, "relu"), (units, end)):
            model.add(layers.Dense(size, activation=activation))
    elif head == "convolutions":
        for size, kernel, activation in ((24, 2, "relu"), (24, 1, "relu"), (units, 1, None)):
            model.add(layers.Conv2D(size, kernel, activation=activation))
        model.add(layers.Flatten())
    rng = np.random.default_rng(3)
    # Variances of batch norm are above zero.
    model.set_weights([w if w.ndim > 1 else rng.uniform(0.5, 1.5, w.shape).astype("f4") for w in model.get_weights()])
    return model


def bordered(keras):
    return lambda filters: [keras.layers.ZeroPadding2D(1), keras.layers.Conv2D(filters, 3, activation="relu")]


def normed(keras):
    return lambda filters: [
        keras.layers.Conv2D(filters, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
    ]


ENDINGS = [".keras", ".h5"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["convolutions", "borders", "batch norm", "nested", "idle layers", "own names"])
def test_other_ways_to_build_it(kind, ending, keras, tools, photographs, tmp_path):
    layers = keras.layers
    if kind == "nested":
        base = build(keras, "D", top=False)
        x = start = keras.Input((64, 64, 3))
        x = layers.Flatten()(base(x))
        for size, activation in ((24, "relu"), (24, "relu"), (10, None)):
            x = layers.Dense(size, activation=activation)(x)
        model = keras.Model(start, x)
    elif kind == "own names":  # keras.applications' base, and a head of one's own
        base = build(keras, "D", top=False)
        x = layers.Flatten()(base.output)
        for size, activation in ((24, "relu"), (24, "relu"), (10, None)):
            x = layers.Dropout(0.5)(layers.Dense(size, activation=activation)(x))
        model = keras.Model(base.input, x)
    elif kind == "idle layers":
        model = stack(keras, first=[layers.RandomFlip(), layers.GaussianNoise(0.1)])
    else:
        conv = {"borders": bordered, "batch norm": normed}.get(kind)
        head = "convolutions" if kind == "convolutions" else "dense"
        model = stack(keras, conv=conv and conv(keras), head=head)
    model.save(tmp_path / f"w{ending}")
    net = vd.load(tmp_path / f"w{ending}")
    assert net.batch_norm == (kind == "batch norm")
    assert tools.relative_error(tools.logits(net, photographs(64)), says(keras, model, photographs(64))) < EXACT


def test_weights_alone_with_batch_norm(keras, tools, photographs, tmp_path):
    model = stack(keras, conv=normed(keras))
    model.save_weights(tmp_path / "w.weights.h5")
    net = vd.load(tmp_path / "w.weights.h5")
    assert tools.relative_error(tools.logits(net, photographs(64)), says(keras, model, photographs(64))) < EXACT
    stack(keras, behind=lambda: [keras.layers.BatchNormalization()]).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UserError, match="batch norm, and the file does not say where"):
        vd.load(tmp_path / "w.weights.h5")


@pytest.mark.parametrize("kind", ["rescaling", "three numbers", "normalization"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_layers_that_scale_the_input_become_preprocessing(kind, ending, keras, tools, photographs, tmp_path):
    layers = keras.layers
    first = {
        "rescaling": layers.Rescaling(1 / 127.5, offset=-1),
        "three numbers": layers.Rescaling([0.1, 0.2, 0.3], offset=[-12.0, -20.0, -30.0]),
        "normalization": layers.Normalization(mean=[120.0, 115.0, 100.0], variance=[3000.0, 3100.0, 3200.0]),
    }[kind]
    model = stack(keras, first=[first])
    model.save(tmp_path / f"w{ending}")
    net = vd.load(tmp_path / f"w{ending}")
    assert (net.preprocessing.channel_order, net.preprocessing.value_range) == ("RGB", 255)
    expected = model.predict(photographs(64).astype(np.float32), verbose=0)
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


def test_a_normalization_that_was_fitted(keras, tools, photographs, tmp_path):
    first = keras.layers.Normalization()
    first.adapt(photographs(64).astype(np.float32))
    kept = first.get_weights()
    model = stack(keras, first=[first])
    first.set_weights(kept)  # `stack` draws all numbers anew
    model.save(tmp_path / "w.keras")
    expected = model.predict(photographs(64).astype(np.float32), verbose=0)
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.keras"), photographs(64)), expected) < EXACT


@pytest.mark.parametrize(("end", "units"), [("sigmoid", 10), ("sigmoid", 1), ("softmax", 10)])
def test_the_last_activation_says_what_posteriors_are(end, units, keras, photographs, tools, tmp_path):
    model = stack(keras, units=units, end=end)
    model.save(tmp_path / "w.keras")
    net = vd.load(tmp_path / "w.keras")
    assert net.multi_label == (end == "sigmoid")
    posteriors = net.posteriors(torch.from_numpy(tools.logits(net, photographs(64)))).numpy()
    assert np.abs(posteriors - says(keras, model, photographs(64))).max() < EXACT


REFUSED = {
    "elu": ({"conv": ("elu", 1)}, "conv2d.*: is the activation elu; expected a ReLU behind conv2d"),
    "tanh": ({"conv": ("tanh", 1)}, "is the activation tanh; expected a ReLU"),
    "none": ({"conv": (None, 1)}, "max_pooling2d.*: is a max-pool; expected a ReLU behind conv2d"),
    "stride": ({"conv": ("relu", 2)}, "conv2d.*: expected stride 1, found 2"),
    "unpadded": ({"pads": "valid"}, "conv2d.*: expected pad 1, found 0"),
    "average": ({"pool": "AveragePooling2D"}, "average_pooling2d.*: is AveragePooling2D .*; expected a 2 x 2 max-pool"),
    "leaky": ({"behind": "LeakyReLU"}, "leaky_re_lu.*: is LeakyReLU .negative_slope 0.3.; expected a ReLU"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("ending", ENDINGS)
def test_another_network_is_refused_by_the_name_of_its_layer(kind, ending, keras, tmp_path):
    changes, said = REFUSED[kind]
    layers = keras.layers
    activation, stride = changes.get("conv", ("relu", 1))
    activation = None if "behind" in changes else activation
    pads = changes.get("pads", "same")
    x = start = keras.Input((160, 160, 3))
    for depth, filters in zip((1, 1, 2, 2, 2), (4, 8, 16, 32, 32), strict=True):
        for _ in range(depth):
            x = layers.Conv2D(filters, 3, strides=stride, padding=pads, activation=activation)(x)
            x = getattr(layers, changes["behind"])()(x) if "behind" in changes else x
        x = getattr(layers, changes.get("pool", "MaxPooling2D"))(2, padding="same")(x)
    x = layers.Flatten()(x)
    for size in (24, 24, 10):
        x = layers.Dense(size, activation="relu" if size > 10 else None)(x)
    keras.Model(start, x).save(tmp_path / f"w{ending}")
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / f"w{ending}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["AveragePooling2D", "LeakyReLU", "ELU", "Rescaling"])
@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_weights_alone_tell_of_other_layers_by_their_names(kind, ending, keras, tmp_path):
    layer = getattr(keras.layers, kind)
    if kind == "Rescaling":
        model = stack(keras, first=[layer(1 / 255)])
    elif kind == "AveragePooling2D":
        model = stack(keras, pool=lambda: layer(2))
    else:
        model = stack(keras, behind=lambda: [layer()])
    if ending == ".h5":
        model.save(tmp_path / "w.h5")
        with h5py.File(tmp_path / "w.h5", "r+") as file:
            del file.attrs["model_config"]
    else:
        model.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UserError, match=r"(average_pooling2d|leaky_re_lu|elu|rescaling).*, and a VGG has none there"):
        vd.load(tmp_path / f"w{ending}")


HEADS = {
    "one dense": ["flat", 10],
    "average and one dense": ["mean", 10],
    "as the guides have it": ["mean", (32, "relu"), "dropout", (3, "softmax")],
    "flat and two": ["flat", (24, "relu"), (5, None)],
    "one sigmoid": ["mean", (16, "relu"), (1, "sigmoid")],
    "batch norm before and behind ReLUs": ["flat", 20, "norm", "relu", (12, "relu"), "norm", "dropout", (4, "softmax")],
    "four of them": ["mean", (20, "relu"), (16, "relu"), "norm", (12, "relu"), (8, "relu"), (6, "softmax")],
    "two unequal": ["flat", (24, "relu"), (16, "relu"), (10, "softmax")],
}


def with_head(keras, base, parts):
    """Build a transfer model as Keras's guides do: the base as one layer, then a chain of layers."""
    layers = keras.layers
    made = {
        "flat": layers.Flatten, "mean": layers.GlobalAveragePooling2D, "norm": layers.BatchNormalization,
        "relu": lambda: layers.Activation("relu"), "dropout": lambda: layers.Dropout(0.5),
    }  # fmt: skip
    chain = [
        made[part]() if isinstance(part, str) else layers.Dense(*([part] if isinstance(part, int) else part))
        for part in parts
    ]
    model = keras.Sequential([keras.Input((64, 64, 3)), base, *chain])
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2, w.shape).astype(np.float32) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize("ending", [".h5", ".keras"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_transfer_models(head, ending, keras, photographs, tmp_path):
    model = with_head(keras, build(keras, "D", top=False), HEADS[head])
    model.save(tmp_path / f"w{ending}")
    net = vd.load(tmp_path / f"w{ending}")
    expected = says(keras, model, photographs(64))
    x = torch.from_numpy(photographs(64))
    with torch.no_grad():
        scores = net(net.preprocessing(x))
    found = scores if expected.min() < 0 or expected.max() > 1 else net.posteriors(scores)
    assert np.abs(found.numpy() - expected).max() < EXACT * np.abs(expected).max()
    assert net.multi_label == (head == "one sigmoid")
    vd.save(net, tmp_path / "ours.safetensors")
    again = vd.load(tmp_path / "ours.safetensors")
    assert again.config == net.config
    with torch.no_grad():
        assert torch.equal(again(again.preprocessing(x)), scores)
    assert vd.predict(again, photographs(64)[0], "dense@96").posterior.shape == (len(net.classes),)


def test_a_head_that_is_no_chain_of_such_layers_is_refused_by_name(keras, tmp_path):
    base = build(keras, "D", top=False)
    for layer in (keras.layers.GlobalMaxPooling2D(name="odd"), keras.layers.LayerNormalization(name="odd")):
        keras.Sequential([keras.Input((64, 64, 3)), base, layer, keras.layers.Flatten(), keras.layers.Dense(3)]).save(
            tmp_path / "w.keras"
        )
        with pytest.raises(UserError, match=r"odd: is (GlobalMaxPooling2D|LayerNormalization)"):
            vd.load(tmp_path / "w.keras")


def test_theanos_kernels_are_named(tools, tmp_path):
    layers = [
        (name, np.ascontiguousarray(kernel.T), bias) for name, kernel, bias in keras_layers(tools.make_plain("A"))
    ]
    write_keras_1(tmp_path / "w.h5", layers)
    with pytest.raises(UserError, match=r"block1_conv1: its kernels are 4 x 3 x 3 x 3, in Theano's order"):
        vd.load(tmp_path / "w.h5")


@pytest.mark.large
@pytest.mark.parametrize("name", ["VGG16", "VGG19"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_full_size(name, keras, tools, photographs, tmp_path):
    """Keras's own VGG16 and VGG19, random weights, each format, twenty photographs at 224; and what we write."""
    model = getattr(keras.applications, name)(weights=None, classifier_activation=None)
    expected = says(keras, model, photographs(224))
    for ending in (".h5", ".weights.h5", ".keras"):
        path = tmp_path / f"w{ending}"
        (model.save_weights if ending == ".weights.h5" else model.save)(path)
        net = vd.load(path)
        assert tools.relative_error(tools.logits(net, photographs(224)), expected) < EXACT
        path.unlink()
    assert net.classes[0] == "n01440764 tench"
    write(net, tmp_path / "back.weights.h5", "keras")
    again = getattr(keras.applications, name)(weights=tmp_path / "back.weights.h5", classifier_activation=None)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights(), strict=True))
    (tmp_path / "back.weights.h5").unlink()
    bare = getattr(keras.applications, name)(weights=None, include_top=False)
    bare.save_weights(tmp_path / "notop.weights.h5")
    net = vd.load(tmp_path / "notop.weights.h5")
    assert np.array_equal(
        net.conv5_3.weight.detach().permute(2, 3, 1, 0), bare.get_layer("block5_conv3").get_weights()[0]
    )
