"""What holds for every command and kind of bad file: exit status 2, one line that names it, nothing left behind."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import verydeep as vd
from verydeep.basics.lock import sole_writer
from verydeep.cli.main import run
from verydeep.nets.config import SegmentationConfig
from verydeep.nets.run_info import RunInfo

WEIGHTS = {
    "describe": "describe {}",
    "evaluate": "evaluate {} --data data --out out",
    "predict": "predict photo.png --weights {}",
    "localize": "localize photo.png --classifier {} --localizer {}",
    "scoremap": "scoremap photo.png --weights {} --out out.zarr --memory 16GiB",
    "features": "features photo.png --weights {} --out out.npy",
    "transfer": "transfer --weights {} --data data --protocol folder --out out",
    "convert": "convert {} out.safetensors",
    "export": "export {} --format onnx --out out.onnx",
    "train": "train --init-from {} --data data --out out",
    "perceive": "perceive photo.png photo.png --metric content --weights {}",
    "serve": "serve {} --port 0",
    "stylize": "stylize photo.png photo.png --weights {} --out out.png",
    "explain": "explain photo.png --weights {} --out out.png",
    "segment": "segment photo.png --weights {} --out out",
}
PICTURES = {
    "predict": "predict {} --weights w.safetensors",
    "localize": "localize {} --classifier w.safetensors --localizer l.safetensors",
    "scoremap": "scoremap {} --weights w.safetensors --out out.zarr --memory 16GiB",
    "features": "features {} --weights w.safetensors --out out.npy",
    "perceive": "perceive photo.png {} --metric content --weights w.safetensors",
    "stylize": "stylize photo.png {} --weights w.safetensors --size 64 --steps 1 --out out.png",
    "segment": "segment {} --weights s.safetensors --out out",
}
DATA = {
    "train": "train --net A --data {} --out out",
    "evaluate": "evaluate w.safetensors --data {} --out out",
    "transfer": "transfer --weights w.safetensors --data {} --protocol folder --out out",
    "data": "data show {}",
    "reproduce": "reproduce --preset demo --data {} --out out",
    "train for pixels": "train --task segment --net A --recipe small-segment --data {} --out out",
    "evaluate pixels": "evaluate s.safetensors --task segment --data {} --out out",
}
RESULTS = {"fuse": "fuse {} {} --out out.parquet", "tune": "tune {}"}
OUT = {
    "train": "train --net A --data data --set network.width=0.0625 --out {}",
    "evaluate": "evaluate w.safetensors --data data --out {}",
    "scoremap": "scoremap photo.png --weights w.safetensors --out {}.zarr --memory 16GiB",
    "features": "features photo.png --weights w.safetensors --out {}.npy",
    "transfer": "transfer --weights w.safetensors --data data --protocol folder --scales 64 --out {}",
    "convert": "convert w.safetensors {}.safetensors",
    "export": "export w.safetensors --format onnx --out {}.onnx",
    "stylize": "stylize photo.png photo.png --weights w.safetensors --out {}.png",
    "heat map": "predict photo.png --weights w.safetensors --heatmap {}.png",
    "reproduce": "reproduce --preset demo --data scenes --out {}",
    "segment": "segment photo.png --weights s.safetensors --out {}",
    "segment in bands": "segment photo.png --weights s.safetensors --bands {}.tif --memory 16GiB",
}


def _changed(change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> Callable[[Path], None]:
    """Return what writes our own format after a change of its arrays and metadata."""

    def write(path: Path) -> None:
        with safe_open("w.safetensors", framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
            about = dict(file.metadata())
        change(arrays, about)
        save_file(arrays, path, about)

    return write


def _replace(old: str, new: str) -> Callable[[Path], None]:
    def change(arrays: dict[str, torch.Tensor], about: dict[str, str]) -> None:
        assert old in about["verydeep"]
        about["verydeep"] = about["verydeep"].replace(old, new)

    return _changed(change)


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def _nan(arrays: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    arrays["conv1_1.weight"][0, 0, 0, 0] = torch.nan


def _whole_numbers(arrays: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    arrays["fc8.bias"] = arrays["fc8.bias"].to(torch.int32)


ANY = {
    "nothing": lambda path: None,
    "empty": lambda path: path.touch(),
    "text": _bytes(b"once upon a time\n" * 100),
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path.name),
    "not to be read \x1b[31m": lambda path: path.mkdir(),
}
BAD_WEIGHTS = {
    **ANY,
    "cut": lambda path: path.write_bytes(Path("w.safetensors").read_bytes()[:-100]) and None,
    "pickle": _bytes(b"\x80\x02}q\x01X\x01\x00\x00\x00a"),
    "zip": _bytes(b"PK\x03\x04" + bytes(100)),
    "hdf5": _bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000)),
    "matlab": _bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(64)),
    "deep json": _bytes((10**5).to_bytes(8, "little") + b'{"a":' * 20_000),
    "not a number": _changed(_nan),
    "whole numbers": _changed(_whole_numbers),
    "no class names": _replace('"classes"', '"klasses"'),
    "scales that are words": _replace('"train_scales": [64, 64]', '"train_scales": "many"'),
    "another version": _replace('"format_version": 1', '"format_version": 99'),
    "mean of two": _replace('"mean": [', '"mean": [1.0, '),
}
BAD_PICTURES = {
    **ANY,
    "cut": lambda path: path.write_bytes(Path("photo.png").read_bytes()[:-200]) and None,
    "half a header": _bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0"),
}


def _holes(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
        if "device" not in path.name
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights, a picture and a data set."""
    folder = tmp_path_factory.mktemp("contract")
    rng = np.random.default_rng(0)
    net = vd.create("A", ["a", "b"], width=1 / 16, image_size=64, fc_width=16, seed=0)
    net.provenance = RunInfo(train_scales=(64, 64))
    vd.save(net, folder / "w.safetensors")
    vd.save(
        vd.create("A", ["a", "b"], width=1 / 16, image_size=64, fc_width=16, seed=0, regression="scr"),
        folder / "l.safetensors",
    )
    small = {"width": 1 / 16, "image_size": 64, "fc_width": 16, "seed": 0}
    vd.save(vd.create("A", ["a", "b"], segmentation=SegmentationConfig("8s"), **small), folder / "s.safetensors")
    Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(folder / "photo.png")
    for name in ("a", "b"):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "data" / name / f"{number}.png")
    return folder


