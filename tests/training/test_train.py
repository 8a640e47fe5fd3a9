import json
import math
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer
from verydeep.engines import library
from verydeep.training import run as module
from verydeep.training.recipe import Recipe, load_recipe
from verydeep.training.train import DivergedError, train

from .conftest import tiny_recipe


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return vd.load(path).state_dict()


def same(a: Path, b: Path) -> bool:
    left, right = tensors(a), tensors(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def lines(out: Path, kind: str) -> list[dict[str, float]]:
    every = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second", "waiting")} for line in every
            if line["kind"] == kind]  # fmt: skip


def test_a_run_leaves_all_its_files_and_learns(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        "schedule.epochs=12",
        "network.width=0.125",
        "network.fc_width=32",
        "network.dropout=0.0",
        "network.batch_norm=true",
    )
    result = train("A", colors, recipe, tmp_path / "run", quiet=True)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "recipe.toml",
        "log.jsonl",
        "tensorboard",
        "last.ckpt",
        "best.safetensors",
        "curves.png",
        "card.md",
        "checksums.json",
    }
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    assert result.metrics["top1_error"] <= 1 / 12  # three plain colors: at most one of 12 wrong
    net = vd.load(result.weights)
    assert net.classes == ("blue", "green", "red")
    assert net.provenance.train_scales == (32, 40)
    assert net.preprocessing.std != (1, 1, 1)
    card = (tmp_path / "run" / "card.md").read_text()
    assert f"{result.metrics['top1_error']:.2%}" in card
    assert "verydeep train --net A" in card
    assert str(tmp_path) not in card
    there = load_recipe(tmp_path / "run" / "recipe.toml")
    assert there.engine in ("native", "torch")
    assert there == recipe.model_copy(update={"engine": there.engine})
    assert net.provenance.engine == there.engine
    assert f"engine {there.engine}" in card


