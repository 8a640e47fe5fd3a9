"""`--part i/n`: whoever does which part, and whatever dies, the file is the same to the byte."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from tests.cli.test_evaluate import folder  # noqa: F401 (a fixture)
from verydeep.basics.errors import UserError
from verydeep.basics.lock import sole_writer
from verydeep.cli.evaluate import evaluate
from verydeep.cli.features import features
from verydeep.evaluation import evaluate as module
from verydeep.inference.parts import Part

app = typer.Typer()
app.command()(evaluate)
app.command()(features)


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_parts_have_everything_once() -> None:
    for things in range(9):
        for count in range(1, 6):
            parts = [Part(number, count).of(range(things)) for number in range(1, count + 1)]
            assert sorted(thing for part in parts for thing in part) == list(range(things))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match=f"--part {wrong}: expected NUMBER/COUNT"):
            Part.parse(wrong)


@pytest.mark.parametrize("count", [2, 3, 40])
def test_posteriors(count: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    words = ["evaluate", folder / "a.safetensors", "--data", folder / "data", "--protocol", "dense@64,72", "--memory"]
    words += ["64MiB", "--out"]
    run(*words, tmp_path / "whole")
    shares = [f"{number}/{count}" for number in range(1, count + 1)]
    for share in shares[1:]:  # the last is left to whoever gathers them
        assert "without --part the file is written" in run(*words, tmp_path / "parts", "--part", share)
    assert not list((tmp_path / "parts").glob("*.parquet"))
    done: list[int] = []
    work = module.Evaluator._work

    def watched(self, part, left, rows):  # type: ignore[no-untyped-def]
        done.extend(i for batch in left for i in batch)
        return work(self, part, left, rows)

    monkeypatch.setattr(module.Evaluator, "_work", watched)
    run(*words, tmp_path / "parts")
    assert len(done) < 2 * 28, "what the parts did is not done again"
    names = ("dense@64,72.parquet", "dense@64.parquet", "dense@72.parquet")
    for name in names:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(names)
    assert "0 of 28" in run(*words, tmp_path / "parts", "--part", "1/2"), "nothing is left to do"


def test_a_part_that_is_at_work_is_waited_for(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    words = [
        "evaluate",
        folder / "a.safetensors",
        "--data",
        folder / "data",
        "--protocol",
        "center@64",
        "--out",
        tmp_path,
    ]
    run(*words, "--part", "1/2")
    (part,) = tmp_path.glob(".*part-1-of-2")
    with sole_writer(part), pytest.raises(UserError, match="is at work in it"):
        run(*words)
    with pytest.raises(UserError, match="--part is for classes"):
        run(*words, "--task", "localize", "--part", "1/2")
    run(*words)
    assert [path.name for path in tmp_path.iterdir()] == ["center@64.parquet"]


def test_descriptors(folder: Path, tmp_path: Path) -> None:  # noqa: F811
    words = ["features", folder / "data" / "test", "--weights", folder / "a.safetensors", "--scales", "64"]
    run(*words, "--cache", tmp_path / "cache-1", "--out", tmp_path / "whole.parquet")
    for share in ("2/3", "1/3", "3/3"):
        run(*words, "--cache", tmp_path / "cache-2", "--out", tmp_path / "parts.parquet", "--part", share)
    assert not (tmp_path / "parts.parquet").exists()
    said = run(*words, "--cache", tmp_path / "cache-2", "--out", tmp_path / "parts.parquet")
    assert "nothing had to be computed" in said
    one, other = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert one.drop(["descriptor"]) == other.drop(["descriptor"])
    rows = [np.array(table["descriptor"].to_pylist()) for table in (one, other)]
    np.testing.assert_allclose(rows[0], rows[1], rtol=0, atol=1e-6)  # of length 1; batches are others
