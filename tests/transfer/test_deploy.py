"""The network that a transfer writes: the classifier that was measured, wherever it is run."""

import copy
import itertools
import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import softmax
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli.main import app
from verydeep.evaluation.heatmap import class_map
from verydeep.images.rescale import rescale
from verydeep.inference.forward import Forward
from verydeep.inference.options import Options
from verydeep.inference.runtime import Runtime
from verydeep.nets.config import DescriptorConfig
from verydeep.nets.run_info import RunInfo
from verydeep.transfer.protocols import find_protocol
from verydeep.transfer.run import deploy, transfer
from verydeep.transfer.work import Settings, Transfer

LAYERS = ("conv3_1", "conv5_1.relu", "pool5", "fc6.relu", "fc7.relu")
SCALES = ((56,), (64, 40, 56))
CHOICES = tuple(
    itertools.product(SCALES, ("mean", "stack", "max"), ("l2", "l2-scales", "l2-whole", "none"), (True, False))
)


@pytest.fixture
def make_classifier(make_net, rng):
    """Networks of four classes whose fc8 is any classifier on any descriptor."""

    def make(layer, scales=(40, 56), aggregate="mean", normalize="l2", flip=True, **options):
        net = make_net(**options)
        about = DescriptorConfig(scales, aggregate, flip, normalize, float(rng.uniform(2, 5)))
        trunk = None if layer == "fc7.relu" else layer
        new = type(net)(replace(net.config, trunk=trunk, descriptor=about))
        with torch.no_grad():
            for name, tensor in new.state_dict().items():
                if not name.startswith("fc8"):
                    tensor.copy_(net.state_dict()[name])
            size = 200 if normalize == "none" else 1  # about that of the features
            new.fc8.weight.copy_(torch.from_numpy(rng.normal(0, 1 / size, new.fc8.weight.shape)))
            new.fc8.bias.copy_(torch.from_numpy(rng.normal(size=4)))
        return new.eval()

    return make


def features(net, picture):
    """The map that fc8's descriptor is made of, in float64: h x w x C."""
    exact = copy.deepcopy(net).double()
    x = net.preprocessing(torch.from_numpy(np.ascontiguousarray(picture))[None]).double()
    return exact.activations(x, net.config.described)[0].permute(1, 2, 0).detach().numpy()


def for_one_view(net):
    """The weights and biases for a view that stands in for every scale, in float64."""
    about = net.config.descriptor
    weights = net.fc8.weight.detach().double().numpy()[:, :, 0, 0]
    blocks = weights.reshape(4, about.copies, -1).sum(axis=1)
    halves = np.sqrt(about.copies) if about.normalize in ("l2", "l2-whole") else 1
    return blocks / halves, net.fc8.bias.detach().double().numpy()


def norm(values):
    return np.linalg.norm(values.mean(axis=(0, 1)))


def assert_close(found, wanted, tolerance=1e-4):
    assert np.abs(np.asarray(found) - wanted).max() <= tolerance * np.abs(wanted).max()


def assert_measured(found, measured, words=""):
    """Equal to 1e-5, or to what float32 leaves of scores that are a hundred apart, as those of a sure classifier."""
    apart = np.ptp(np.log(np.maximum(measured, 1e-38)), axis=-1).max()
    np.testing.assert_allclose(found, measured, rtol=0, atol=max(1e-5, 1e-6 * apart), err_msg=words)


def measure(weights, data, settings, folder):
    """Do what `transfer` does but for the report, by the engine that predict takes; return what came out."""
    work = Transfer(weights, str(data), find_protocol("folder"), settings, folder / "kept", Runtime("cpu", "torch"))
    outcome = work.classify(work.describe()["image"], work.splits[0])
    return work.posteriors(outcome), deploy(work, folder, outcome), outcome.metrics["merit"]


@pytest.mark.parametrize("layer", LAYERS)
def test_predict_gives_the_posteriors_that_were_measured(colors, weights, tmp_path, rng, layer):
    for number in rng.choice(len(CHOICES), 6, replace=False).tolist():
        scales, aggregate, normalize, flip = CHOICES[number]
        settings = Settings(layer, scales, aggregate, flip, normalize, ("svm", "logistic")[number % 2])
        measured, (made,), _ = measure([weights], colors, settings, tmp_path)
        assert made["protocol"] == f"descriptor@{','.join(map(str, sorted(scales)))}"
        for name, row in list(zip(measured.ids, measured.probabilities, strict=True))[::4]:
            found = vd.predict(tmp_path / made["file"], colors / name)
            assert str(found.protocol) == made["protocol"]
            assert_measured(found.posterior, row, f"{settings}")