@pytest.fixture
def say(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run the command in a copy of the folder; return exit status and what it said on standard error."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))

    def call(words: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["verydeep", *words])
        signal.alarm(120)  # whatever waits for ever is killed, and the run of all tests with it
        with pytest.raises(SystemExit) as stop:
            run()
        signal.alarm(0)
        return int(stop.value.code or 0), capfd.readouterr().err

    return call


def _refused(say, words: list[str], name: str) -> None:
    before = _holes(Path.cwd())
    status, said = say(words)
    assert status == 2, said
    errors = [line for line in said.splitlines() if "verydeep: error: " in line]
    assert len(errors) == 1, said
    assert re.search(re.escape(name.encode("unicode_escape").decode()), errors[0]), said
    assert "--debug" not in said
    assert "Traceback" not in said
    assert "\x1b[31m" not in said
    assert _holes(Path.cwd()) == before, "nothing is left behind, and nothing is lost"


def _cases(commands: dict[str, str], kinds: dict[str, Callable[[Path], None]]) -> list[Any]:
    """Every kind of file for one command after another: each is tried with several, in a fraction of the time."""
    cases = []
    for number, kind in enumerate(kinds):
        names = list(commands)
        for command in dict.fromkeys((names[number % len(names)], names[(number + len(names) // 2) % len(names)])):
            cases.append(pytest.param(commands[command], kinds[kind], kind, id=f"{command}-{ascii(kind)[1:-1]}"))
    return cases


@pytest.mark.parametrize(("words", "write", "kind"), _cases(WEIGHTS, BAD_WEIGHTS))
def test_bad_weights(words: str, write: Callable[[Path], None], kind: str, say) -> None:
    write(Path(kind))
    _refused(say, [word.format(kind) for word in words.split()], kind)


@pytest.mark.parametrize(("words", "write", "kind"), _cases(PICTURES, BAD_PICTURES))
def test_bad_pictures(words: str, write: Callable[[Path], None], kind: str, say) -> None:
    write(Path(kind))
    _refused(say, [word.format(kind) for word in words.split()], kind)


@pytest.mark.parametrize(("words", "write", "kind"), _cases(DATA, ANY))
def test_bad_data(words: str, write: Callable[[Path], None], kind: str, say) -> None:
    write(Path(kind))
    _refused(say, [word.format(kind) for word in words.split()], kind)


@pytest.mark.parametrize(("words", "write", "kind"), _cases(RESULTS, ANY))
def test_bad_results(words: str, write: Callable[[Path], None], kind: str, say) -> None:
    write(Path(kind))
    _refused(say, [word.format(kind) for word in words.split()], kind)


@pytest.mark.parametrize("command", OUT)
def test_out_that_cannot_be_written(command: str, say) -> None:
    Path("file").write_text("x")
    _refused(say, OUT[command].format("file/out").split(), "file")


@pytest.mark.parametrize("command", ["train", "evaluate", "transfer", "convert", "export", "heat map"])
def test_a_full_disk_is_one_line(command: str, say) -> None:
    """No file may grow beyond 2 kB: writing fails as on a full disk, in the same calls."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, most[1]))
    try:
        status, said = say(OUT[command].format("out").split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert status == 2, said
    assert sum("verydeep: error: " in line for line in said.splitlines()) == 1, said
    assert "--debug" not in said, said
    left = [path for path in Path.cwd().rglob("*") if path.suffix in (".safetensors", ".onnx", ".parquet", ".ckpt")]
    assert {path.name for path in left} <= {"w.safetensors", "l.safetensors", "s.safetensors"}, (
        "what is half-written is taken away"
    )


@pytest.mark.parametrize("command", ["train", "scoremap", "transfer", "reproduce"])
def test_out_that_another_process_holds(command: str, say) -> None:
    name = "held.zarr" if command == "scoremap" else "held"
    with sole_writer(Path(name)):
        status, said = say(OUT[command].format("held").split())
    assert status == 2, said
    assert f"{name}: process {os.getpid()} on" in said


@pytest.mark.parametrize(
    "words",
    [
        "predict photo.png --weights w.safetensors --memory 1",
        "predict photo.png --weights w.safetensors --protocol dense@1000000",
        "predict photo.png --weights w.safetensors --top 0",
        "scoremap photo.png --weights w.safetensors --out out.zarr --scales 1000000 --memory 16GiB",
        "scoremap photo.png --weights w.safetensors --out out.zarr --memory 1",
        "train --net A --data data --out out --set network.width=1000000000",
        "features photo.png --weights w.safetensors --out out.npy --scales 1000000",
        "describe A --image-size 1000000000x32",
        "train --net A --data data --out out --boxes-as-stored",
        "evaluate w.safetensors --data data --out out --boxes-as-shown",
        "segment photo.png --weights s.safetensors --out out --factor 0",
        "segment photo.png --weights s.safetensors --out out --memory 1",
        "segment photo.png --weights w.safetensors --out out",
        "segment photo.png --weights s.safetensors --bands out.png",
        "predict photo.png --weights s.safetensors",
        "export s.safetensors --format onnx --out out.onnx",
        "evaluate s.safetensors --data data --out out",
        "evaluate w.safetensors --task segment --data data --out out",
        "train --net A --head 8s --data data --out out",
    ],
)
def test_absurd_options(words: str, say) -> None:
    _refused(say, words.split(), "")


def test_what_is_printed_is_text(say, capfd: pytest.CaptureFixture[str]) -> None:
    """Names of classes and files come from strangers, and may hold what a terminal obeys."""
    net = vd.create("A", ["a\x1b[31m", "b\r\x07"], width=1 / 16, image_size=64, fc_width=16, seed=0)
    vd.save(net, "odd.safetensors")
    Path("photo.png").rename("pho\x1b[2Jto.png")
    for words in (
        ["predict", "pho\x1b[2Jto.png", "--weights", "odd.safetensors"],
        ["convert", "odd.safetensors", "o.safetensors"],
    ):
        sys.argv = ["verydeep", *words]
        with pytest.raises(SystemExit) as stop:
            run()
        printed = capfd.readouterr()
        assert not stop.value.code, printed.err
        assert r"a\x1b[31m" in printed.out
        assert not {"\x1b", "\x07", "\r"} & {*printed.out, *printed.err}


MEMORY = 128 << 20
MEASURE = f"""
import json, os, shutil, sys
import numpy as np
from PIL import Image
from verydeep.basics.memory import resident
from verydeep.cli.main import run

def call(words):
    sys.argv = ["verydeep", *words.split()]
    try:
        run()
    except SystemExit as stop:
        return stop.code

PICTURES = {PICTURES!r}
DATA = {DATA!r}
def every(picture, data, out):
    lines = {{name: line.format(picture) for name, line in PICTURES.items()}}
    lines |= {{name: DATA[name].format(data) for name in ("evaluate", "transfer")}}
    for name, line in lines.items():
        line = line.replace(" --memory 16GiB", "").replace("--out out", f"--out {{out}}-{{name}}")
        limit = {MEMORY} + (resident() if name == "scoremap" else 0)  # which counts all that the process holds
        yield name, line + f" --memory {{limit}}"

first = {{name: call(line) for name, line in every("photo.png", "data", "first")}}
ends, before = {{}}, resident(peak=True)
for bomb in ("dense.png", "tall.png", "wide.jpg"):
    shutil.copytree("data", f"data-{{bomb}}")
    for number in range(10):
        shutil.copy(bomb, f"data-{{bomb}}/a/{{number}}.png")
    for name, line in every(bomb, f"data-{{bomb}}", bomb):
        ends[f"{{name}} {{bomb}}"] = call(line), (resident(peak=True) - before) >> 20
print(json.dumps({{"first": first, "ends": ends}}))
"""


def test_memory_of_every_command(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    Image.new("1", (9000, 9000)).save(tmp_path / "dense.png")
    Image.new("L", (1, 50_000)).save(tmp_path / "tall.png")
    Image.new("RGB", (50_000, 1)).save(tmp_path / "wide.jpg")
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not any(found["first"].values()), done.stderr
    for name, (status, grown) in found["ends"].items():
        # Score maps of 9,000 x 9,000 pixels are what that command is for.
        assert status == (0 if name == "scoremap dense.png" else 2), (name, status, done.stderr)
        assert grown <= MEMORY >> 20, (name, grown)