class StopAt:
    """Stands in for Ctrl-C: asks to stop before a certain step's end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        original, self.seen = module.Stepper.__call__, 0

        def call(stepper: object, *arguments: object) -> object:
            self.seen += 1
            if self.seen == step:
                signal.raise_signal(signal.SIGINT)
            return original(stepper, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(module.Stepper, "__call__", call)


@pytest.mark.parametrize("stop", [2, 5, 8])  # in the first epoch, at the end of it, in the second
@pytest.mark.parametrize(
    "extra",
    [(), ("network.batch_norm=true", "regularization.ema=0.9", "regularization.mixup=0.2", "data.balance=sampling")],
)
def test_stopped_anywhere_and_continued_gives_the_same_bits(
    colors: Path, tmp_path: Path, stop: int, extra: tuple[str, ...]
) -> None:
    recipe = tiny_recipe(*extra)
    whole = train("B", colors, recipe, tmp_path / "whole", quiet=True, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            train("B", colors, recipe, tmp_path / "parts", quiet=True, workers=3)
    assert not (tmp_path / "parts" / "card.md").exists()
    parts = train("B", colors, recipe, tmp_path / "parts", quiet=True)
    assert same(whole.weights, parts.weights)
    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts")]
    for key, tensor in states[0]["net"].items():
        assert torch.equal(tensor, states[1]["net"][key])
    assert lines(tmp_path / "whole", "epoch") == lines(tmp_path / "parts", "epoch")


def test_killed_without_a_word_continues_from_the_last_checkpoint(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("schedule.epochs=2")
    whole = train("A", colors, recipe, tmp_path / "whole", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        original = module.Stepper.__call__

        def call(stepper: module.Stepper, batch: object, epoch: int, step: int, factor: float) -> object:
            if (epoch, step) == (1, 2):
                raise MemoryError
            return original(stepper, batch, epoch, step, factor)  # type: ignore[arg-type]

        patch.setattr(module.Stepper, "__call__", call)
        with pytest.raises(MemoryError):
            train("A", colors, recipe, tmp_path / "parts", quiet=True)
    parts = train("A", colors, recipe, tmp_path / "parts", quiet=True)
    assert same(whole.weights, parts.weights)
    assert lines(tmp_path / "whole", "epoch") == lines(tmp_path / "parts", "epoch")


def test_a_finished_run_is_not_done_again(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("schedule.epochs=1")
    first = train("A", colors, recipe, tmp_path / "run", quiet=True)
    changed = (tmp_path / "run" / "best.safetensors").stat().st_mtime_ns
    assert train("A", colors, recipe, tmp_path / "run", quiet=True) == first
    assert (tmp_path / "run" / "best.safetensors").stat().st_mtime_ns == changed


def test_another_runs_folder_is_refused(colors: Path, tmp_path: Path, tiny: Recipe) -> None:
    train("A", colors, tiny_recipe("schedule.epochs=1"), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=r"holds another run \(schedule.epochs is 1 there, 3 here\)"):
        train("A", colors, tiny, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=r"run.net is A there, B here"):
        train("B", colors, tiny_recipe("schedule.epochs=1"), tmp_path / "run", quiet=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="holds no run"):
        train("A", colors, tiny, tmp_path / "full", quiet=True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_deeper_networks_start_from_a_and_fine_tuning_from_all_layers(colors: Path, tmp_path: Path) -> None:
    still = tiny_recipe("schedule.epochs=1", "optimizer.learning_rate=1e-30")
    a = train("A", colors, tiny_recipe("schedule.epochs=1"), tmp_path / "a", quiet=True)
    d = train("D", colors, still, tmp_path / "d", init_from=tmp_path / "a", quiet=True)
    deep, shallow, fresh = (tensors(a.weights), tensors(d.weights), vd.create("D", seed=0, **_as_tiny()).state_dict())
    deep, shallow = shallow, deep
    for key in deep:
        layer = key.split(".")[0]
        source = shallow if layer in ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8") else fresh
        torch.testing.assert_close(deep[key], source[key], rtol=0, atol=1e-12, msg=key)
    again = train("D", colors, still, tmp_path / "d2", init_from=d.weights, quiet=True)
    assert all(torch.allclose(tensors(again.weights)[key], value, atol=1e-12) for key, value in deep.items())
    assert vd.load(again.weights).provenance.init_from_sha256


def _as_tiny() -> dict[str, object]:
    recipe = tiny_recipe()
    return {**recipe.network.model_dump(), "initialization": "he", "classes": 3}


UNIT_VARIANCE = vd.Preprocessing(std=(60.0, 60.0, 60.0))


def test_starting_from_other_classes_is_refused(colors: Path, tmp_path: Path) -> None:
    vd.save(
        vd.create("A", ["x", "y", "z"], width=1 / 32, image_size=32, fc_width=8, preprocessing=UNIT_VARIANCE),
        tmp_path / "n.safetensors",
    )
    with pytest.raises(UserError, match=r"knows 3 classes \(x, ...\), the data set has 3 \(blue, ...\)"):
        train("A", colors, tiny_recipe(), tmp_path / "run", init_from=tmp_path / "n.safetensors", quiet=True)
    with pytest.raises(UserError, match="no such weights file or run"):
        train("A", colors, tiny_recipe(), tmp_path / "run", init_from=tmp_path / "nowhere", quiet=True)


@pytest.mark.parametrize(
    ("rate", "changes", "said"),
    [
        ("1e30", ["schedule.kind=cosine", "schedule.warmup_epochs=3"], "not a number"),
        ("3.0", ["schedule.kind=cosine", "schedule.warmup_epochs=3"], "diverges|not a number"),
        ("1e30", ["optimizer.batch_size=64", "schedule.kind=plateau", "schedule.warmup_epochs=0"], "validation loss"),
    ],
)  # fmt: skip
def test_divergence_stops_with_step_and_hint_and_keeps_a_sound_checkpoint(
    colors: Path, tmp_path: Path, rate: str, changes: list[str], said: str
) -> None:
    recipe = tiny_recipe("schedule.epochs=40", "network.width=0.125", f"optimizer.learning_rate={rate}", *changes)
    with pytest.raises(DivergedError, match=said) as error:
        train("A", colors, recipe, tmp_path / "run", quiet=True)
    assert "at step" in str(error.value)
    assert "a lower optimizer.learning_rate" in str(error.value)
    checkpoint = tmp_path / "run" / "last.ckpt"
    assert checkpoint.exists() == ("of before is kept" in str(error.value))
    assert not (tmp_path / "run" / "card.md").exists()
    for line in lines(tmp_path / "run", "epoch"):  # what was saved came after epochs of sound losses
        assert line["val_loss"] < 10 * math.log(3)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        assert all(tensor.isfinite().all() for tensor in state["net"].values())


def test_other_images_or_labels_in_the_same_place_are_another_run(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    moved = tmp_path / "moved"
    shutil.copytree(colors, moved)
    finished = train("A", colors, recipe, tmp_path / "run", quiet=True)
    assert train("A", moved, recipe, tmp_path / "run", quiet=True) == finished  # the same data in another place
    first = sorted(path for path in moved.rglob("*") if path.is_file())[0]
    first.rename(first.with_name(f"other-{first.name}"))
    with pytest.raises(UserError, match="other images or labels"):
        train("A", moved, recipe, tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="no-such-place"):
        train("A", tmp_path / "no-such-place", recipe, tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    "change", ["images.pool_round_up=true", "images.mean=[1.0, 2.0, 3.0]", "images.interpolation=bicubic"]
)
def test_weights_are_not_taken_over_for_another_input(colors: Path, tmp_path: Path, change: str) -> None:
    first = tiny_recipe("images.pool_round_up=false")
    train("A", colors, first, tmp_path / "a", quiet=True)
    other = tiny_recipe("images.pool_round_up=false", change)
    with pytest.raises(UserError, match=change.partition("=")[0]):
        train("A", colors, other, tmp_path / "b", init_from=tmp_path / "a", quiet=True)
    assert not (tmp_path / "b").exists()


def test_literal_variance_of_the_paper_diverges(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        "initialization.scheme=normal(0.1)", "images.divide_by_std=false", "network.width=0.5", "network.fc_width=64",
        "schedule.epochs=30", "optimizer.learning_rate=0.01",
    )  # fmt: skip
    with pytest.raises(DivergedError):
        train("A", colors, recipe, tmp_path / "run", quiet=True)


def test_damaged_checkpoint_is_named(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train("A", colors, recipe, tmp_path / "run", quiet=True)
    checkpoint = tmp_path / "run" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    with pytest.raises(UserError, match="damaged checkpoint"):
        train("A", colors, recipe, tmp_path / "run", quiet=True)


def test_ctrl_c_on_the_command_line(colors: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("schedule.epochs=500", "schedule.kind=cosine")
    (tmp_path / "r.toml").write_text(recipe.to_toml())
    command = [sys.executable, "-m", "verydeep", "train", "--net", "A", "--data", str(colors)]
    command += ["--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert math.isfinite(state["progress"]["seconds"])


def test_bad_words(colors: Path, tmp_path: Path, tiny: Recipe) -> None:
    with pytest.raises(UserError, match="is not available here; usable: auto, cpu"):
        train("A", colors, tiny, tmp_path / "run", device="tpu")
    with pytest.raises(UserError, match="no configuration 'F'"):
        train("F", colors, tiny, tmp_path / "run", quiet=True)


def test_a_folder_that_another_process_trains_in_is_refused(colors: Path, tmp_path: Path, tiny: Recipe) -> None:
    with sole_writer(tmp_path / "run"), pytest.raises(UserError, match="is at work in it"):
        train("A", colors, tiny, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "lost", ["weights gone", "weights changed", "log emptied", "checkpoint changed", "recipe gone"]
)
def test_a_finished_run_that_lost_a_file_says_so(lost: str, colors: Path, tmp_path: Path, tiny: Recipe) -> None:
    out = tmp_path / "run"
    train("A", colors, tiny, out, quiet=True)
    names = {"weights": "best.safetensors", "log": "log.jsonl", "checkpoint": "last.ckpt", "recipe": "recipe.toml"}
    file, how = out / names[lost.split()[0]], lost.split()[1]
    if how == "changed":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "emptied":
        file.write_bytes(b"")
    else:
        file.unlink()
    said = "holds no run" if lost == "recipe gone" else rf"{file.name}: (has changed|is gone) since the run ended"
    with pytest.raises(UserError, match=said):
        train("A", colors, tiny, out, quiet=True)


@pytest.mark.parametrize("lost", ["log", "checkpoint"])
def test_an_unfinished_run_that_lost_a_file_says_so(lost: str, colors: Path, tmp_path: Path, tiny: Recipe) -> None:
    out = tmp_path / "run"
    train("A", colors, tiny, out, quiet=True)
    (out / "card.md").unlink()
    (out / "checksums.json").unlink()
    if lost == "log":
        (out / "log.jsonl").write_bytes(b"")
        said = r"log\.jsonl: has 0 of the [\d,]+ bytes"
    else:
        with zipfile.ZipFile(out / "last.ckpt") as records:
            place = max(records.infolist(), key=lambda record: record.file_size)
        content = bytearray((out / "last.ckpt").read_bytes())
        content[place.header_offset + 200 + place.file_size // 2] ^= 1
        (out / "last.ckpt").write_bytes(content)
        said = r"damaged checkpoint .* has changed since it was written"
    with pytest.raises(UserError, match=said):
        train("A", colors, tiny, out, quiet=True)
    assert (out / "log.jsonl").read_bytes().count(b"\0") == 0


@pytest.mark.skipif(library.find() is None, reason=library.MISSING)
def test_a_run_keeps_the_engine_that_it_began_with(colors: Path, tmp_path: Path) -> None:
    recipe, folder = tiny_recipe(), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        StopAt(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train("A", colors, recipe.model_copy(update={"engine": "torch"}), folder, quiet=True)
    text = (folder / "recipe.toml").read_text()
    assert "engine" not in text  # as in runs from before there was another
    with pytest.raises(UserError, match=r"engine.*native"):
        train("A", colors, recipe.model_copy(update={"engine": "native"}), folder, quiet=True)
    result = train("A", colors, recipe, folder, quiet=True)
    assert vd.load(result.weights).provenance.engine == "torch"
    assert load_recipe(folder / "recipe.toml").engine == "torch"


@pytest.mark.skipif(library.find() is None, reason=library.MISSING)
def test_an_engine_that_does_not_run_is_refused(colors: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"engine": "native", "precision": "bf16"}, "bf16"),
        ({"engine": "openvino"}, "openvino"),
    ):
        with pytest.raises(UserError, match=words):
            train(
                "A", colors, "small-s72", tmp_path / "x", quiet=True, overrides=[f"{k}={v}" for k, v in changes.items()]
            )
    with pytest.raises(UserError, match="compile"):
        train("A", colors, tiny_recipe("engine=native"), tmp_path / "x", quiet=True, compiled=True)
    assert not (tmp_path / "x").exists()