def test_the_commands_give_them_too(colors, weights, tmp_path):
    out, kept, file = tmp_path / "T", tmp_path / "E", tmp_path / "T" / "classifier.safetensors"

    def run(*words):
        result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    words = ("--layer", "conv5_1.relu", "--scales", "40,64", "--aggregate", "stack")
    text = run("transfer", "--weights", weights, "--data", colors, *words, "--out", out)
    assert "classifier.safetensors (A, conv5_1.relu, descriptor@40,64)" in text
    measured = vd.Posteriors.read(out / "posteriors-1.parquet")
    assert "descriptor@40,64" in run("evaluate", file, "--data", colors, "--out", kept)
    evaluated = vd.Posteriors.read(kept / "descriptor@40,64.parquet").rows(measured.ids)
    assert_measured(evaluated.probabilities, measured.probabilities)
    assert evaluated.labels.tolist() == measured.labels.tolist()
    result = json.loads((out / "result.json").read_text())
    assert result["no_network"] is None
    assert result["deployed"][0]["merit"] == result["systems"][0]["splits"][0]["merit"]
    picture = colors / "red" / "00.png"
    assert "where.png" in run("predict", picture, "--weights", file, "--heatmap", tmp_path / "where.png")
    if find_spec("zarr"):
        assert "16 pixels every 16" in run("scoremap", picture, "--weights", file, "--out", tmp_path / "map.zarr")
    exported = run("export", file, "--format", "torch", "--out", tmp_path / "c.pt2")
    assert "one view" in exported
    assert "scales 40,64 and the mirror image" in exported
    # A folder that an earlier version left without a network.
    del result["no_network"]
    (out / "result.json").write_text(json.dumps({**result, "deployed": []}))
    text = run("transfer", "--weights", weights, "--data", colors, *words, "--out", out)
    assert "no network, no file: an earlier version wrote this folder" in text


@pytest.mark.parametrize("layer", LAYERS)
def test_one_view_is_a_linear_map_divided_by_the_pictures_norm(make_classifier, pictures, rng, layer):
    for scales, aggregate, normalize in (
        ((40, 56), "stack", str(rng.choice(["l2", "l2-whole"]))),
        ((40, 56, 64), "stack", str(rng.choice(["l2-scales", "none"]))),
        ((40, 56), str(rng.choice(["mean", "max"])), str(rng.choice(["l2", "l2-scales"]))),
        ((56,), "mean", "none"),
    ):
        net = make_classifier(layer, scales, aggregate, normalize, batch_norm=bool(rng.integers(2)))
        weights, biases = for_one_view(net)
        forward = Forward(net, Options(), Runtime("cpu", "torch", 2**28))
        picture, heat = class_map(forward, pictures[0], 64, 2)
        values = features(net, picture)
        length = norm(values) if normalize != "none" else 1
        wanted = values / length @ weights.T + biases
        assert_close(heat, wanted[:, :, 2])
        assert_close(heat.mean(), wanted[:, :, 2].mean())
        mirrored = features(net, picture[:, ::-1]).mean(axis=(0, 1))
        mirrored = mirrored / (np.linalg.norm(mirrored) if normalize != "none" else 1) @ weights.T + biases
        dense = np.mean([softmax(wanted.mean(axis=(0, 1))), softmax(mirrored)], axis=0)
        np.testing.assert_allclose(vd.predict(net, pictures[0], "dense@64").posterior, dense, atol=1e-4)
        x = net.preprocessing(torch.from_numpy(picture)[None])
        with torch.no_grad():
            assert_close(net.score_map(x)[0].permute(1, 2, 0), wanted)
            assert_close(net.one_view().score_map(x)[0].permute(1, 2, 0), wanted)
            assert_close(vd.compile_cpu(net).score_map(x)[0].permute(1, 2, 0), wanted)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("aggregate", ["mean", "stack"])
def test_a_score_map_is_linear_with_the_training_pictures_norm(make_classifier, pictures, layer, aggregate, rng):
    normalize = str(rng.choice(["l2", "l2-scales", "none"]))
    net = make_classifier(layer, aggregate=aggregate, normalize=normalize)
    weights, biases = for_one_view(net)
    length = net.config.descriptor.norm if normalize != "none" else 1
    wanted = features(net, pictures[0]) / length @ weights.T + biases
    found = vd.score_map(pictures[0], net, softmax=False)
    assert_close(found.levels[0].values, wanted.transpose(2, 0, 1), 1e-5)
    assert (found.levels[0].stride, found.levels[0].window) == (net.stride, net.window)
    posteriors = vd.score_map(pictures[0], net).levels[0].values
    np.testing.assert_allclose(posteriors, softmax(found.levels[0].values, axis=0), atol=1e-5)


