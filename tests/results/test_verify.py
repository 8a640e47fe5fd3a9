"""The paper's figures with given weights: which tests, and verdicts; on a handful of ILSVRC's own photographs."""

import json
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import verydeep as vd
from verydeep.basics.errors import UserError
from verydeep.cli import reproduce as module
from verydeep.evaluation.metrics import ErrorRate
from verydeep.inference.protocol import Protocol
from verydeep.nets.run_info import RunInfo
from verydeep.results.verify import Claim, Verification, claims

app = typer.Typer()
app.command()(module.reproduce)


def test_the_claims_are_the_papers_rows_for_d_and_e() -> None:
    found = [
        (claim.table, " + ".join(claim.networks), str(claim.protocol), claim.top1, claim.top5) for claim in claims()
    ]
    multi = "256,384,512"
    assert found == [
        ("3", "D", "dense@384", 25.6, 8.1),
        ("3", "E", "dense@384", 25.5, 8.0),
        ("4", "D", f"dense@{multi}", 24.8, 7.5),
        ("4", "E", f"dense@{multi}", 24.8, 7.5),
        ("5", "D", f"dense@{multi}", 24.8, 7.5),
        ("5", "D", f"crops@{multi}", 24.6, 7.5),
        ("5", "D", f"dense+crops@{multi}", 24.4, 7.2),
        ("5", "E", f"dense@{multi}", 24.8, 7.5),
        ("5", "E", f"crops@{multi}", 24.6, 7.4),
        ("5", "E", f"dense+crops@{multi}", 24.4, 7.1),
        ("6", "D + E", f"dense@{multi}", 24.0, 7.1),
        ("6", "D + E", f"crops@{multi}", 23.9, 7.2),
        ("6", "D + E", f"dense+crops@{multi}", 23.7, 6.8),
    ]


@pytest.mark.parametrize(
    ("top1", "top5", "passed"),
    [(0.253, 0.084, True), (0.259, 0.078, True), (0.2529, 0.081, False), (0.256, 0.0841, False)],
)
def test_a_figure_passes_within_three_tenths_of_a_point(top1: float, top5: float, passed: bool) -> None:
    rates = {name: ErrorRate(rate, rate, rate) for name, rate in (("top1", top1), ("top5", top5))}
    claim = Claim("3", ("D",), Protocol("dense", (384,)), 25.6, 8.1, rates)
    assert claim.passed is passed
    assert claim.differences == pytest.approx((100 * top1 - 25.6, 100 * top5 - 8.1))


@pytest.fixture
def imagenet(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Six photographs laid out as ILSVRC's val folder, with ground truth, and weights D and E; return the classes."""
    monkeypatch.chdir(tmp_path)
    folder = Path("IMAGENET_VAL")
    folder.mkdir()
    rows, classes = ["ImageId,PredictionString"], []
    with tarfile.open(shared_data / "imagenet-samples.tar") as archive:
        members = [member for member in archive if member.name.endswith(".JPEG")][::37]
        for number, member in enumerate(members, start=1):
            classes.append(Path(member.name).name.partition("_")[0])
            content = archive.extractfile(member)
            assert content is not None
            (folder / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(content.read())
            rows.append(f"ILSVRC2012_val_{number:08d},{classes[-1]} 1 2 3 4")
    (folder / "LOC_val_solution.csv").write_text("\n".join(rows))
    for name in "DE":
        # Named as in public weights: the WordNet id, then the words.
        net = vd.create(
            name, [f"{wnid} something" for wnid in sorted(classes)], width=1 / 64, fc_width=4, image_size=32
        )
        vd.save(net, Path(name))
    return classes


def _run(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status
    return result.stdout


def test_the_example_of_the_help_tests_every_protocol_and_says_what_was_missed(imagenet: list[str]) -> None:
    shown = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ").split())
    assert module.EXAMPLE_PUBLISHED in shown
    words = shlex.split(module.EXAMPLE_PUBLISHED)[2:]
    plan = _run(*words, "--dry-run")
    assert f"{len(imagenet)} images of ilsvrc-2012-{len(imagenet)}" in plan
    assert not Path("published").exists()
    out = _run(*words, status=1)
    assert "published figures are for the 50,000 validation images" in out
    # The measured figures, computed once more from the posteriors written.
    values = json.loads(_run(*words, "--json", status=1))
    assert len(values["results"]) == 13
    for result in values["results"]:
        files = [Path("published/posteriors") / name / f"{result['protocol']}.parquet" for name in result["networks"]]
        parts = [vd.Posteriors.read(file) for file in files]
        mean = np.mean([part.probabilities.astype(np.float64) for part in parts], axis=0)
        wnids = [name.partition(" ")[0] for name in parts[0].classes]
        assert [wnids[label] for label in parts[0].labels] == imagenet
        wrong = 100 * (mean.argmax(axis=1) != parts[0].labels).mean()
        assert result["measured"]["top1_error"] == pytest.approx(wrong)
        published = result["published"]
        assert result["passed"] is (
            abs(result["measured"]["top1_error"] - published["top1_error"]) <= 0.3
            and abs(result["measured"]["top5_error"] - published["top5_error"]) <= 0.3
        )
        assert f"{wrong - published['top1_error']:+.2f}" in out


def test_wrong_weights_are_refused_before_anything_is_tested(imagenet: list[str]) -> None:
    data = "IMAGENET_VAL"
    with pytest.raises(UserError, match="E: holds configuration E, expected D"):
        Verification(data, {"D": "E", "E": "E"}, Path("out"))
    net = vd.load("D")
    net.provenance = RunInfo(train_scales=(256, 256))
    vd.save(net, "D256")
    with pytest.raises(UserError, match=r"trained at S in 256, .* are for \[256;512\]"):
        Verification(data, {"D": "D256", "E": "E"}, Path("out"))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--preset published --data . --weights-d D", "needs --data .* --weights-e"),
        ("--preset published --weights-d D --weights-e E", "needs --data"),
        ("--preset published --data . --weights-d D --weights-e E --only A-s256", "trains none"),
        ("--preset demo --data scenes --out x --weights-d D", "are for --preset published"),
        ("--preset publishd --dry-run", "and published with --weights-d"),
    ],
)
def test_wrong_requests_are_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _run(*shlex.split(words))
