"""Score maps of large pictures as jobs, and how far apart two pictures look."""

import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import verydeep as vd
from tests.serving.conftest import ENGINE_ERROR, Running, jpeg, random_picture
from verydeep.basics.errors import UserError
from verydeep.scoremaps.peaks import find_peaks
from verydeep.serving import jobs as module
from verydeep.serving.jobs import Jobs, Tell
from verydeep.serving.refusal import RefusedError

pytest.importorskip("pyvips", reason="pyvips is not installed (make test installs it)")
MEMORY = 640 * 2**20


@pytest.fixture(scope="module")
def large(start: Callable[..., Running], folder: Path) -> Running:
    """A service of a, and of a trunk."""
    weights = [str(folder / f"{name}.safetensors") for name in ("a", "trunk")]
    return start(*weights, "--memory", f"{MEMORY >> 20}MiB")


def smooth(rng: np.random.Generator, height: int, width: int) -> Any:
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def finished(service: Running, job: str) -> Any:
    while True:
        about = json.loads(service.request("GET", f"/jobs/{job}")[1])
        if about["state"] not in ("waiting", "running"):
            return about
        time.sleep(0.02)


def test_the_map_is_the_pictures(large: Running, folder: Path, rng: np.random.Generator) -> None:
    picture = random_picture(rng, int(rng.integers(300, 400)), int(rng.integers(300, 600)))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    status, about = large.post("/models/a/scoremap?scale=1&scale=0.5&threshold=0.3", file.getvalue())
    assert status == 202
    about = finished(large, about["job"])
    assert (about["state"], about["progress"]) == ("done", 1)
    result, path = about["result"], f"/jobs/{about['job']}"
    expected = vd.score_map(picture, folder / "a.safetensors", scales=(1, 0.5))
    for level, described in zip(expected.levels, result["levels"], strict=True):
        status, content, _ = large.request("GET", f"{path}/scale_{level.scale:g}.npy")
        found = np.load(io.BytesIO(content))
        assert (described["rows"], described["columns"]) == found.shape[1:]
        np.testing.assert_allclose(found, level.values, rtol=0, atol=100 * ENGINE_ERROR)
        top, left, *_ = level.window_of(0, 0)
        y, x = level.center(0, 0)
        assert described["top"] + described["height"] / described["rows"] / 2 == pytest.approx(y)
        assert described["left"] + described["width"] / described["columns"] / 2 == pytest.approx(x)
        assert (top, left) == (0, 0)
    peaks = find_peaks(expected, 0.3)
    assert [(one["class"], one["x"], one["y"]) for one in result["peaks"]] == [(p.label, p.x, p.y) for p in peaks]
    table = large.request("GET", f"{path}/peaks.csv")[1].decode().splitlines()
    assert len(table) == 1 + len(peaks)
    label = expected.classes[int(rng.integers(8))]
    drawn = np.asarray(Image.open(io.BytesIO(large.request("GET", f"{path}/map?class={label}")[1])))
    values = expected.levels[0].values[expected.classes.index(label)]
    np.testing.assert_allclose(drawn[..., 3], np.clip(510 * values, 0, 255), atol=1.1)


