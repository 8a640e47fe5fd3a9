"""MatConvNet's files, written by SciPy in both layouts, and by h5py in MATLAB's format 7.3."""

import itertools
import re

import numpy as np
import pytest
from scipy.io import savemat

import verydeep as vd
from verydeep.basics.errors import UserError

EXACT = 1e-4
MEAN = np.array([120.0, 115.5, 101.25])


def cell(items):
    """Return a MATLAB cell: an array of objects, a row."""
    made = np.empty((1, len(items)), dtype=object)
    for i, item in enumerate(items):
        made[0, i] = item
    return made


def layers(plain):
    """Yield (name, kind, filters H x W x C x N or None, biases or None) as MatConvNet's importer makes them."""
    block = "1"
    for name, weight, bias in plain.layers():
        if name.startswith("fc"):
            if block != "done":
                yield f"pool{block}", "pool", None, None
                block = "done"
            if weight.shape[1] == 32 * 4:
                weight = weight.reshape(len(weight), 32, 2, 2)
            weight = weight.reshape(*weight.shape, *(1 for _ in range(4 - weight.ndim)))
        elif name[4] > block:
            yield f"pool{block}", "pool", None, None
            block = name[4]
        yield name, "conv", weight.transpose(2, 3, 1, 0), bias[None]
        if name != "fc8":
            yield f"relu_{name}", "relu", None, None
    yield "prob", "softmax", None, None


def normalization(image=False):
    mean = np.broadcast_to(MEAN, (64, 64, 3)).astype(np.float32) if image else MEAN.reshape(1, 1, 3)
    return {"imageSize": np.array([[64.0, 64.0, 3.0]]), "averageImage": mean, "interpolation": "bicubic"}


CLASSES = {"name": cell([f"n{i:08d}" for i in range(10)]), "description": cell([f"thing {i}" for i in range(10)])}


def simplenn(plain, *, padded=True, fields="weights", meta=True):
    cells = []
    for name, kind, filters, biases in layers(plain):
        layer = {"name": name, "type": kind}
        if kind == "conv" and fields == "weights":
            pad = 0 if name.startswith("fc") else filters.shape[0] // 2
            layer |= {"weights": cell([filters, biases]), "pad": np.array([[float(pad)]]), "stride": np.array([[1.0]])}
        elif kind == "conv":
            layer |= {"filters": filters, "biases": biases}
        elif kind == "pool":
            pad = [[0.0, 1.0, 0.0, 1.0]] if padded else [[0.0]]
            layer |= {"method": "max", "pool": np.array([[2.0, 2.0]]), "pad": np.array(pad)}
        cells.append(layer)
    about = {"normalization": normalization(image=not meta), "classes": CLASSES}
    return {"layers": cell(cells), **({"meta": about} if meta else about)}


def dagnn(plain, *, padded=True):
    structs, params = [], []
    for name, kind, filters, biases in layers(plain):
        block = {"opts": cell([])}
        names = []
        if kind == "conv":
            names = [f"{name}f", f"{name}b"]
            params += [(names[0], filters), (names[1], biases)]
        elif kind == "pool":
            block = {"poolSize": np.array([[2.0, 2.0]]), "pad": np.array([[0.0, 1, 0, 1] if padded else [0.0] * 4])}
        kinds = {"conv": "dagnn.Conv", "pool": "dagnn.Pooling", "relu": "dagnn.ReLU", "softmax": "dagnn.SoftMax"}
        structs.append((name, kinds[kind], cell(names), block))
    layer_type = [("name", object), ("type", object), ("params", object), ("block", object)]
    return {
        "layers": np.array([structs], dtype=layer_type),
        "params": np.array([params], dtype=[("name", object), ("value", object)]),
        "vars": np.array([[("input",)]], dtype=[("name", object)]),
        "meta": {"normalization": normalization(), "classes": CLASSES},
    }


def expected_logits(tools, plain, pictures):
    x = (pictures - MEAN).transpose(0, 3, 1, 2)
    return plain(x)


@pytest.mark.parametrize("letter", "CDE")
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("layout", ["simplenn", "simplenn, old fields", "dagnn", "dagnn in a variable"])
def test_same_logits_as_the_network_that_was_written(letter, padded, layout, tools, photographs, tmp_path):
    plain = tools.make_plain(letter, ceil=padded)
    old = layout.endswith("old fields")
    if layout.startswith("simplenn"):
        content = simplenn(plain, padded=padded, fields="filters" if old else "weights", meta=not old)
    else:
        content = dagnn(plain, padded=padded)
    savemat(tmp_path / "w.mat", {"net": content} if layout.endswith("variable") else content, oned_as="row")
    net = vd.load(tmp_path / "w.mat")
    assert (net.configuration.name, net.image_size) == (letter, 64)
    assert net.classes[3] == "n00000003 thing 3"
    assert net.preprocessing == vd.Preprocessing(
        mean=tuple(MEAN), interpolation="bicubic", pool_round_up=padded, channel_order="RGB"
    )
    expected = expected_logits(tools, plain, photographs(64))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


