"""What a study has come to, read anew when its files change."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from PIL import Image

from verydeep.basics.errors import UserError
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import open_dataset
from verydeep.evaluation.metrics import mcnemar
from verydeep.results.illustrations import places
from verydeep.results.result import Result, read_results
from verydeep.results.study import StudyFolder
from verydeep.results.table import Table
from verydeep.results.tables import make_tables
from verydeep.serving.refusal import RefusedError
from verydeep.serving.study_tests import tested
from verydeep.training.log import LOG, read_log
from verydeep.training.recipe import parse_toml

SIDE = 360  # pixels of a picture's long side, as it is shown
Outcome = Literal["any", "both right", "only first", "only second", "both wrong"]


@dataclass(frozen=True)
class _Seen:
    stamp: str
    tables: tuple[Table, ...]
    tests: dict[str, Result]


class StudyView:
    """A study's folder as it is now; UserError where it is none, or `data` cannot be opened.

    `data` is where the test pictures are, by default what the study's own file says.
    """

    def __init__(self, folder: Path, data: str | None) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the --out of verydeep reproduce or verydeep evaluate")
        self.folder, self._lock = folder, Lock()
        self._seen = _Seen("", (), {})
        self.pictures = _pictures(folder, data)
        self._place = places(self.pictures) if self.pictures else {}
        self.look()

    def look(self) -> _Seen:
        """Return tables and tests, read anew where files have changed."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen.stamp:
                found = read_results(self.folder) if any(self.folder.rglob("*.parquet")) else []
                tests = {self._name(result): result for result in found if result.kind in ("classes", "boxes")}
                self._seen = _Seen(stamp, tuple(make_tables(found)) if found else (), tests)
            return self._seen

    def about(self) -> dict[str, Any]:
        """Return what the page begins with."""
        seen = self.look()
        return {
            "folder": self.folder.name or str(self.folder),
            "stamp": seen.stamp,
            "pictures": self.pictures is not None,
            "tables": [{"heading": table.heading, "note": table.note, "rows": table.grid()} for table in seen.tables],
            "curves": self._curves(),
            "tests": [{"test": name, "kind": test.kind, "error": _error(test)} for name, test in seen.tests.items()],
        }

    def compare(self, first: str, second: str, outcome: Outcome, start: int, count: int) -> dict[str, Any]:
        """Return what two tests of a kind say of the same pictures, and some of the pictures with one outcome."""
        tests = [self._test(name) for name in (first, second)]
        if tests[0].kind != tests[1].kind:
            raise RefusedError(422, "one test is of classes, the other of boxes: choose two of a kind")
        says = [tested(test) for test in tests]
        rows = [{name: row for row, name in enumerate(each.ids)} for each in says]
        common = [name for name in says[0].ids if name in rows[1]]
        right = [
            each.right[np.array([place[name] for name in common], np.int64)]
            for each, place in zip(says, rows, strict=True)
        ]
        masks = {
            "any": np.ones(len(common), bool),
            "both right": right[0] & right[1],
            "only first": right[0] & ~right[1],
            "only second": ~right[0] & right[1],
            "both wrong": ~right[0] & ~right[1],
        }
        chosen = [common[k] for k in np.flatnonzero(masks[outcome])[start : start + count].tolist()]
        return {
            "counts": {name: int(mask.sum()) for name, mask in masks.items()},
            "p_value": mcnemar(~right[0], ~right[1]).p_value,
            "pictures": [
                {
                    "picture": name,
                    **says[0].picture(rows[0][name]),
                    "said": [each.said(place[name]) for each, place in zip(says, rows, strict=True)],
                }
                for name in chosen
            ],
        }

    def picture(self, name: str) -> bytes:
        """Return a test picture, in small, as JPEG."""
        if self.pictures is None or name not in self._place:
            raise RefusedError(404, "no such picture in the data")
        image = Image.fromarray(self.pictures.image(self._place[name]))
        if max(image.size) > SIDE:
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        file = BytesIO()
        image.save(file, "JPEG", quality=90)
        return file.getvalue()

    def _name(self, result: Result) -> str:
        return result.path.relative_to(self.folder).with_suffix("").as_posix().removeprefix("posteriors/")

    def _test(self, name: str) -> Result:
        result = self.look().tests.get(name)
        if result is None:
            raise RefusedError(404, "no such test in this study")
        return result

    def _stamp(self) -> str:
        files = [*self.folder.rglob("*.parquet"), *self.folder.rglob(LOG), *self.folder.rglob("result.json")]
        states = [path.stat() for path in files if path.exists()]
        return f"{len(states)}-{max((state.st_mtime_ns for state in states), default=0)}"

    def _curves(self) -> list[dict[str, Any]]:
        curves = []
        for path in sorted(self.folder.rglob(LOG)):
            epochs = read_log(path.parent, "epoch")
            if epochs:
                key = "localization_error" if "localization_error" in epochs[0] else "top1_error"
                points = [[line["epoch"], line.get("train_error"), line.get(key)] for line in epochs]
                curves.append({"run": path.parent.name, "what": key.replace("_", " "), "points": points})
        return curves


def _error(test: Result) -> float:
    """Return the share of wrong pictures: top-1 error, or of boxes the error given the class."""
    return float((test.top1 if test.kind == "classes" else test.metrics["given_class"]).rate)


def _pictures(folder: Path, data: str | None) -> Dataset | None:
    """Return the test pictures; none where the folder does not say where they are, or they are gone."""
    file = StudyFolder(folder).path / "study.toml"
    about = parse_toml(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else {}
    split = about.get("preset", {}).get("split", "test")
    if data is not None:
        return open_dataset(data, split)
    try:
        return open_dataset(about["data"], split) if "data" in about else None
    except UserError:
        return None
