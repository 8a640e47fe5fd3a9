"""A study looked at while it goes on, by requests and in a browser."""

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.results.conftest import CLASSES, IMAGES, TRUTH, Study, write_boxes
from tests.serving.browser import Watched, check_accessible, until
from tests.serving.conftest import random_picture
from verydeep.basics.errors import UserError
from verydeep.cli.report import report
from verydeep.evaluation.posteriors import Posteriors
from verydeep.serving.refusal import RefusedError
from verydeep.serving.study import StudyView


@pytest.fixture
def study(tmp_path: Path, rng: np.random.Generator) -> Study:
    made = Study(tmp_path / "study", rng)
    made.add("A", (256, 256), "dense@256", 12)
    made.add("D", (256, 256), "dense@256", 5)
    run = made.path / "runs" / "A-s256"
    run.mkdir(parents=True)
    lines = [{"kind": "epoch", "epoch": k, "train_error": 0.9 / k, "top1_error": 0.8 / k} for k in (1, 2, 3)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return made


A, D = "A-s256/dense@256", "D-s256/dense@256"


def test_what_it_says(study: Study) -> None:
    view = StudyView(study.path, None)
    about = view.about()
    assert {one["test"]: one["error"] for one in about["tests"]} == {A: 12 / IMAGES, D: 5 / IMAGES}
    assert about["curves"][0]["points"] == [[1, 0.9, 0.8], [2, 0.45, 0.4], [3, 0.9 / 3, 0.8 / 3]]
    assert about["tables"][0]["heading"].startswith("Table 3")
    assert not about["pictures"]


def test_two_tests_picture_by_picture(study: Study) -> None:
    view = StudyView(study.path, None)
    found = view.compare(A, D, "only second", 0, 100)
    assert found["counts"] == {"any": 40, "both right": 28, "only first": 0, "only second": 7, "both wrong": 5}
    assert found["p_value"] == pytest.approx(2 / 2**7)
    for test, place in ((A, 0), (D, 1)):
        posteriors = Posteriors.read(study.path / "posteriors" / f"{test}.parquet")
        for one in found["pictures"]:
            k = posteriors.ids.index(one["picture"])
            best = int(posteriors.probabilities[k].argmax())
            assert one["label"] == CLASSES[posteriors.labels[k]]
            assert one["said"][place]["class"] == CLASSES[best]
            assert one["said"][place]["posterior"] == pytest.approx(float(posteriors.probabilities[k, best]))
            assert one["said"][place]["right"] == (place == 1)
    pages = [view.compare(A, D, "any", start, 15)["pictures"] for start in (0, 15, 30)]
    assert len({one["picture"] for page in pages for one in page}) == 40
    with pytest.raises(RefusedError, match="no such test"):
        view.compare(A, "../../etc", "any", 0, 9)
    with pytest.raises(RefusedError, match="no such picture"):
        view.picture("x")


GOOD, BAD = "boxes/good/center@384", "boxes/bad/center@384"


@pytest.fixture
def boxes(study: Study) -> Study:
    for name, wrong in (("bad", 30), ("good", 10)):
        write_boxes(study.path, name, wrong)
    return study


def test_boxes_picture_by_picture(boxes: Study) -> None:
    view = StudyView(boxes.path, None)
    kinds = {one["test"]: (one["kind"], one["error"]) for one in view.about()["tests"]}
    assert kinds[GOOD] == ("boxes", 10 / 40)
    assert kinds[A][0] == "classes"
    found = view.compare(GOOD, BAD, "only first", 0, 100)
    assert found["counts"] == {"any": 40, "both right": 10, "only first": 20, "only second": 0, "both wrong": 10}
    assert len(found["pictures"]) == 20
    for one in found["pictures"]:
        assert (one["size"], one["boxes"]) == ([100, 80], [TRUTH.tolist()])
        assert one["said"][0] == {"box": TRUTH.tolist(), "iou": 1, "right": True}
        assert one["said"][1] == {"box": (TRUTH + 35).tolist(), "iou": pytest.approx(25 / (3200 - 25)), "right": False}
    with pytest.raises(RefusedError, match="two of a kind"):
        view.compare(GOOD, A, "any", 0, 9)


def test_what_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        StudyView(tmp_path / "none", None)
    with pytest.raises(UserError):
        StudyView(tmp_path, str(tmp_path / "none"))
    with pytest.raises(UserError, match="--serve"):
        report(tmp_path)


def test_pictures_are_shown_in_small(study: Study, tmp_path: Path, rng: np.random.Generator) -> None:
    pictures = {f"test/{label}/{label}.png": random_picture(rng, 400, 800) for label in "ab"}
    for name, pixels in pictures.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    view = StudyView(study.path, str(tmp_path / "data"))
    assert view.pictures is not None
    assert view.about()["pictures"]
    for sample, pixels in zip(view.pictures.samples, pictures.values(), strict=True):
        shown = Image.open(io.BytesIO(view.picture(sample.id)))
        assert shown.size == (360, 180)
        np.testing.assert_allclose(np.asarray(shown).mean((0, 1)), pixels.mean((0, 1)), atol=3)


@pytest.fixture
def open_study(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Begin `verydeep report --serve`, and return its address."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> str:
        log = tmp_path / "report-log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", "verydeep", "report", *words, "--serve", "--port", "0"]
            begun.append(subprocess.Popen(command, stderr=file, text=True))
        for _ in range(1200):
            assert begun[-1].poll() is None, log.read_text()
            if found := re.search(r"at (http://127\.0\.0\.1:\d+) ", log.read_text()):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    yield begin
    for process in begun:
        process.terminate()
        assert process.wait(60) == 0


def test_it_follows_the_study(browser: Any, study: Study, open_study: Callable[..., str]) -> None:
    url = open_study(str(study.path))
    here = Watched(browser, f"{url}/", viewport={"width": 360, "height": 740})
    page = here.page
    page.wait_for_selector("#gallery figure")
    assert page.locator("#tables table").count() >= 1
    assert page.locator("#curves svg").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.select_option("#first", A)
    page.select_option("#second", D)
    page.locator("input[value='only second']").focus()
    page.keyboard.press("Space")
    until(page, "document.querySelectorAll('#gallery figure').length == 7")
    assert page.locator("#gallery .right").count() == page.locator("#gallery .wrong").count() == 7
    study.add("E", (256, 256), "dense@256", 3)
    until(page, "document.querySelectorAll('#first option').length == 3")
    assert page.input_value("#first") == A
    for name, wrong in (("bad", 30), ("good", 10)):
        write_boxes(study.path, name, wrong)
    until(page, "document.querySelectorAll('#first option').length == 5")
    page.select_option("#first", GOOD)
    assert page.locator("#second option").count() == 2
    assert page.input_value("#second") == BAD
    page.locator("input[value='only first']").check()
    until(page, "document.querySelectorAll('#gallery figure').length == 20")
    assert page.locator("#gallery .right").count() == page.locator("#gallery .wrong").count() == 20
    check_accessible(page)
    here.close()