def test_ilsvrcs_classes_get_our_names(tools, tmp_path):
    from verydeep.checkpoints.class_names import class_names

    plain = tools.make_plain("D", classes=1000)
    content = simplenn(plain)
    wnids = [name.split()[0] for name in class_names()]
    content["meta"]["classes"] = {"name": cell(wnids), "description": cell([f"x{i}" for i in range(1000)])}
    savemat(tmp_path / "w.mat", content)
    assert vd.load(tmp_path / "w.mat").classes == class_names()
    content["meta"]["classes"]["name"] = cell(wnids[::-1])  # another order is kept as it is
    savemat(tmp_path / "w.mat", content)
    assert vd.load(tmp_path / "w.mat").classes[0] == f"{wnids[-1]} x0"


def write_7_3(path, content):
    """Write what savemat takes as MATLAB does in its format 7.3: HDF5 behind a header of 512 bytes."""
    h5py = pytest.importorskip("h5py", reason="h5py is not installed (make test installs it)")
    with h5py.File(path, "w", userblock_size=512) as file:
        references, numbers = file.create_group("#refs#"), itertools.count()

        def put(parent, name, value):
            if isinstance(value, dict):
                group = parent.create_group(name)
                group.attrs["MATLAB_class"] = np.bytes_("struct")
                for key, item in value.items():
                    put(group, key, item)
            elif isinstance(value, str):
                data = parent.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16))
                data.attrs["MATLAB_class"] = np.bytes_("char")
            elif value.dtype.names:
                group = parent.create_group(name)
                group.attrs["MATLAB_class"] = np.bytes_("struct")
                for key in value.dtype.names:
                    put(group, key, cell([item[key] for item in value.ravel()]))
            elif value.dtype == object:
                places = np.empty((value.size, 1), dtype=h5py.ref_dtype)
                for i, item in enumerate(value.ravel()):
                    key = f"r{next(numbers)}"
                    put(references, key, item)
                    places[i, 0] = references[key].ref
                if value.size:
                    parent.create_dataset(name, data=places).attrs["MATLAB_class"] = np.bytes_("cell")
                else:
                    empty = parent.create_dataset(name, data=np.zeros(2, np.uint64))
                    empty.attrs["MATLAB_class"], empty.attrs["MATLAB_empty"] = np.bytes_("cell"), 1
            else:
                parent.create_dataset(name, data=value.T).attrs["MATLAB_class"] = np.bytes_("single")

        for key, value in content.items():
            put(file, key, value)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


@pytest.mark.parametrize("layout", ["simplenn", "dagnn"])
def test_format_7_3(layout, tools, photographs, tmp_path):
    plain = tools.make_plain("D", ceil=True)
    write_7_3(tmp_path / "w.mat", simplenn(plain) if layout == "simplenn" else dagnn(plain))
    net = vd.load(tmp_path / "w.mat")
    expected = expected_logits(tools, plain, photographs(64))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT
    assert net.classes[3] == "n00000003 thing 3"
    assert net.preprocessing.pool_round_up


def spoil(content, change):
    """Spoil a simplenn network; return what must be said of it."""
    cells = content["layers"]
    place = {layer["name"]: i for i, layer in enumerate(cells[0])}
    if change == "missing layer":
        content["layers"] = np.delete(cells, place["conv3_2"], axis=1)
        return "conv3_2.weight: expected 16 x 16 x 3 x 3, found no such layer"
    if change == "extra layer":
        content["layers"] = np.insert(cells, 9, {**cells[0, place["conv3_2"]], "name": "conv3_7"}, axis=1)
        return "conv3_7, filters: configuration D has no such layer"
    if change == "wrong shape":
        cells[0, place["conv3_2"]]["weights"][0, 0] = np.zeros((3, 3, 5, 16), np.float32)
        return r"conv3_2.weight \(conv3_2, filters in the file\): expected 16 x 16 x 3 x 3, found 16 x 5 x 3 x 3"
    if change == "not a number":
        cells[0, place["fc7"]]["weights"][0, 1] = np.full((1, 24), np.nan, np.float32)
        return r"fc7.bias \(fc7, biases in the file\): expected numbers, found 24 of 24"
    if change == "batch norm":
        content["layers"] = np.insert(cells, 1, {"name": "bn1", "type": "bnorm"}, axis=1)
        return "bn1: is bnorm; expected a ReLU behind conv1_1"
    if change == "no layers":
        del content["layers"]
        return "no network of MatConvNet"
    content["layers"] = cells[:, :4]
    return "has 2 layers with weights; the smallest VGG has 8"


