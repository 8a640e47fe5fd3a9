"""Localizers in a study: their tests, the thresholds of merging, unions, and whether they find enough."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.datasets.dataset import Dataset
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.posteriors import Posteriors
from verydeep.evaluation.protocol import Protocol
from verydeep.localization.baselines import with_constant_box
from verydeep.localization.evaluate import BoxEvaluator
from verydeep.localization.guesses import Guesses, read_metadata
from verydeep.localization.localize import DEFAULT_RULE
from verydeep.localization.merging import MergeRule
from verydeep.localization.metrics import figures
from verydeep.localization.rating import merge_guesses
from verydeep.localization.tuning import tune
from verydeep.study.folder import StudyFolder
from verydeep.study.plan import Run


def test_boxes(
    folder: StudyFolder,
    run: Run,
    protocols: Iterable[Protocol],
    labels: Sequence[str],
    testing: Dataset,
    device: str,
    skip_bad_boxes: bool,
) -> None:
    """Test a localizer by some protocols, its boxes rated by the classifier that it was made from.

    Where a picture has several windows, the threshold of merging is the best one on a held-out part of the pictures.

    Parameters
    ----------
    folder : StudyFolder
        With the weights of both.
    run : Run
        The localizer.
    protocols : iterable of Protocol
        Tests to do.
    labels : sequence of str
        Runs whose posteriors, averaged, name the classes; the classifier alone where empty.
    testing : Dataset
        The images, opened with their boxes.
    device : str
        `auto`, `cpu`, `cuda` or `mps`.
    skip_bad_boxes : bool
        Whether images with bad boxes are left out; else they are an error.
    """
    assert run.init_from is not None
    evaluator = BoxEvaluator(
        folder.run(run.init_from).weights,
        folder.run(run.name).weights,
        testing,
        posteriors=_labels(folder, labels or [run.init_from]),
        precision=run.recipe.precision,
        device=device,
        cache=folder.boxes(run.name),
        skip_bad_boxes=skip_bad_boxes,
    )
    for protocol in protocols:
        windows = evaluator.guesses(protocol, None)
        evaluator.guesses(protocol, _rule([windows]))


def _labels(folder: StudyFolder, names: Sequence[str]) -> Posteriors:
    """Return the mean of some classifiers, each by the dense test with the most scales that it has."""
    files = [max(folder.posteriors(name).glob("dense@*.parquet"), key=_scales) for name in names]
    return fuse([Posteriors.read(file) for file in files], list(map(str, files)))


def _scales(file: Path) -> tuple[int, str]:
    return len(Protocol.parse(file.stem).scales), file.stem


def _rule(parts: Sequence[Guesses]) -> MergeRule:
    """Return how boxes are merged: as is best on held-out pictures, where there is anything to merge."""
    if sum(max(map(len, part.windows)) for part in parts) == 1:
        return DEFAULT_RULE
    tuned = tune(parts)
    return tuned.rule_for(tuned.data, tuned.split)


def merge_unions(folder: StudyFolder, unions: Iterable[Sequence[str]]) -> None:
    """Merge the boxes of several tests together, each named as "RUN PROTOCOL", where all of these are there."""
    for members in unions:
        files = [
            folder.boxes(name) / f"{protocol}.parquet" for name, _, protocol in (m.partition(" ") for m in members)
        ]
        if not all(file.is_file() for file in files):
            continue
        parts, out = [Guesses.read(file) for file in files], folder.union(members)
        if not out.is_file() or read_metadata(out).get("fused") != [part.metadata for part in parts]:
            merge_guesses(parts, _rule(parts), [str(file) for file in files]).write(out)


@dataclass(frozen=True)
class HitCheck:
    """Whether a localizer finds as many objects as its preset expects.

    Attributes
    ----------
    run, protocol : str
        Which localizer, and how it was tested.
    images : int
        How many.
    hits, least : float
        Share of the images whose box, given the class, has an IoU of at least 0.5, and the least share expected.
    constant : float
        The share with the box, the same in all pictures, that is right most often on the training images.
    """

    run: str
    protocol: str
    images: int
    hits: float
    least: float
    constant: float

    @property
    def passed(self) -> bool:
        """Whether it finds enough."""
        return self.hits >= self.least


def check_hits(folder: StudyFolder, runs: Iterable[Run]) -> list[HitCheck]:
    """Return the checks of the localizers that have been tested and of which their preset expects something."""
    checks = []
    for run in runs:
        file = folder.boxes(run.name) / f"{run.protocols[0]}.parquet"
        if run.least_hits is not None and file.is_file():
            guesses = Guesses.read(file)
            constant = figures(with_constant_box(guesses, guesses.metadata["best_constant_box"])).given_class.rate
            found = figures(guesses)
            shares = 1 - found.given_class.rate, run.least_hits, 1 - constant
            checks.append(HitCheck(run.name, str(run.protocols[0]), found.images, *shares))
    return checks
