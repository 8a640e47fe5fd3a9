"""torchvision's and timm's files, judged by plain torch networks under their names, and by their own code."""

import pickle
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import verydeep as vd
from tests.conftest import SEED
from verydeep.basics.errors import UserError
from verydeep.checkpoints.writing import write

EXACT = 1e-4


@pytest.mark.parametrize("letter", "ABDE")
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_same_logits_as_the_network_that_wrote_the_file(letter, batch_norm, ending, tools, photographs, tmp_path):
    plain = tools.make_plain(letter, batch_norm=batch_norm)
    path = tmp_path / f"w{ending}"
    (save_file if ending == ".safetensors" else torch.save)(plain.state, path)
    net = vd.load(path)
    pictures = photographs(64)
    assert (net.configuration.name, net.batch_norm, len(net.classes)) == (letter, batch_norm, 10)
    assert net.image_size == 64
    expected = plain(tools.prepare(pictures, "torchvision"))
    assert tools.relative_error(tools.logits(net, pictures), expected) < EXACT
    assert net.provenance.format == "torchvision"
    assert not net.preprocessing.pool_round_up


def test_pictures_of_another_size_are_pooled_as_there(tools, tmp_path):
    plain = tools.make_plain("D")
    torch.save(plain.state, tmp_path / "w.pth")
    net = vd.load(tmp_path / "w.pth")
    x = torch.randn(2, 3, 79, 93)  # sides that rounding up would make larger; both give a map of 2 x 2
    with torch.no_grad():
        assert tools.relative_error(net.score_map(x)[:, :, 0, 0], plain(x)) < EXACT