@pytest.mark.parametrize(
    "change",
    ["missing layer", "extra layer", "wrong shape", "not a number", "batch norm", "no layers", "another network"],
)
def test_damage_is_named(change, tools, tmp_path):
    content = simplenn(tools.make_plain("D"))
    said = spoil(content, change)
    savemat(tmp_path / "w.mat", content)
    with pytest.raises(UserError, match=said) as caught:
        vd.load(tmp_path / "w.mat")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.005, 0.5, 0.999])
@pytest.mark.parametrize("form", ["5", "7.3"])
def test_a_file_cut_off(share, form, tools, tmp_path):
    content = simplenn(tools.make_plain("D"))
    if form == "5":
        savemat(tmp_path / "w.mat", content)
    else:
        write_7_3(tmp_path / "w.mat", content)
    data = (tmp_path / "w.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "cut.mat"))):
        vd.load(tmp_path / "cut.mat")


def _set(name, **settings):
    def change(cells):
        next(layer for layer in cells[0] if layer["name"] == name).update(settings)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("conv2_1", pad=np.zeros((1, 4))), "conv2_1: expected pad 1, found 0"),
        (_set("conv2_1", pad=np.array([[0.0, 1, 1, 1]])), "conv2_1: expected pad 1, found 0 above, 1 left, 1 below"),
        (_set("conv2_1", stride=np.array([[2.0, 2.0]])), "conv2_1: expected stride 1, found 2"),
        (
            _set("pool3", method="avg"),
            "pool3: is a pool of method avg .*; expected a 2 x 2 max-pool",
        ),
        (_set("pool3", pool=np.array([[3.0, 3.0]])), "pool3: expected a 2 x 2 max-pool of stride 2, found 3 x 3"),
        (
            _set("relu_conv4_1", leak=np.array([[0.1]])),
            "relu_conv4_1: is relu .leak 0.1.; expected a ReLU",
        ),
        (_set("relu_conv4_1", type="sigmoid"), "relu_conv4_1: is a sigmoid; expected a ReLU behind conv4_1"),
        (_set("relu_fc6", type="tanh"), "relu_fc6: is tanh; expected a ReLU behind fc6"),
    ],
)
def test_another_network_is_refused_by_the_name_of_its_layer(change, said, tools, tmp_path):
    content = simplenn(tools.make_plain("D"))
    change(content["layers"])
    savemat(tmp_path / "w.mat", content)
    with pytest.raises(UserError, match=said):
        vd.load(tmp_path / "w.mat")


def test_a_sigmoid_at_the_end(tools, tmp_path):
    content = simplenn(tools.make_plain("D"))
    _set("prob", type="sigmoid")(content["layers"])
    savemat(tmp_path / "w.mat", content)
    assert vd.load(tmp_path / "w.mat").multi_label


@pytest.mark.large
@pytest.mark.parametrize("letter", "DE")
def test_full_size(letter, tools, photographs, tmp_path):
    """As large as the published files, which SciPy writes and reads."""
    plain = tools.make_plain(letter, width=1, classes=1000, fc=4096, window=7, ceil=True)
    weights = iter([w for name, w, _ in plain.layers() if name == "fc6"])

    def full_layers():
        for name, kind, filters, biases in layers(plain):
            if name == "fc6":
                filters = next(weights).reshape(4096, 512, 7, 7).transpose(2, 3, 1, 0)
            yield name, kind, filters, biases

    cells = []
    for name, kind, filters, biases in full_layers():
        pad = [0.0, 1.0, 0.0, 1.0] if kind == "pool" else [0.0 if name.startswith("fc") else 1.0]
        layer = {"name": name, "type": kind, "pad": np.array([pad])}
        cells.append(layer | ({"weights": cell([filters, biases])} if kind == "conv" else {}))
    savemat(tmp_path / "w.mat", {"layers": cell(cells), "meta": {"normalization": normalization()}})
    expected = expected_logits(tools, plain, photographs(224))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.mat"), photographs(224)), expected) < EXACT
