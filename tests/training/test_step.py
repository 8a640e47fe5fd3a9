import copy
import dataclasses
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import verydeep as vd
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.loader import Batch
from verydeep.engines import library
from verydeep.images.view import draw_view
from verydeep.nets.vgg import VGG
from verydeep.training.engine import pick_training_engine
from verydeep.training.parallel import Processes
from verydeep.training.recipe import Recipe, load_recipe
from verydeep.training.step import MovingAverage, Stepper, frozen_until, make_optimizer, set_training
from verydeep.training.task import Classification


def recipe(*overrides: str) -> Recipe:
    return load_recipe("paper-s256", ["network.image_size=32", "images.scales=[32, 32]", *overrides])


def net(dropout: float = 0.0) -> VGG:
    return vd.create(
        "A", classes=4, width=1 / 16, fc_width=16, image_size=32, dropout=dropout, initialization="he", seed=3,
        preprocessing=vd.Preprocessing(std=(60.0, 60.0, 60.0)),
    )  # fmt: skip


def batch(rng: np.random.Generator, size: int = 12) -> Batch:
    return Batch(
        torch.from_numpy(rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)),
        torch.from_numpy(rng.integers(0, 4, size)),
        torch.arange(size),
        torch.from_numpy(rng.normal(0, 5, (size, 3)).astype(np.float32)),
        torch.empty(size, 0),
    )


def test_step_is_sgd_with_momentum_and_decay_by_hand(rng: np.random.Generator) -> None:
    settings = recipe("optimizer.bias_learning_rate=2", "optimizer.bias_weight_decay=0", "optimizer.learning_rate=0.1")
    mine, hand = net(), net()
    stepper = Stepper(mine, make_optimizer(mine, settings.optimizer), settings, Processes())
    momentum = {name: torch.zeros_like(p) for name, p in hand.named_parameters()}
    for step, factor in enumerate((1.0, 1.0, 0.1)):
        # From the same bits at each step: rounding that turns a pool's winner would change the gradient for good.
        hand.load_state_dict(mine.state_dict())
        data = batch(rng)
        x = hand.preprocessing(data.images, data.shifts)
        pixels = data.images.double() + data.shifts[:, None, None, :] - torch.tensor(hand.preprocessing.mean).double()
        torch.testing.assert_close(x, (pixels / 60).permute(0, 3, 1, 2).float(), rtol=1e-5, atol=1e-5)
        stepper(data, 0, step, factor)
        gradients = torch.autograd.grad(F.cross_entropy(hand(x), data.labels), list(hand.parameters()))
        with torch.no_grad():
            for (name, p), g in zip(hand.named_parameters(), gradients, strict=True):
                bias = name.endswith("bias")
                momentum[name] = 0.9 * momentum[name] + g + (0 if bias else 5e-4) * p
                p -= 0.1 * factor * (2 if bias else 1) * momentum[name]
        for (name, a), b in zip(mine.named_parameters(), hand.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("parts", [2, 5])
def test_accumulation_gives_the_same_gradient(rng: np.random.Generator, parts: int) -> None:
    data, weights, losses = batch(rng), [], []
    for accumulation in (1, parts):
        settings, network = recipe(f"optimizer.accumulation={accumulation}"), net()
        stepper = Stepper(network, make_optimizer(network, settings.optimizer), settings, Processes())
        result = stepper(data, 0, 0, 1.0)
        losses.append((float(result.loss), float(result.wrong)))
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)


def test_only_fully_connected_layers_are_trained_when_asked(rng: np.random.Generator) -> None:
    settings, network, before = recipe("optimizer.trained_layers=fc"), net(), net()
    Stepper(network, make_optimizer(network, settings.optimizer), settings, Processes())(batch(rng), 0, 0, 1.0)
    for (name, a), b in zip(network.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b) == name.startswith("conv"), name


def test_weights_of_classes_are_those_of_their_numbers(rng: np.random.Generator) -> None:
    labels = [0] * 9 + [1] * 3 + [3] * 1
    dataset = Dataset(
        "x", "train", ("a", "b", "c", "d"), [Sample(str(i), label) for i, label in enumerate(labels)], None
    )
    settings = recipe("data.balance=weights", "regularization.label_smoothing=0.1")
    sampler = Classification().sampler(dataset, 32, settings)
    assert sampler is not None
    chance = [np.random.default_rng(7) for _ in range(2)]
    drawn = [sampler(i, 40, 50, chance[0]) for i in range(len(labels))]
    assert [view for view, _ in drawn] == [draw_view(40, 50, 32, (32, 32), chance[1], True) for _ in labels]
    weights = np.array([weight for _, weight in drawn])[:, 0]
    np.testing.assert_allclose(weights, [13 / 27] * 9 + [13 / 9] * 3 + [13 / 3])
    scores = torch.from_numpy(rng.normal(0, 1, (13, 4))).float()
    data = dataclasses.replace(batch(rng, 13), labels=torch.tensor(labels), targets=torch.from_numpy(weights[:, None]))
    loss = Classification().loss(scores, data, torch.arange(13), settings)
    weight = torch.tensor([13 / 27, 13 / 9, 0, 13 / 3])
    hand = F.cross_entropy(scores, data.labels, reduction="none", label_smoothing=0.1) * weight[data.labels]
    torch.testing.assert_close(loss, hand.mean())