@pytest.mark.parametrize("wrapping", ["state_dict", "model", "module", "float16", "legacy"])
def test_the_usual_wrappings(wrapping, tools, photographs, tmp_path):
    plain = tools.make_plain("A", batch_norm=True)
    state = plain.state
    if wrapping in ("state_dict", "model"):
        state = {wrapping: state, "epoch": 3}
    elif wrapping == "module":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrapping == "float16":
        plain.net.half().float()
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in plain.state.items()}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=wrapping != "legacy")
    expected = plain(tools.prepare(photographs(64), "torchvision"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.pth"), photographs(64)), expected) < EXACT


@pytest.mark.parametrize(
    "tool", ["_orig_mod.", "model.", "backbone.", "module.features", "old batch norm", "no bias", "counters", "1, 4, 6"]
)
def test_names_that_peoples_tools_give(tool, tools, photographs, tmp_path):
    plain = tools.make_plain("A", batch_norm=tool in ("old batch norm", "no bias"))
    if tool == "no bias":
        for module in plain.net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.bias.data.zero_()
    state = dict(plain.state)
    if tool.endswith("."):
        state = {tool + name: tensor for name, tensor in state.items()}
    elif tool == "module.features":
        state = {name.replace("features.", "features.module."): tensor for name, tensor in state.items()}
    elif tool == "old batch norm":
        state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    elif tool == "no bias":
        bare = {f"{name}.bias" for name, module in plain.net.named_modules() if isinstance(module, torch.nn.Conv2d)}
        state = {name: tensor for name, tensor in state.items() if name not in bare}
    elif tool == "counters":
        state["features.0.total_ops"] = torch.zeros(1)
    else:
        shift = {"classifier.0": "classifier.1", "classifier.3": "classifier.4"}
        state = {shift.get(name[:12], name[:12]) + name[12:]: tensor for name, tensor in state.items()}
    torch.save({"model_state_dict": state, "epoch": 3}, tmp_path / "w.pth")
    expected = plain(tools.prepare(photographs(64), "torchvision"))
    assert tools.relative_error(tools.logits(vd.load(tmp_path / "w.pth"), photographs(64)), expected) < EXACT


def test_caffes_weights_under_torchvisions_names(tools, photographs, tmp_path):
    plain = tools.make_plain("D", ceil=True)
    torch.save(plain.state, tmp_path / "w.pth")
    net = vd.load(tmp_path / "w.pth", preprocessing="caffe")
    expected = plain(tools.prepare(photographs(64), "caffe"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT
    with pytest.raises(UserError, match=r"preprocessing is 'tf', expected one of torchvision, timm, caffe, keras"):
        vd.load(tmp_path / "w.pth", preprocessing="tf")


def test_class_names(tools, tmp_path):
    torch.save(tools.make_plain("A", classes=1000).state, tmp_path / "w.pth")
    net = vd.load(tmp_path / "w.pth")
    assert (net.classes[0], net.classes[999], len(set(net.classes))) == ("n01440764 tench", net.classes[-1], 1000)
    assert net.classes == tuple(sorted(net.classes))
    torch.save(tools.make_plain("A", classes=3).state, tmp_path / "w.pth")
    assert vd.load(tmp_path / "w.pth").classes == ("0", "1", "2")
    assert vd.load(tmp_path / "w.pth", classes=["a", "b", "c"]).classes == ("a", "b", "c")
    with pytest.raises(UserError, match="has 3 classes, and 2 class names are given"):
        vd.load(tmp_path / "w.pth", classes=["a", "b"])


def test_arguments_of_a_script_beside_the_tensors(tools, tmp_path):
    torch.save({"model": tools.make_plain("A").state, "args": Namespace(lr=0.1)}, tmp_path / "w.pth")
    assert vd.load(tmp_path / "w.pth").configuration.name == "A"


def test_numbers_of_numpy_beside_the_tensors(tools, tmp_path):
    best = {"best": np.float64(0.7), "epoch": np.int64(3), "seen": np.float32(1.5)}
    torch.save({"state_dict": tools.make_plain("A").state, **best}, tmp_path / "w.pth")
    assert vd.load(tmp_path / "w.pth").configuration.name == "A"


@pytest.mark.filterwarnings("ignore")
def test_quantized_tensors_are_named(tools, tmp_path):
    state = dict(tools.make_plain("A").state)
    state["features.0.weight"] = torch.quantize_per_tensor(state["features.0.weight"], 0.1, 0, torch.qint8)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"features\.0\.weight: holds 8-bit numbers"):
        vd.load(tmp_path / "w.pth")


class _Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(zipped, tools, tmp_path):
    state = {**tools.make_plain("A").state, "features.0.weight": _Code(tmp_path / "ran")}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="holds Python objects beside tensors, which are never loaded"):
        vd.load(tmp_path / "w.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(_Code(tmp_path / "ran")))
    with pytest.raises(UserError):
        vd.load(tmp_path / "bare.pth")
    assert not (tmp_path / "ran").exists()


def test_a_packed_list_without_end(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + b"N0" * 2**24)
    with pytest.raises(UserError, match="is damaged: its list of tensors claims 33,554,434 bytes"):
        vd.load(tmp_path / "w.pth")


def test_other_pickles_are_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds a Tensor; expected a dictionary of tensors"):
        vd.load(tmp_path / "w.pth")
    torch.save({"a": 1}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="'a' is no tensor"):
        vd.load(tmp_path / "w.pth")
    torch.save({"features.0.weight": torch.zeros(1).expand(2**40, 3, 3, 3)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="claims more values than the file holds"):
        vd.load(tmp_path / "w.pth")


@pytest.mark.parametrize("style", ["torchvision", "timm"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_there_and_back_is_the_same(style, ending, batch_norm, tmp_path, same_network):
    net = vd.create(
        "B", list("äbc"), width=1 / 3, batch_norm=batch_norm, image_size=64, fc_width=24, dropout=0.25,
        preprocessing=vd.Preprocessing(mean=(1.0, 2.0, 3.0)),
    )  # fmt: skip
    write(net, tmp_path / f"w{ending}", style)
    same_network(net, vd.load(tmp_path / f"w{ending}"))
    (tmp_path / "usual").touch()
    assert (tmp_path / f"w{ending}").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_plain_network_loads_what_is_written(tools, photographs, tmp_path):
    net = vd.create("E", 10, width=1 / 16, batch_norm=True, image_size=64, fc_width=24, initialization="he").eval()
    net.preprocessing = vd.Preprocessing(pool_round_up=False)
    write(net, tmp_path / "w.pth", "torchvision")
    plain = tools.make_plain("E", batch_norm=True)
    plain.net.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    expected = plain(tools.prepare(photographs(64), "rgb"))
    assert tools.relative_error(tools.logits(net, photographs(64)), expected) < EXACT


def test_what_cannot_be_written(tmp_path):
    net = vd.create("C", 3, width=1 / 64, image_size=32, fc_width=8)
    with pytest.raises(UserError, match="torchvision has no configuration C; its VGGs are A, B, D and E"):
        write(net, tmp_path / "w.pth", "torchvision")
    net = vd.create("A", 3, width=1 / 64, image_size=32, fc_width=8)
    with pytest.raises(UserError, match=r"must end in \.pth or \.safetensors"):
        write(net, tmp_path / "w.h5", "timm")
    with pytest.raises(UserError, match="no format 'tf' to write"):
        write(net, tmp_path / "w.h5", "tf")
    assert not list(tmp_path.iterdir())


def test_timms_own_network(tools, photographs, peers, tmp_path):
    """timm's own class, its first layers narrow; its head is always 7 x 7 and 4096 wide."""
    timm_vgg = peers.timm.models.vgg
    cfg = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
    theirs = timm_vgg.VGG(cfg, num_classes=10, norm_layer=torch.nn.BatchNorm2d).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    net = vd.load(tmp_path / "w.pth")
    assert net.provenance.format == "timm"
    assert net.configuration.name == "D"
    x = torch.from_numpy(tools.prepare(photographs(224)[:4], "torchvision")).float()
    with torch.no_grad():
        assert tools.relative_error(tools.logits(net, photographs(224)[:4]), theirs(x)) < EXACT
        large = torch.randn(1, 3, 256, 288)  # timm averages the same map of scores
        assert tools.relative_error(net(large), theirs(large)) < EXACT
    write(net, tmp_path / "back.safetensors", "timm")
    again = timm_vgg.VGG(cfg, num_classes=10, norm_layer=torch.nn.BatchNorm2d)
    peers.timm.models.load_checkpoint(again, str(tmp_path / "back.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


@pytest.mark.large
@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"])
@pytest.mark.parametrize("project", ["torchvision", "timm"])
def test_full_size(name, project, tools, photographs, peers, tmp_path):
    """Their network, their transforms, twenty photographs; and what we write, they load and say the same."""
    torch.manual_seed(int(np.random.default_rng(SEED).integers(2**31)))
    if project == "torchvision":
        theirs = getattr(peers.torchvision.models, name)()
        transforms = getattr(peers.torchvision.models, f"{name.upper()}_Weights").DEFAULT.transforms()
    else:
        theirs = peers.timm.create_model(name)
        transforms = peers.timm.data.create_transform(**peers.timm.data.resolve_data_config(model=theirs))
    theirs.eval()
    pictures = photographs(256)
    from PIL import Image

    x = torch.stack([transforms(Image.fromarray(picture)) for picture in pictures])
    with torch.no_grad():
        expected = theirs(x).numpy()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    net = vd.load(tmp_path / "w.pth")
    center = np.ascontiguousarray(pictures[:, 16:240, 16:240])
    assert tools.relative_error(tools.logits(net, center), expected) < EXACT
    write(net, tmp_path / "back.pth", project)
    theirs.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    with torch.no_grad():
        assert np.array_equal(theirs(x).numpy(), expected)


HEADS = {
    "two": lambda n: nn.Sequential(nn.Linear(n, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5)),
    "two without dropout": lambda n: nn.Sequential(nn.Linear(n, 20), nn.ReLU(), nn.Linear(20, 5)),
    "one": lambda n: nn.Linear(n, 5),
    "one in a chain": lambda n: nn.Sequential(nn.Dropout(), nn.Linear(n, 5)),
    "batch norm before the ReLU": lambda n: nn.Sequential(
        nn.Linear(n, 20, bias=False), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 5)
    ),
    "batch norm behind the ReLU": lambda n: nn.Sequential(
        nn.Linear(n, 20), nn.ReLU(), nn.BatchNorm1d(20), nn.Dropout(), nn.Linear(20, 5)
    ),
    "four": lambda n: nn.Sequential(
        nn.Linear(n, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)
    ),
}


def fine_tuned(head, name="classifier"):
    """A narrow VGG-A as torchvision writes it, for images of 64, with somebody's own head."""
    before, layers = 3, []
    for full, depth in ((4, 1), (8, 1), (16, 2), (32, 2), (32, 2)):
        for _ in range(depth):
            layers += [nn.Conv2d(before, full, 3, padding=1), nn.ReLU()]
            before = full
        layers.append(nn.MaxPool2d(2))
    net = nn.Module()
    net.features = nn.Sequential(*layers)
    setattr(net, name, head(before * 4))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("name", ["classifier", "fc"])
def test_heads_of_other_lengths(kind, name, photographs, tmp_path):
    theirs = fine_tuned(HEADS[kind], name)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    net = vd.load(tmp_path / "w.pth")
    x = net.preprocessing(torch.from_numpy(photographs(64)))
    with torch.no_grad():
        expected = getattr(theirs, name)(theirs.features(x).flatten(1))
        torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lost", ["classifier.0", "classifier.3", "classifier.6"])
def test_a_lost_layer_is_no_other_head(lost, tmp_path):
    whole = fine_tuned(lambda n: nn.Sequential(nn.Linear(n, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 20), nn.ReLU(),
                                               nn.Dropout(), nn.Linear(20, 5)))  # fmt: skip
    state = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith(lost)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="found no such layer"):
        vd.load(tmp_path / "w.pth")
