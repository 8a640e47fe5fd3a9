"""Several processes, started as a person starts them: by torchrun."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributed import HashStore

from tests.conftest import SEED
from tests.training.in_processes import work
from verydeep.basics.errors import UserError
from verydeep.basics.files import file_hash
from verydeep.datasets import open_dataset
from verydeep.datasets.loader import Augmentation, Share, TrainingLoader
from verydeep.training.log import read_log
from verydeep.training.parallel import Processes, meet
from verydeep.training.train import train

from .conftest import tiny_recipe

LAUNCH = (
    *("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--local-addr=127.0.0.1"),
    "--rdzv-endpoint=127.0.0.1:0",
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def torchrun(tmp_path: Path) -> Torchrun:
    """Run `verydeep WORDS` in two processes; what each says stands in a file of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        logs = tmp_path / "logs"
        environment = {**os.environ, **ENVIRONMENT}
        command = [sys.executable, *LAUNCH, "--redirects=3", f"--log-dir={logs}", "-m", "verydeep", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return run


def said(folder: Path, rank: int, stream: str) -> str:
    """Return what a process of the latest start said; torch's own remarks left out."""
    files = (folder / "logs").glob(f"*/attempt_0/{rank}/{stream}.log")
    text = max(files, key=lambda path: path.stat().st_mtime_ns).read_text()
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("[Gloo]"))


def test_every_process_ends_well_and_only_the_first_speaks(colors: Path, tmp_path: Path, torchrun: Torchrun) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(tiny_recipe("schedule.epochs=2").to_toml())
    words = ("train", "--net=A", f"--data={colors}", f"--recipe={recipe}", f"--out={out}", "--workers=1")
    first = torchrun(*words)
    assert first.returncode == 0, first.stderr
    assert "2 epochs" in said(tmp_path, 0, "stdout")
    assert "epoch   2/2" in said(tmp_path, 0, "stderr")
    assert said(tmp_path, 1, "stdout") == said(tmp_path, 1, "stderr") == ""
    epochs = read_log(out, "epoch")
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(0 <= line["train_error"] <= 1 for line in epochs)

    before = {path.name: file_hash(path) for path in out.iterdir() if path.is_file()}
    second = torchrun(*words)
    assert second.returncode == 0, second.stderr
    assert "2 epochs" in said(tmp_path, 0, "stdout")
    assert said(tmp_path, 0, "stderr") == ""  # nothing is trained
    assert said(tmp_path, 1, "stdout") == said(tmp_path, 1, "stderr") == ""
    assert before == {path.name: file_hash(path) for path in out.iterdir() if path.is_file()}
    # Of this processes' share of one, the same run: what two did counts as finished.
    assert train("A", colors, recipe, out, quiet=True).epochs == 2


def workers(process: int) -> list[int]:
    """Return the processes that train, started by another."""
    try:
        found = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        return [one for one in found if b"verydeep" in Path(f"/proc/{one}/cmdline").read_bytes()]
    except FileNotFoundError:  # gone meanwhile
        return []


def under_fire(command: list[str], waits: Iterator[Callable[[], bool]], errors: Path) -> None:
    """Run a command, and kill one of its processes each time that the next of `waits` says so; it must end well."""
    rng = np.random.default_rng(SEED)
    with errors.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, **ENVIRONMENT})
    try:
        for ready in waits:
            end = time.monotonic() + 120
            while not (ready() and (there := workers(process.pid))):
                assert process.poll() is None, errors.read_text()
                assert time.monotonic() < end, errors.read_text()
                time.sleep(0.02)
            os.kill(int(rng.choice(there)), signal.SIGKILL)
        assert process.wait(240) == 0, errors.read_text()
    finally:
        process.kill()


def test_processes_of_before_are_not_met() -> None:
    store = HashStore()
    for rank in (1, 2):  # killed while they waited, as was the first process, half way
        store.set(f"ask/{rank}", f"word of {rank}")
    store.set("answer/word of 1", "an earlier name")
    for start in range(3):
        with ThreadPoolExecutor() as threads:
            late = (threads.submit(meet, store, rank, 3) for rank in ((2, 0, 1), (0, 1, 2), (1, 2, 0))[start])
            names = {future.result(60) for future in list(late)}
        assert len(names) == 1
        assert not names & {"an earlier name"}
    assert meet(store, 0, 1)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