def test_the_norm_in_the_file_is_the_mean_over_the_training_pictures(colors, weights, tmp_path):
    measure([weights], colors, Settings("pool5", (40, 64), "stack"), tmp_path)
    files = [colors / s.id for split in ("train", "val") for s in vd.open_dataset(colors, split).samples]
    rows = [vd.Descriptor(weights, "pool5", (scale,), normalize="none").transform(files) for scale in (40, 64)]
    about = vd.load(tmp_path / "classifier.safetensors").config.descriptor
    assert about.norm == pytest.approx(np.linalg.norm(rows, axis=2).mean(), rel=1e-5)
    assert (about.scales, about.aggregate, about.flip, about.normalize) == ((40, 64), "stack", True, "l2")


@pytest.mark.parametrize(("layer", "aggregate"), [("conv4_1.relu", "stack"), ("pool5", "max"), ("fc7.relu", "stack")])
@pytest.mark.parametrize("several", [False, True])
def test_an_onnx_file_gives_what_the_network_gives_for_one_view(
    make_classifier, pictures, tmp_path, layer, aggregate, several
):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    net = make_classifier(layer, aggregate=aggregate)
    net.provenance = RunInfo(multi_label=several)
    weights, biases = for_one_view(net)
    done = vd.export(net, "onnx", tmp_path / "c.onnx", raw_input=True)
    assert "mirror image" in done.left_out
    posteriors, score_map = onnxruntime.InferenceSession(str(done.files[0])).run(None, {"images": pictures[1][None]})
    values = features(net, pictures[1])
    wanted = values / norm(values) @ weights.T + biases
    assert_close(score_map[0].transpose(1, 2, 0), wanted)
    scores = wanted.mean(axis=(0, 1))
    expected = 1 / (1 + np.exp(-scores)) if several else softmax(scores)
    np.testing.assert_allclose(posteriors[0], expected, atol=1e-4)


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_every_format_holds_it_in_half_precision(make_classifier, tmp_path, format):
    if format != "torch":
        pytest.importorskip({"onnx": "onnxruntime"}.get(format, format), reason=f"{format} is not installed")
    suffix = {"onnx": "onnx", "openvino": "xml", "torch": "pt2"}[format]
    inputs = vd.Preprocessing(std=(60.0, 60.0, 60.0))  # so that activations are of a size that float16 holds
    net = make_classifier("conv5_1.relu", aggregate="stack", preprocessing=inputs)
    done = vd.export(net, format, tmp_path / f"c.{suffix}", precision="fp16", tolerance=0.05)
    assert all(np.isfinite(found.scores) for found in done.comparisons)


def test_a_picture_without_features_has_the_biases_for_scores(make_classifier):
    net = make_classifier("conv5_1.relu")
    net.conv5_1.bias.data.fill_(-1e6)
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.zeros(1, 3, 64, 64))[0], net.fc8.bias.detach(), rtol=1e-6)


def test_files_of_before_predict_as_before(make_net, pictures, tmp_path):
    """Their fc8 is a plain one, tested by `dense` evaluation at the middle of the scales."""
    net = make_net()
    net.provenance = RunInfo.from_dict({"train_scales": [64, 96], "recipe": "transfer", "test_protocol": "dense@64,96"})
    vd.save(net, tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["verydeep"])
    assert about["format_version"] == 1
    about = {key: value for key, value in about.items() if key not in ("trunk", "descriptor")}
    save_file(net.state_dict(), tmp_path / "old.safetensors", metadata={"verydeep": json.dumps(about)})
    found = vd.predict(tmp_path / "old.safetensors", pictures[0])
    assert str(found.protocol) == "dense@80"
    exact, view = copy.deepcopy(net).double(), rescale(pictures[0], 80)
    x = net.preprocessing(torch.from_numpy(np.stack([view, view[:, ::-1]]))).double()
    with torch.no_grad():
        np.testing.assert_allclose(found.posterior, exact(x).softmax(dim=1).mean(dim=0), atol=1e-4)


def test_a_file_is_read_as_it_was_written_and_by_no_version_that_would_misread_it(make_classifier, pictures, tmp_path):
    net = make_classifier("conv5_1.relu", aggregate="stack", normalize="l2-scales", flip=False)
    vd.save(net, tmp_path / "c.safetensors")
    loaded = vd.load(tmp_path / "c.safetensors")
    assert loaded.config == net.config
    with safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["verydeep"])["format_version"] == 2
    np.testing.assert_array_equal(vd.predict(loaded, pictures[0]).posterior, vd.predict(net, pictures[0]).posterior)