def test_tiles_are_the_picture(large: Running, rng: np.random.Generator) -> None:
    picture = smooth(rng, 300, 500)
    _, about = large.post("/models/a/scoremap", jpeg(picture))
    job = finished(large, about["job"])["job"]
    text = large.request("GET", f"/jobs/{job}/image.dzi")[1].decode()
    assert 'Width="500"' in text
    assert 'TileSize="254"' in text
    rebuilt = np.zeros((300, 500, 3))
    for x in range(2):
        for y in range(2):
            status, content, headers = large.request("GET", f"/jobs/{job}/image_files/9/{x}_{y}.jpg")
            assert (status, headers["content-type"]) == (200, "image/jpeg")
            tile = np.asarray(Image.open(io.BytesIO(content)), float)
            top, left = max(254 * y - 1, 0), max(254 * x - 1, 0)
            rebuilt[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    assert np.abs(rebuilt - picture).mean() < 4  # written as JPEG twice
    for path in (
        "image_files/9/7_7.jpg",
        "picture",
        "..%2f..%2fetc%2fpasswd",
        "image_files/../picture",
        "map?class=zz",
    ):
        assert large.request("GET", f"/jobs/{job}/{path}")[0] == 404
    assert large.request("DELETE", f"/jobs/{job}")[0] == 204
    for path in ("", "/image.dzi"):
        assert large.request("GET", f"/jobs/{job}{path}")[0] == 404


def test_pictures_that_make_no_job(large: Running, rng: np.random.Generator) -> None:
    file = jpeg(random_picture(rng))
    whole = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(whole, "JPEG", progressive=True)
    ink = io.BytesIO()
    Image.new("CMYK", (100, 100)).save(ink, "JPEG")
    vector = b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>'
    for body, query, status, words in (
        (b"", "", 422, "empty"),
        (b"no picture", "", 422, "not an image"),
        (vector, "", 422, "not an image"),
        (jpeg(random_picture(rng, 30, 40)), "", 422, "smaller than one window"),
        (ink.getvalue(), "", 422, "CMYK"),
        (whole.getvalue(), "", 413, "progressive"),
        (file, "?scale=0", 422, "scale"),
        (file, "?class=zebra", 422, "zebra"),
        (file, "?scale=1&scale=1", 422, "different factors"),
        (file, "?threshold=2", 422, "threshold"),
    ):
        code, answer = large.post(f"/models/a/scoremap{query}", body)
        assert (code, words in answer["error"], "/tmp" in answer["error"]) == (status, True, False), answer
    assert large.post("/models/trunk/scoremap", file)[0] == 404
    status, about = large.post("/models/a/scoremap", jpeg(random_picture(rng, 900, 900))[:-20_000])  # cut short
    assert status == 202
    about = finished(large, about["job"])
    assert about["state"] == "failed"
    assert "/tmp" not in about["error"]
    assert large.request("GET", f"/jobs/{about['job']}/peaks.csv")[0] == 404
    large.request("DELETE", f"/jobs/{about['job']}")


def test_memory_is_what_was_stated(large: Running, rng: np.random.Generator) -> None:
    before = large.resident()
    file = jpeg(smooth(rng, 3000, 4000))
    _, about = large.post("/models/a/scoremap", file)
    small = jpeg(random_picture(rng))
    while json.loads(large.request("GET", f"/jobs/{about['job']}")[1])["state"] in ("waiting", "running"):
        assert large.post("/models/a/classify", small)[0] == 200  # the others go on
    assert finished(large, about["job"])["state"] == "done"
    large.request("DELETE", f"/jobs/{about['job']}")
    assert large.resident(peak=True) - before < MEMORY // 8 + 32 * 2**20  # and a little for the others
    assert "Traceback" not in large.said


class Slow:
    """Work that waits to be let go."""

    def __init__(self, folder: Path, error: Exception | None = None) -> None:
        (folder / "file").write_text("x")
        self.may, self.told, self.error = threading.Event(), threading.Event(), error

    def run(self, tell: Tell) -> dict[str, Any]:
        while not self.may.is_set():
            tell(0.5)
            self.told.set()
            time.sleep(0.001)
        if self.error:
            raise self.error
        return {"answer": 1}


def until(so: Callable[[], bool]) -> None:
    for _ in range(5000):
        if so():
            return
        time.sleep(0.002)
    raise AssertionError


def test_jobs_are_bounded_cancelled_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs(most=3)
    made: list[Slow] = []

    def make(folder: Path, error: Exception | None = None) -> Slow:
        made.append(Slow(folder, error))
        return made[-1]

    first, second, third = (jobs.add("a", make) for _ in range(3))
    made[0].told.wait(60)
    assert [job.state for job in (first, second, third)] == ["running", "waiting", "waiting"]
    with pytest.raises(RefusedError) as refused:
        jobs.add("a", make)
    assert (refused.value.status, sum(path.is_dir() for path in jobs._folder.iterdir())) == (429, 3)
    jobs.delete(second.id)
    assert not second.folder.exists()
    jobs.delete(first.id)
    until(lambda: not first.folder.exists())
    made[2].may.set()
    until(lambda: third.is_over)
    assert (third.state, third.about()["result"]) == ("done", {"answer": 1})
    fourth = jobs.add("a", lambda folder: make(folder, UserError("unlucky")))
    made[3].may.set()
    until(lambda: fourth.is_over)
    assert (fourth.state, fourth.about()["error"]) == ("failed", "unlucky")
    with pytest.raises(UserError, match="no"):
        jobs.add("a", lambda folder: (_ for _ in ()).throw(UserError("no")))
    monkeypatch.setattr(module, "KEPT", 0.0)
    jobs.forget()
    assert (len(jobs), [path for path in jobs._folder.iterdir() if path.is_dir()]) == (0, [])
    fifth = jobs.add("a", make)
    made[4].told.wait(60)
    jobs.stop()
    assert fifth.state == "running"
    assert not jobs._folder.exists()


def form(*files: bytes) -> tuple[bytes, str]:
    edge = "an-edge"
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="f{k}"; filename="{k}"\r\n\r\n'.encode() + file + b"\r\n"
        for k, file in enumerate(files)
    ]
    return b"".join([*parts, f"--{edge}--\r\n".encode()]), f"multipart/form-data; boundary={edge}"


def test_distance(large: Running, folder: Path, rng: np.random.Generator) -> None:
    import torch

    pictures = [random_picture(rng) for _ in range(2)]
    files = []
    for picture in pictures:
        files.append(io.BytesIO())
        Image.fromarray(picture).save(files[-1], "PNG")
    body, kind = form(*(file.getvalue() for file in files))
    tensors = [torch.from_numpy(picture).permute(2, 0, 1)[None] for picture in pictures]
    for name in ("a", "trunk"):
        for metric, loss in (("content", vd.ContentLoss), ("style", vd.StyleLoss)):
            status, answer = large.post(f"/models/{name}/distance?metric={metric}", body, content_type=kind)
            measure = loss(vd.trunk(folder / f"{name}.safetensors"), range=(0, 255))
            with torch.no_grad():
                expected = float(measure(*tensors))
            assert (status, answer["metric"]) == (200, loss.__name__)
            assert answer["distance"] == pytest.approx(expected, rel=1e-4)
    same, kind = form(files[0].getvalue(), files[0].getvalue())
    assert large.post("/models/a/distance", same, content_type=kind)[1]["distance"] == 0
    other = form(files[0].getvalue(), jpeg(random_picture(rng, 90, 90)))[0]
    for content, status, words in (
        (other, 422, "expected one size"),
        (form(files[0].getvalue())[0], 422, "2 parts"),
        (form(b"x", b"y")[0], 422, "the first picture"),
    ):
        code, answer = large.post("/models/a/distance", content, content_type=kind)
        assert (code, words in answer["error"]) == (status, True), answer
    assert large.post("/models/a/distance", files[0].getvalue())[0] == 422
    assert "configuration D" in large.post("/models/a/distance?metric=lpips", body, content_type=kind)[1]["error"]