@pytest.mark.large
@pytest.mark.parametrize("kills", [2, 10])
def test_killed_workers_cost_nothing_but_time(kills: int, colors: Path, tmp_path: Path, torchrun: Torchrun) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(tiny_recipe(f"schedule.epochs={12 * kills}", "network.batch_norm=true").to_toml())
    words = [*("-m", "verydeep", "train", "--net=A", f"--data={colors}", f"--recipe={recipe}"), "--workers=1"]
    whole = torchrun(*words[2:], f"--out={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    launch = [sys.executable, *LAUNCH, "--max-restarts=100", "--monitor-interval=0.1"]

    def waits() -> Iterator[Callable[[], bool]]:
        """In training; then while processes find one another, when others of before have left their addresses."""
        rng = np.random.default_rng(SEED)
        begun = (out / "last.ckpt").is_file
        yield begun
        for _ in range(kills - 1):
            until = time.monotonic() + float(rng.uniform(0.5, 2.5 if kills == 2 else 8))
            yield lambda until=until: time.monotonic() > until

    under_fire([*launch, *words, f"--out={out}"], waits(), tmp_path / "errors")
    for name in ("best.safetensors", "last.ckpt"):
        one, other = (_tensors(folder / name) for folder in (tmp_path / "whole", out))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a file of a run."""
    if path.suffix == ".ckpt":
        values: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["net"]
        return values
    return load_file(path)


def test_a_wrong_request_is_told_once_and_leaves_nothing(colors: Path, tmp_path: Path, torchrun: Torchrun) -> None:
    words = ("train", "--net=A", f"--data={colors}", "--recipe=scenes", f"--out={tmp_path / 'run'}")
    found = torchrun(*words, "--set=schedule.epoch=3")
    assert found.returncode != 0
    assert "exitcode  : 2 " in found.stderr, found.stderr  # torchrun may end the other one itself
    assert said(tmp_path, 0, "stderr").count("nearest known one is schedule.epochs") == 1
    assert said(tmp_path, 1, "stderr") == ""
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of 40 x 56 pixels with a box each, as CVAT exports them."""
    folder, rng, lines = tmp_path_factory.mktemp("boxed"), np.random.default_rng(4), []
    for number in range(30):
        pixels = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        x, y, label = *rng.integers(0, 20, 2), "ab"[number % 2]
        box = f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{x + 25}" ybr="{y + 18}"/>'
        lines.append(f'<image name="{number}.png" width="56" height="40">{box}</image>')
    (folder / "annotations.xml").write_text(f"<annotations>{''.join(lines)}</annotations>")
    return folder


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of 40 x 56 pixels with masks, of which some pixels have no label."""
    folder, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(3)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(18):
        labels = np.kron(rng.choice([0, 1, 2, 255], (5, 7)), np.ones((8, 8))).astype(np.uint8)
        pixels = np.stack([labels] * 3, axis=2) // 2 + rng.integers(0, 100, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    return folder


def test_any_number_of_processes_gives_the_weights_of_one(
    colors: Path, boxed: Path, masks: Path, tmp_path: Path
) -> None:
    data = {"boxes": boxed, "pixels": masks, "classes": colors}
    work(0, 1, 0, data, tmp_path)
    for size in (2, 3):
        torch.multiprocessing.spawn(work, (size, free_port(), data, tmp_path), nprocs=size)
    alone = torch.load(tmp_path / "1-0.pt", weights_only=True)
    for size, rank in ((2, 0), (2, 1), (3, 0), (3, 2)):
        found = torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=True)
        for case, one in alone.items():
            exact = case != "bf16"
            for key, value in one.items():
                other, most = found[case][key].double(), value.double().abs().max().clamp_min(1e-3)
                difference = float((other - value.double()).abs().max() / most)
                assert difference < (1e-10 if exact else 0.05), (case, key, size, difference)
            assert exact or not torch.equal(found[case]["conv1_1.weight"], one["conv1_1.weight"]), "nothing was rounded"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_fewer_images_than_processes_are_refused(colors: Path) -> None:
    dataset = open_dataset(colors, "train")
    with pytest.raises(UserError, match=r"a batch of 5 images for 3 processes, each in 2 parts"):
        TrainingLoader(dataset, Augmentation(32, (32, 32)), 5, 0, share=Share(1, 3, 2))


def test_one_process_alone_has_nobody_to_ask() -> None:
    alone = Processes()
    assert alone.mean(3.0, 4.0) == [3.0, 4.0]
    assert alone.share("word") == "word"
    with pytest.raises(UserError, match="as it is"), alone.agreed():
        raise UserError("as it is")
