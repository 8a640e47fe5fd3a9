"""Images of several classes, from training to evaluation: losses and precisions against their definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep as vd
from tests.evaluation.test_class_metrics import slow_average_precision
from verydeep.basics.errors import UserError
from verydeep.datasets import open_dataset
from verydeep.datasets.dataset import Dataset, Sample
from verydeep.datasets.loader import Batch
from verydeep.evaluation.evaluate import evaluate, match_targets
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.metrics import class_precisions, errors, mean_precision
from verydeep.evaluation.posteriors import Posteriors
from verydeep.training.log import read_log
from verydeep.training.multi_label import MultiLabel
from verydeep.training.recipe import Recipe, load_recipe
from verydeep.training.task import CentralCrops
from verydeep.training.train import train

CLASSES = ("blue", "green", "red")
TINY = (
    "network.width=0.125",
    "network.image_size=32",
    "network.fc_width=32",
    "network.batch_norm=true",
    "images.scales=[32, 36]",
    "images.color_shift=none",
    "images.divide_by_std=true",
    "initialization.scheme=he",
    "optimizer.batch_size=16",
    "optimizer.learning_rate=0.02",
    "schedule.kind=cosine",
    "schedule.epochs=12",
)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark pictures with a square of each of their colors: a table of the colors beside them."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(3)
    rows = ["file_name,labels"]
    for i in range(160):
        image = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
        own = [c for c in range(3) if rng.random() < 0.45]
        for place, c in enumerate(own):
            y, x = rng.integers(0, 26), 13 * place
            image[y : y + 13, x : x + 13] = 0
            image[y : y + 13, x : x + 13, 2 - c] = 220
        Image.fromarray(image).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'|'.join(CLASSES[c] for c in own)}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "A"
    train("A", squares, load_recipe("paper-s256", TINY), out, quiet=True)
    return out


def batch_of(targets: torch.Tensor) -> Batch:
    count = len(targets)
    none = torch.zeros(count, dtype=torch.int64)
    return Batch(torch.zeros(count, 1, 1, 3, dtype=torch.uint8), none - 1, none, torch.zeros(count, 3), targets)


def random_samples(rng: np.random.Generator, count: int) -> tuple[list[Sample], np.ndarray]:
    there = rng.random((count, 3)) < 0.5
    return [Sample(f"{i}", -1, labels=tuple(np.flatnonzero(row).tolist())) for i, row in enumerate(there)], there


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_binary_cross_entropy_of_each_class(rng: np.random.Generator, smoothing: float) -> None:
    scores, targets = rng.normal(size=(7, 5)) * 3, (rng.random((7, 5)) < 0.4).astype(np.float64)
    part = torch.tensor([1, 2, 5])
    recipe = load_recipe("paper-s256", [f"regularization.label_smoothing={smoothing}"])
    found = MultiLabel("abcde").loss(torch.from_numpy(scores)[part], batch_of(torch.from_numpy(targets)), part, recipe)
    p, y = 1 / (1 + np.exp(-scores)), targets * (1 - smoothing) + smoothing / 2
    wanted = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(1)[[1, 2, 5]].mean()
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    assert MultiLabel("abcde").guessing(5, Recipe()) == pytest.approx(-5 * np.log(0.5))


def test_validation_is_by_class_whatever_the_batches(rng: np.random.Generator) -> None:
    samples, there = random_samples(rng, 20)
    scores = rng.normal(size=(20, 3)).astype(np.float32)
    task, found = MultiLabel(CLASSES), dict[str, list[torch.Tensor]]()
    for rows in np.split(np.arange(20), [3, 11]):
        crops = CentralCrops([samples[i] for i in rows], [(32, 32)] * len(rows), 32, 32)
        for name, values in task.measure(torch.from_numpy(scores[rows]), crops).items():
            found.setdefault(name, []).append(values)
    figures = task.summary(found)
    each = [slow_average_precision(np.where(there[:, k], 1, -1), scores[:, k], False) for k in range(3)]
    assert figures["mean_average_precision"] == pytest.approx(np.mean(each), abs=1e-12)
    assert figures["map_error"] == pytest.approx(1 - np.mean(each), abs=1e-12)
    assert [figures[f"average_precision/{name}"] for name in CLASSES] == pytest.approx(each, abs=1e-12)
    wanted = np.where(there, np.log1p(np.exp(-scores.astype(np.float64))), np.log1p(np.exp(scores.astype(np.float64))))
    assert figures["val_loss"] == pytest.approx(wanted.sum(1).mean(), rel=1e-6)


def test_several_classes_are_learned_kept_and_tested(run: Path, squares: Path, tmp_path: Path) -> None:
    best = max(read_log(run, "epoch"), key=lambda line: line["mean_average_precision"])
    assert best["mean_average_precision"] > 0.9
    assert best["mean_average_precision"] == pytest.approx(np.mean([best[f"average_precision/{c}"] for c in CLASSES]))
    card = (run / "card.md").read_text()
    assert "3 classes, of which an image may have several" in card
    assert "| average precision, green |" in card
    net = vd.load(run / "best.safetensors")
    assert net.multi_label
    test = open_dataset(squares, "test")
    found = evaluate(net, test, "center@32", cache=tmp_path)
    assert mean_precision(found) > 0.85
    assert found.targets is not None
    scores = found.probabilities.astype(np.float64)
    each = [slow_average_precision(found.targets[:, k], scores[:, k], False) for k in range(3)]
    assert class_precisions(found) == pytest.approx(each, abs=1e-12)
    assert [tuple(np.flatnonzero(row > 0)) for row in found.targets] == [sample.labels for sample in test.samples]
    read = Posteriors.read(tmp_path / "center@32.parquet")
    np.testing.assert_array_equal(read.targets, found.targets)
    np.testing.assert_array_equal(read.probabilities, found.probabilities)
    assert mean_precision(fuse([read, found])) == mean_precision(found)
    with pytest.raises(UserError, match="images have several labels, so there is no top-k error"):
        errors(found)
    assert evaluate(net, test, "center@32", cache=tmp_path).metadata == found.metadata


def test_a_run_is_continued_as_if_never_stopped(run: Path, squares: Path) -> None:
    before = (run / "best.safetensors").read_bytes()
    result = train("A", squares, load_recipe("paper-s256", TINY), run, quiet=True)
    assert (run / "best.safetensors").read_bytes() == before
    assert result.metrics["mean_average_precision"] == 1 - result.metrics["map_error"]
    assert set(result.names) == {"map_error", "mean_average_precision"}
    assert {f"average_precision/{name}" for name in CLASSES} < set(result.metrics)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_classes_are_not_balanced(squares: Path, tmp_path: Path, balance: str) -> None:
    recipe = load_recipe("paper-s256", [*TINY, f"data.balance={balance}"])
    with pytest.raises(UserError, match=f"data.balance={balance} is for one class an image"):
        train("A", squares, recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_network_and_data_have_as_many_labels_an_image(run: Path, squares: Path) -> None:
    net = vd.load(run / "best.safetensors")
    single = Dataset("single", "test", CLASSES, [Sample("1.png", 0)], open_dataset(squares, "test").storage)
    with pytest.raises(UserError, match="single is read with one each; add --labels several"):
        evaluate(net, single, "center@32")
    net.provenance = replace(net.provenance, multi_label=None)
    with pytest.raises(UserError, match=r"gives an image one class, those of squares.* have several"):
        evaluate(net, open_dataset(squares, "test"), "center@32")


def test_classes_that_the_data_do_not_name_do_not_count(run: Path, rng: np.random.Generator) -> None:
    net = vd.load(run / "best.safetensors")
    samples = [Sample("1.png", -1, labels=(0,)), Sample("2.png", -1, labels=(0, 1)), Sample("3.png", -1, labels=())]
    few = Dataset("few", "test", ("red", "blue"), samples, None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(match_targets(few, net), [[-1, 0, 1], [1, 0, 1], [-1, 0, -1]])
    found = Posteriors(
        ("1", "2", "3"), np.full(3, -1), rng.random((3, 3)).astype(np.float32), CLASSES, {}, match_targets(few, net)
    )
    assert np.isnan(class_precisions(found)[1])
    assert mean_precision(found) == pytest.approx(np.mean([class_precisions(found)[k] for k in (0, 2)]))


@pytest.mark.parametrize("fault", ["label", "above", "shape", "value"])
def test_what_are_no_posteriors_of_several_is_refused(rng: np.random.Generator, fault: str) -> None:
    probabilities, targets = rng.random((2, 3)).astype(np.float32), np.ones((2, 3), np.int8)
    labels = np.full(2, 0 if fault == "label" else -1)
    probabilities[0, 0] += 2 * (fault == "above")
    targets = targets[:, :2] if fault == "shape" else targets + (fault == "value")
    with pytest.raises(UserError, match="posteriors: "):
        Posteriors(("a", "b"), labels, probabilities, CLASSES, {}, targets)


def test_files_of_other_truth_are_not_fused(rng: np.random.Generator) -> None:
    values = ("a", "b"), np.full(2, -1), rng.random((2, 3)).astype(np.float32), CLASSES, {}
    with pytest.raises(UserError, match="differ in which classes images have"):
        fuse([Posteriors(*values, np.ones((2, 3), np.int8)), Posteriors(*values, -np.ones((2, 3), np.int8))])


def test_images_without_any_label_teach_nothing() -> None:
    none = Dataset("none", "val", CLASSES, [Sample("1.png", -1, labels=())], None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="none, val: none of 1 images has a label"):
        MultiLabel(CLASSES).examples(none)
