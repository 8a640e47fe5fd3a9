"""Pictures that are small files and large in memory: refused by their headers, the process measured."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import BadImageError
from verydeep.datasets.loader import Augmentation, TrainingLoader

MEMORY = 64 << 20
RUN = """
import json, sys
from pathlib import Path
import verydeep as vd
from verydeep.basics.errors import BadImageError
from verydeep.basics.memory import resident
weights, memory, *files = sys.argv[1:]
net = vd.load(weights)
first = vd.predict(net, files[0], "dense@64", memory=int(memory))  # what torch and its kernels take themselves
before, said = resident(peak=True), []
for file in files[1:]:
    for protocol in ("center@64", "dense@64"):
        try:
            vd.predict(net, file, protocol, memory=int(memory))
            said.append("")
        except BadImageError as error:
            said.append(str(error))
print(json.dumps({"grown": resident(peak=True) - before, "said": said}))
"""


def _bomb(path: Path, side: int, exif: bool) -> None:
    """Write a PNG of one bit a pixel; with EXIF behind the pixels, where a reader must not decode them to find it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    turn = Image.Exif()
    turn[0x0112] = 6
    behind = chunk(b"eXIf", turn.tobytes()[6:]) if exif else b""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + behind + chunk(b"IEND", b"")
    )


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    vd.save(vd.create("A", 3, width=1 / 16, image_size=64, fc_width=16, seed=0), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_memory_is_kept_whatever_a_picture_claims(weights: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    noise = Image.fromarray(rng.integers(0, 256, (80, 100, 3), dtype=np.uint8))
    noise.save(tmp_path / "usual.png")
    _bomb(tmp_path / "bomb.png", 16_000, exif=True)
    Image.new("RGB", (1, 60_000)).save(tmp_path / "tall.jpg")
    Image.new("RGB", (60_000, 1)).save(tmp_path / "wide.png")
    Image.new("RGB", (3000, 2500)).save(tmp_path / "photograph.webp")
    names = ["usual.png", "bomb.png", "tall.jpg", "wide.png", "photograph.webp"]
    command = [sys.executable, "-c", RUN, weights, str(MEMORY), *(tmp_path / name for name in names)]
    result = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert result["grown"] < MEMORY
    for said, name in zip(result["said"], np.repeat(names[1:], 2), strict=True):
        assert str(tmp_path / name) in said
    assert "16000 x 16000 pixels, more than the limit" in result["said"][0]
    assert "1 x 60000 pixels at scale 64 take" in result["said"][2]
    assert "--memory allows" in result["said"][2]


def test_exif_behind_the_pixels_of_a_png_turns_it(tmp_path: Path) -> None:
    _bomb(tmp_path / "turned.png", 24, exif=True)
    assert vd.predict(vd.create("A", 3, width=1 / 64, fc_width=8, image_size=32), tmp_path / "turned.png", "dense@32")
    from verydeep.images.decode import read_header

    assert read_header((tmp_path / "turned.png").read_bytes(), "x").orientation == 6


def test_training_refuses_a_picture_that_is_all_length(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (1, 60_000) if name == "a" else (64, 64)).save(tmp_path / name / f"{number}.png")
    dataset = vd.open_dataset(tmp_path, "train")
    loader = TrainingLoader(dataset, Augmentation(64, (64, 64)), len(dataset), seed=0, workers=1)
    with pytest.raises(BadImageError, match="1 x 60000 pixels become 64 x 3840000 at a smallest side of 64"):
        next(loader.epoch(0))


SURVEY = """
import json, sys
import verydeep as vd
from verydeep.basics.memory import resident
from verydeep.datasets.checking import decode_all
from verydeep.datasets.color import measure_color
from verydeep.datasets.loader import Augmentation, TrainingLoader
dataset = vd.open_dataset(sys.argv[1], "train")
before = resident()
sizes = [list(size) for size in decode_all(dataset)]
stats = measure_color(dataset, seed=0, threads=4)
batch = next(TrainingLoader(dataset, Augmentation(64, (64, 64)), len(dataset), seed=0, workers=4).epoch(0))
print(json.dumps({"grown": resident(peak=True) - before, "sizes": sizes, "mean": stats.mean}))
"""


def test_large_pictures_are_decoded_in_turn_to_be_checked_measured_and_learned(tmp_path: Path) -> None:
    side, count = 6000, 4
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(count):
            _bomb(tmp_path / name / f"{number}.png", side, exif=False)
    command = [sys.executable, "-c", SURVEY, tmp_path]
    result = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    pixels = side * side
    # What may be decoded at once, what four threads hold beside, and the libraries; without turns it was 3.1e9.
    assert result["grown"] < (1 << 30) + 4 * 4 * pixels + (128 << 20)
    assert set(map(tuple, result["sizes"])) == {(side, side)}
    assert result["mean"] == [0, 0, 0]