def test_mixup_and_smoothing_by_hand(rng: np.random.Generator) -> None:
    settings = recipe("regularization.mixup=0.4", "regularization.label_smoothing=0.1")
    network, data = net(), batch(rng)
    stepper = Stepper(network, make_optimizer(network, settings.optimizer), settings, Processes())
    mix = stepper._mixing(data, epoch=2, step=5)
    share, partner = mix.share, mix.partner
    assert 0.5 <= share < 1
    assert sorted(partner.tolist()) == list(range(12))
    x = network.preprocessing(data.images, data.shifts)
    log = network(share * x + (1 - share) * x[partner]).log_softmax(1)
    target = torch.full((12, 4), 0.1 / 4)
    for i in range(12):
        target[i, data.labels[i]] += 0.9 * share
        target[i, data.labels[partner[i]]] += 0.9 * (1 - share)
    expected = -(target * log).sum(1).mean()
    assert float(stepper(data, 2, 5, 0.0).loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_dropout_follows_from_seed_epoch_and_step(rng: np.random.Generator) -> None:
    data, settings = batch(rng), recipe()
    losses = []
    for epoch, step in ((1, 4), (1, 4), (1, 5), (2, 4)):
        network = net(dropout=0.5)
        stepper = Stepper(network, make_optimizer(network, settings.optimizer), settings, Processes())
        losses.append(float(stepper(data, epoch, step, 1.0).loss))
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_moving_average_by_hand() -> None:
    network = net()
    average = MovingAverage(network, 0.9)
    expected = network.get_submodule("fc8").weight.detach().clone()  # type: ignore[union-attr,operator]
    for step in range(1, 40):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.get_submodule("fc8").weight.detach()  # type: ignore[union-attr,operator]
    torch.testing.assert_close(average.average["fc8.weight"], expected)


def test_bf16_is_near_float32(rng: np.random.Generator) -> None:
    data, losses = batch(rng), []
    for precision in ("float32", "bf16"):
        settings, network = recipe(f"precision={precision}"), net()
        stepper = Stepper(network, make_optimizer(network, settings.optimizer), settings, Processes())
        losses.append(float(stepper(data, 0, 0, 1.0).loss))
        assert all(p.dtype == torch.float32 for p in network.parameters())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="torch.compile needs a C++ compiler")
def test_compiled_steps_are_the_same(rng: np.random.Generator) -> None:
    data, weights = batch(rng, 4), []
    for compiled in (False, True):
        settings, network = recipe(), net()
        stepper = Stepper(network, make_optimizer(network, settings.optimizer), settings, Processes(), compiled)
        for step in range(2):
            stepper(data, 0, step, 1.0)
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("configuration", "frozen", "until"), [("A", "conv", "pool5"), ("C", "conv1", "pool1")])
def test_layers_that_are_not_trained_run_by_the_engine_of_inference(
    configuration: str, frozen: str, until: str, rng: np.random.Generator
) -> None:
    settings = recipe(f"optimizer.layer_learning_rates.{frozen}=0", "optimizer.learning_rate=0.1")
    first = vd.create(
        configuration, classes=4, width=1 / 16, fc_width=16, image_size=32, initialization="he", dropout=0.5,
        batch_norm=True, preprocessing=vd.Preprocessing(std=(60.0, 60.0, 60.0)), seed=3,
    )  # fmt: skip
    nets = [first, copy.deepcopy(first)]
    steppers, engines = [], []
    own = "native" if frozen != "conv" and library.find() else "auto"  # auto is torch where batch norm is trained
    for which, number in zip((own, "torch"), nets, strict=True):
        by = settings.model_copy(update={"engine": which})
        steppers.append(Stepper(number, make_optimizer(number, by.optimizer), by, Processes()))
        engines.append(steppers[-1].forward != number.in_training)
        set_training(number)
    assert frozen_until(first) == until
    assert engines == [
        own == "native" or (library.find() is not None and library.best_processor() != "portable"),
        False,
    ]
    before = copy.deepcopy(first.state_dict())
    for step in range(3):
        nets[0].load_state_dict(nets[1].state_dict())
        data = batch(rng)
        results = [stepper(data, 0, step, 1.0) for stepper in steppers]
        torch.testing.assert_close(results[0].loss, results[1].loss, rtol=1e-4, atol=1e-5)
        if until != "pool5":  # rounding that turns a later pool's winner changes the gradient for good
            continue
        for (name, a), b in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    after = nets[0].state_dict()
    kept = {name.partition(".")[0] for name in after if torch.equal(before[name], after[name])}
    names = [name for name, _ in first.named_children()]
    assert {name for name in names[: names.index(until)] if name[:4] in ("conv", "bn1_")} <= kept
    assert "fc8" not in kept


@pytest.mark.skipif(
    library.find() is None or library.best_processor() == "portable", reason="no fast native engine here"
)
@pytest.mark.parametrize(
    ("batch_norm", "words", "engine"),
    [
        (False, (), "native"),
        (True, (), "native"),
        (False, ("precision=bf16",), "torch"),
    ],
)
def test_the_engine_of_a_run(batch_norm: bool, words: tuple[str, ...], engine: str) -> None:
    network = vd.create("A", 3, width=1 / 32, fc_width=8, image_size=32, batch_norm=batch_norm)
    assert pick_training_engine(recipe(*words), network, torch.device("cpu")) == engine
    assert pick_training_engine(recipe(*words), network, torch.device("cpu"), compiled=True) == "torch"