def test_of_two_networks_each_gets_the_classifier_of_its_own_descriptor(colors, weights, make_net, tmp_path):
    vd.save(make_net("B", fc_width=16, trunk="pool5", classes=()), tmp_path / "b.safetensors")
    names, settings = [weights, tmp_path / "b.safetensors"], Settings(scales=(40, 64))
    _, both, _ = measure(names, colors, settings, tmp_path)
    assert [made["system"] for made in both] == ["A, fc7.relu", "B, conv5_2.relu"]
    assert [made["file"] for made in both] == ["classifier-1.safetensors", "classifier-2.safetensors"]
    for made, name in zip(both, names, strict=True):
        measured, _, merit = measure([name], colors, settings, tmp_path)
        assert made["merit"] == merit
        found = vd.evaluate(tmp_path / made["file"], vd.open_dataset(colors, "test"))
        assert_measured(found.rows(measured.ids).probabilities, measured.probabilities)


def test_a_trunk_is_described_by_its_last_relu_and_serves_as_one_again(colors, make_net, tmp_path):
    file = tmp_path / "d.safetensors"
    vd.save(make_net("D", trunk="pool5", classes=()), file)
    measured, (made,), _ = measure([file], colors, Settings(scales=(48,)), tmp_path)
    assert made["system"] == "D, conv5_3.relu"
    net = vd.load(tmp_path / made["file"])
    assert (net.config.trunk, net.stride, net.layer_names[-2:]) == ("conv5_3.relu", 16, ("conv5_3.relu", "fc8"))
    again, _, _ = measure([tmp_path / made["file"]], colors, Settings(scales=(48,)), tmp_path)
    assert_measured(again.probabilities, measured.probabilities)
    assert vd.Descriptor(file, scales=(48,)).get_feature_names_out()[0] == "conv5_3.relu@48_0"


@pytest.mark.parametrize(
    ("net", "settings", "said"),
    [
        (True, Settings("fc8", (64,)), "a classifier on fc8, the scores of other classes, has no place"),
        (True, Settings(scales=(64,), baseline="random"), "baseline random is there to compare with"),
        (False, Settings(baseline="pixels"), "baseline pixels is there to compare with"),
    ],
)
def test_where_there_is_no_file_the_reason_is_said(colors, weights, tmp_path, net, settings, said):
    out = tmp_path / "T"
    result = transfer([weights] if net else [], str(colors), "folder", out, settings)
    assert result["deployed"] == []
    assert said in result["no_network"]
    assert f"no network, no file: {said}" in (out / "report.html").read_text()
    assert not list(out.glob("*.safetensors"))


def test_other_networks_refuse_the_protocol_and_these_what_does_not_fit(make_net, make_classifier, pictures, colors):
    with pytest.raises(UserError, match="descriptor@64: is for networks that verydeep transfer made") as caught:
        vd.predict(make_net(), pictures[0], "descriptor@64")
    assert "\n" not in str(caught.value)
    plain = make_net(classes=("blue", "green", "red"))
    with pytest.raises(UserError, match="is for networks that verydeep transfer made"):
        vd.evaluate(plain, vd.open_dataset(colors, "test"), "descriptor@64")
    stacked = make_classifier("pool5", aggregate="stack")
    with pytest.raises(UserError, match=r"2 scales stacked; give as many, as in descriptor@40,56"):
        vd.predict(stacked, pictures[0], "descriptor@64")
    with pytest.raises(UserError, match="softmax and pool are about scores of places"):
        vd.predict(stacked, pictures[0], options=Options(softmax="location"))
    with pytest.raises(UserError, match="scale 10 is too small for this network's whole pictures"):
        vd.predict(make_classifier("fc6.relu"), pictures[0], "descriptor@10,40")
    averaged = make_classifier("pool5")
    assert vd.predict(averaged, pictures[0], "descriptor@64,70,80").posterior.sum() == pytest.approx(1, abs=1e-5)


def test_projects_that_have_no_such_network_are_not_written(make_classifier, tmp_path):
    from verydeep.checkpoints.writing import write

    for layer in ("pool5", "fc7.relu"):
        with pytest.raises(UserError, match=f"classifier on descriptors of {layer}; verydeep export writes it"):
            write(make_classifier(layer), tmp_path / "c.pth", "torchvision")
    assert not list(tmp_path.iterdir())


def test_settings_that_make_no_descriptor_are_refused():
    for values in (((),), ((64, 40),), ((64, 64),), ((0, 64),), ((64,), "sum"), ((64,), "mean", True, "l3")):
        with pytest.raises(UserError):
            DescriptorConfig(*values)
    with pytest.raises(UserError, match="norm is 0"):
        DescriptorConfig((64,), norm=0.0)
    net = vd.create("A", 0, width=1 / 16, image_size=64, trunk="pool5")
    with pytest.raises(UserError, match="this network has none"):
        replace(net.config, descriptor=DescriptorConfig((64,)))
