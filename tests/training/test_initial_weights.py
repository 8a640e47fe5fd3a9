"""Fine-tuning: what is frozen stays to the bit, what is reset is new, and every layer has the rate it was given."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

import verydeep as vd
from tests.conftest import SEED
from verydeep.basics.errors import UserError
from verydeep.cli import train as command
from verydeep.nets.config import DescriptorConfig
from verydeep.nets.families import with_random_weights
from verydeep.nets.run_info import RunInfo
from verydeep.training.initial_weights import fit_new_layers, recipe_from
from verydeep.training.recipe import load_recipe
from verydeep.training.step import layer_factors, make_optimizer, set_training

STANDING = ["--set", "optimizer.learning_rate=1e-20"]  # all losses are then the first one
SHORT = ["--set", "schedule.epochs=2", "--set", "schedule.least_steps=0", "--set", "optimizer.batch_size=8"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    net = vd.create("A", list("abcde"), width=1 / 32, batch_norm=True, image_size=32, fc_width=8, seed=2)
    net.bn1_1.running_mean.fill_(3.0)
    net.provenance = RunInfo(train_scales=(32, 40))
    vd.save(net, tmp_path / "source.safetensors")
    return tmp_path / "source.safetensors"


def run(*words: str) -> None:
    app = Typer()
    app.command()(command.train)
    result = CliRunner().invoke(app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def test_only_what_is_not_frozen_changes(source: Path, colors: Path, tmp_path: Path) -> None:
    words = ["--init-from", str(source), "--data", str(colors), "--out", str(tmp_path / "run")]
    run(*words, "--reset", "fc8", "--freeze", "conv", *SHORT)
    before, after = vd.load(source), vd.load(tmp_path / "run" / "best.safetensors")
    assert after.classes == ("blue", "green", "red")
    assert (after.width, after.batch_norm, after.preprocessing) == (before.width, True, before.preprocessing)
    assert after.provenance.train_scales == (32, 40)
    for name, tensor in before.state_dict().items():
        if name.startswith(("conv", "bn")):  # with the running statistics of batch norm
            assert torch.equal(tensor, after.state_dict()[name]), name
        elif name.endswith("weight") and not name.startswith("fc8"):
            assert not torch.equal(tensor, after.state_dict()[name]), name
            torch.testing.assert_close(tensor, after.state_dict()[name], atol=0.2, rtol=0)  # begun from the source


def test_without_freezing_everything_learns(source: Path, colors: Path, tmp_path: Path) -> None:
    words = ["--init-from", str(source), "--data", str(colors), "--out", str(tmp_path / "run")]
    run(*words, "--reset", "fc8", *SHORT)
    before, after = vd.load(source).state_dict(), vd.load(tmp_path / "run" / "best.safetensors").state_dict()
    assert not torch.equal(before["conv1_1.weight"], after["conv1_1.weight"])
    assert not torch.equal(before["bn1_1.running_mean"], after["bn1_1.running_mean"])


def test_a_steps_length_follows_the_layers_factor() -> None:
    net = vd.create("A", 3, width=1 / 32, batch_norm=True, image_size=32, fc_width=8, seed=1)
    factors = {"conv": 0.1, "conv1": 0.0, "fc8": 10.0}
    words = [f"optimizer.layer_learning_rates.{name}={value}" for name, value in factors.items()]
    settings = load_recipe("paper-s256", [*words, "optimizer.weight_decay=0", "optimizer.momentum=0"]).optimizer
    found = layer_factors(net, settings)
    assert (found["conv1_1"], found["bn1_1"], found["conv2_1"], found["bn2_1"]) == (0.0, 0.0, 0.1, 0.1)
    assert (found["fc6"], found["fc8"]) == (1.0, 10.0)
    optimizer = make_optimizer(net, settings)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * group["multiplier"]
    optimizer.step()
    for name, parameter in net.named_parameters():
        wanted = settings.learning_rate * found[name.split(".")[0]]
        np.testing.assert_allclose((before[name] - parameter.detach()).numpy(), wanted, rtol=1e-3, atol=1e-7)


def test_frozen_batch_norm_is_not_in_training_mode() -> None:
    net = vd.create("A", 3, width=1 / 32, batch_norm=True, image_size=32, fc_width=8, seed=1)
    make_optimizer(net, load_recipe("paper-s256", ["optimizer.layer_learning_rates.conv1=0"]).optimizer)
    set_training(net)
    assert (net.bn1_1.training, net.bn2_1.training, net.drop6.training) == (False, True, True)


def test_the_recipe_takes_the_sources_shape(source: Path) -> None:
    changes = ['initialization.reset=["fc8"]', "optimizer.layer_learning_rates.conv=0"]
    recipe = recipe_from(vd.load(source), "finetune", changes)
    assert (recipe.network.width, recipe.network.image_size, recipe.network.batch_norm) == (1 / 32, 32, True)
    assert recipe.images.scales == (32, 40)
    assert recipe.initialization.reset == ("fc8",)
    assert recipe.optimizer.layer_learning_rates == {"conv": 0.0, "fc8": 10.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--init-from", "SOURCE"], "must be the same, or --reset fc8"),
        (["--init-from", "SOURCE", "--reset", "fc8", "--reset", "fc9"], "no such layer"),
        (["--init-from", "SOURCE", "--reset", "fc8", "--freeze", "cov"], "no layer that begins with 'cov'"),
        (["--init-from", "SOURCE", "--reset", "fc8", "--freeze", "conv", "--freeze", "fc"], "freezes every layer"),
        (["--reset", "fc8", "--net", "A"], "--reset and --freeze need --init-from"),
        ([], "--net: a configuration is needed"),
    ],
)
def test_wrong_requests(source: Path, colors: Path, tmp_path: Path, words: list[str], said: str) -> None:
    words = [str(source) if word == "SOURCE" else word for word in words]
    shape = ["--set", "network.width=0.03125", "--set", "network.image_size=32", "--set", "network.fc_width=8"]
    shape += ["--set", "network.batch_norm=true", "--set", "images.scales=[32, 40]"]
    if "--freeze" in words and "fc" in words:
        shape += ["--set", "optimizer.layer_learning_rates.fc8=0"]
    with pytest.raises(UserError, match=said):
        run(*words, "--data", str(colors), "--out", str(tmp_path / "run"), *shape)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("reset", [("fc8",), ("fc6", "fc7", "fc8")])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_first_loss_is_that_of_guessing_whatever_the_trunk_gives(
    reset: tuple[str, ...], size: float, colors: Path, tmp_path: Path
) -> None:
    net = vd.create("A", list("abcde"), width=1 / 16, image_size=32, fc_width=64, initialization="he", seed=2)
    with torch.no_grad():
        net.conv5_2.weight.mul_(size)  # as activations of pictures in 0 to 255 are, or of those in 0 to 1
    net.provenance = RunInfo(train_scales=(32, 40))
    vd.save(net, tmp_path / "source.safetensors")
    words = ["--init-from", str(tmp_path / "source.safetensors"), "--data", str(colors), "--out", str(tmp_path / "run")]
    run(*words, *(word for name in reset for word in ("--reset", name)), "--freeze", "conv", *SHORT, *STANDING)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["train_loss"] for line in lines if line["kind"] == "epoch"]
    assert losses[0] == pytest.approx(np.log(3), rel=1e-3)


def test_new_layers_begin_with_guessing_to_the_digit() -> None:
    net = vd.create("A", 7, width=1 / 16, image_size=32, fc_width=64, initialization="he", seed=3)
    images = torch.from_numpy(np.random.default_rng(SEED).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    fit_new_layers(net, ("fc6", "fc7", "fc8"), images)
    x = net.preprocessing(images)
    with torch.no_grad():
        for name in ("fc6", "fc7"):
            assert float(net.eval().activations(x, name).square().mean()) == pytest.approx(1, rel=1e-3)
        loss = torch.nn.functional.cross_entropy(net(x), torch.arange(7).repeat(2)[:8])
    assert float(loss) == pytest.approx(np.log(7), rel=1e-6)


def test_a_trunk_is_a_start(colors: Path, tmp_path: Path) -> None:
    trunk = vd.create("A", 0, width=1 / 32, image_size=32, fc_width=8, seed=2, trunk="pool5")
    vd.save(trunk, tmp_path / "trunk.safetensors")
    words = ["--init-from", str(tmp_path / "trunk.safetensors"), "--data", str(colors), "--out", str(tmp_path / "run")]
    run(*words, "--freeze", "conv", "--set", "images.scales=[32, 40]", *SHORT)  # the recipe is finetune
    net = vd.load(tmp_path / "run" / "best.safetensors")
    assert net.classes == ("blue", "green", "red")
    assert torch.equal(net.conv5_2.weight, trunk.conv5_2.weight)


@pytest.mark.parametrize(
    ("trunk", "taken"), [(None, ("conv4_1", "fc6", "fc7")), ("conv5_2.relu", ("conv4_1", "conv5_2"))]
)
def test_a_transfers_file_is_a_start_but_for_its_classifier(
    colors: Path, tmp_path: Path, trunk: str | None, taken: tuple[str, ...]
) -> None:
    plain = vd.create("A", ["blue", "green", "red"], width=1 / 32, image_size=32, fc_width=8, seed=2, trunk=trunk)
    made = with_random_weights(replace(plain.config, descriptor=DescriptorConfig((32,))), seed=3)
    vd.save(made, tmp_path / "c.safetensors")
    words = ["--init-from", str(tmp_path / "c.safetensors"), "--data", str(colors), "--out", str(tmp_path / "run")]
    run(*words, "--recipe", "finetune", "--set", "images.scales=[32, 40]", *STANDING, *SHORT)
    net = vd.load(tmp_path / "run" / "best.safetensors")
    assert (net.config.trunk, net.config.descriptor) == (None, None)
    for name in taken:
        torch.testing.assert_close(net.get_submodule(name).weight, made.get_submodule(name).weight, atol=1e-6, rtol=0)
    assert not torch.allclose(net.fc8.weight.flatten()[:8], made.fc8.weight.flatten()[:8], atol=1e-3)


def test_all_that_does_not_fit_is_named_at_once(source: Path, colors: Path, tmp_path: Path) -> None:
    words = ["--init-from", str(source), "--data", "nowhere", "--out", str(tmp_path / "run"), "--recipe", "small-boxes"]
    shape = ["--set", "network.width=0.5", "--set", "network.batch_norm=false", "--set", "network.image_size=64"]
    with pytest.raises(UserError, match=r"network\.width is .* network\.batch_norm is true there, false here"):
        run(*words, *shape, "--set", "images.scales=[64, 64]", "--task", "localize")
