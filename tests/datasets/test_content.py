"""Pictures that change under the same name: noticed by what they hold, and read again only where they changed."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.datasets.content import content_digest, content_hashes
from verydeep.datasets.dataset import Dataset
from verydeep.training.recipe import load_recipe
from verydeep.training.train import train


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for label, name in enumerate(("red", "blue")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            color = (200 - 150 * label, number, 50 + 150 * label)
            Image.new("RGB", (40, 40), color).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images whose content is read."""
    names: list[str] = []
    original = Dataset.content_hash

    def content_hash(self: Dataset, index: int) -> bytes:
        names.append(self.samples[index].id)
        return original(self, index)

    monkeypatch.setattr(Dataset, "content_hash", content_hash)
    return names


def _other_content(path: Path) -> None:
    """Change a picture, keeping name, length and the time in seconds."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))


def test_files_are_read_once_and_again_when_they_changed(data: Path, reads: list[str]) -> None:
    training = vd.open_dataset(data, "train")
    first = content_hashes(training)
    assert sorted(reads) == sorted(sample.id for sample in training.samples)
    reads.clear()
    assert content_hashes(vd.open_dataset(data, "train")) == first
    assert reads == []
    _other_content(data / training.samples[3].id)
    second = content_hashes(training)
    assert reads == [training.samples[3].id]
    assert [a != b for a, b in zip(first, second, strict=True)] == [i == 3 for i in range(len(first))]
    content_hashes(vd.open_dataset(data, "test"))
    reads.clear()
    assert content_hashes(training) == second, "one split forgets nothing of another"
    assert reads == []


def test_a_copy_a_tar_and_a_touched_file_are_the_same_data(data: Path, tmp_path: Path) -> None:
    digest = content_digest(vd.open_dataset(data, "train"))
    assert len(digest) == 64
    shutil.copytree(data, tmp_path / "copy")
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.add(data, "data")
    for other in (tmp_path / "copy", tmp_path / "data.tar"):
        assert content_digest(vd.open_dataset(other, "train")) == digest
    next(data.rglob("*.png")).touch()
    assert content_digest(vd.open_dataset(data, "train")) == digest
    assert content_digest(vd.open_dataset("scenes", "test")) == "", "drawn anew each time, by the version of verydeep"


def test_what_is_kept_may_be_damaged_or_not_writable(data: Path, own_cache: Path) -> None:
    first = content_hashes(vd.open_dataset(data, "train"))
    (kept,) = own_cache.rglob("content/*.npy")
    kept.write_bytes(kept.read_bytes()[:-7])
    assert content_hashes(vd.open_dataset(data, "train")) == first
    shutil.rmtree(own_cache)
    own_cache.write_text("in the way")
    assert content_hashes(vd.open_dataset(data, "train")) == first


def test_training_is_not_continued_on_changed_pictures(data: Path, tmp_path: Path) -> None:
    words = "network.width=0.0625 network.image_size=32 network.fc_width=8 images.scales=[32,32] schedule.epochs=1"
    recipe = load_recipe("paper-s256", [*words.split(), "optimizer.batch_size=4", "optimizer.learning_rate=1e-4"])
    train("A", data, recipe, tmp_path / "run", quiet=True)
    assert train("A", data, recipe, tmp_path / "run", quiet=True).epochs == 1
    _other_content(data / vd.open_dataset(data, "train").samples[0].id)
    with pytest.raises(UserError, match=r"holds another run .*the images of .* have changed since"):
        train("A", data, recipe, tmp_path / "run", quiet=True)


def test_an_evaluation_never_returns_another_pictures_posteriors(data: Path, tmp_path: Path) -> None:
    net = vd.create("A", ("blue", "red"), width=1 / 16, image_size=32, fc_width=8, seed=0)
    vd.save(net, tmp_path / "w.safetensors")
    testing = vd.open_dataset(data, "test")
    found = vd.evaluate(tmp_path / "w.safetensors", testing, "dense@32", cache=tmp_path / "out")
    again = vd.evaluate(tmp_path / "w.safetensors", testing, "dense@32", cache=tmp_path / "out")
    assert (found.probabilities == again.probabilities).all()
    Image.new("RGB", (40, 40), "white").save(data / testing.samples[0].id)
    with pytest.raises(UserError, match="its images have changed since, under the same names"):
        vd.evaluate(tmp_path / "w.safetensors", testing, "dense@32", cache=tmp_path / "out")
