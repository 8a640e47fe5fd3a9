"""A whole study: train what is missing, test what is missing, write the report."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.basics.lock import sole_writer
from verydeep.datasets.boxes import with_boxes
from verydeep.datasets.dataset import Dataset
from verydeep.datasets.opening import Reading
from verydeep.evaluation.evaluate import Evaluator
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.parquet import read_metadata
from verydeep.evaluation.posteriors import Posteriors
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.localization.detections import Detections
from verydeep.localization.evaluate import BoxEvaluator
from verydeep.localization.localize import DEFAULT_RULE
from verydeep.localization.merging import MergeRule
from verydeep.localization.scoring import merge_detections
from verydeep.localization.task import Localization
from verydeep.localization.tuning import tune
from verydeep.results.plan import possible_runs
from verydeep.results.report import HitCheck, check_hits, write_report
from verydeep.results.result import read_results
from verydeep.results.study import Preset, Run, StudyFolder, load_preset, make_plan
from verydeep.results.table import Table
from verydeep.results.tables import make_tables
from verydeep.training.train import train


@dataclass(frozen=True)
class Outcome:
    """What a study has come to: its tables, whether its localizers find enough, and the report."""

    tables: tuple[Table, ...]
    checks: tuple[HitCheck, ...]
    report: Path


@dataclass(frozen=True)
class _Study:
    """What is asked for."""

    preset: Preset
    folder: StudyFolder
    data: str | Path
    testing: Dataset
    device: str
    reading: Reading
    quiet: bool

    @property
    def skip_bad_boxes(self) -> bool:
        return self.reading.on_bad_image == "skip"


def reproduce(
    preset: str,
    data: str | Path,
    out: str | Path,
    *,
    only: Iterable[str] = (),
    device: str = "auto",
    reading: Reading = Reading(),  # noqa: B008 (frozen)
    quiet: bool = False,
) -> Outcome:
    """Do a study in the folder `out`: train and test the runs of a preset (its name or file), and write the report.

    What is already there is not done again, so a stopped study continues with the same call. `only` some runs are done,
    with those that they start from. Runs for boxes are left out where the images of a split have none. A damaged image,
    or in localization a bad box, is an error or is skipped, as `reading` says. UserError: a wrong request; `out` holds
    another study, or a run of other settings; `only` names a run for boxes that the data set does not have.
    """
    chosen = load_preset(preset)
    runs = possible_runs(make_plan(chosen, only), only, data, chosen.split, reading)
    testing = reading.open(data, chosen.split, boxes=any(run.regression for run in runs))
    study = _Study(chosen, StudyFolder(Path(out)), data, testing, device, reading, quiet)
    with sole_writer(study.folder.path):
        study.folder.claim(chosen, testing.name)
        for number, run in enumerate(runs, start=1):
            if not quiet:
                start = f"from {run.init_from}" if run.init_from else "from random weights"
                print(f"[{number}/{len(runs)}] {run.name}, {start}", file=sys.stderr, flush=True)
            _train(study, run)
            _test(study, run)
        _merge_unions(study.folder, chosen.unions)
        return _report(study, runs)


def _train(study: _Study, run: Run) -> None:
    train(
        run.configuration,
        study.data,
        run.recipe,
        study.folder.run(run.name).path,
        task=Localization(run.regression, study.skip_bad_boxes) if run.regression else None,
        init_from=study.folder.run(run.init_from).path if run.init_from else None,
        device=study.device,
        reading=study.reading,
        quiet=study.quiet,
    )


def _test(study: _Study, run: Run) -> None:
    tested = study.folder.tested(run)
    missing = [protocol for protocol in run.protocols if protocol not in tested]
    begun = time.monotonic()
    try:
        if missing:
            (_test_boxes if run.regression else _test_classes)(study, run, missing)
    finally:
        if missing:
            study.folder.add_testing_seconds(run.name, time.monotonic() - begun)


def _test_classes(study: _Study, run: Run, protocols: Iterable[Protocol]) -> None:
    evaluator = Evaluator(
        study.folder.run(run.name).weights,
        study.testing,
        runtime=Runtime(study.device, precision=run.recipe.precision),  # tested in the arithmetic it was trained in
        cache=study.folder.posteriors(run.name),
    )
    for protocol in protocols:
        evaluator.posteriors(protocol)


def _test_boxes(study: _Study, run: Run, protocols: Iterable[Protocol]) -> None:
    """Test a localizer, its boxes rated by the classifier that it was made from.

    The mean of the preset's `labels` names the classes, the classifier alone where there are none. Where a picture has
    several windows, the threshold of merging is the best one on a held-out part of the pictures.
    """
    assert run.init_from is not None
    folder = study.folder
    # Each classifier by the dense test with the most scales that it has.
    every = [folder.posteriors(name).glob("dense@*.parquet") for name in study.preset.labels or [run.init_from]]
    best = [max(files, key=lambda file: (len(Protocol.parse(file.stem).scales), file.stem)) for files in every]
    evaluator = BoxEvaluator(
        folder.run(run.init_from).weights,
        folder.run(run.name).weights,
        with_boxes(study.testing, study.skip_bad_boxes)[0],
        posteriors=fuse([Posteriors.read(file) for file in best], list(map(str, best))),
        runtime=Runtime(study.device, precision=run.recipe.precision),
        cache=folder.boxes(run.name),
    )
    for protocol in protocols:
        evaluator.detections(protocol, _rule([evaluator.detections(protocol, None)]))


def _rule(parts: Sequence[Detections]) -> MergeRule:
    """Return how boxes are merged: as is best on held-out pictures, where there is anything to merge."""
    if sum(max(map(len, part.windows)) for part in parts) == 1:
        return DEFAULT_RULE
    tuned = tune(parts)
    return tuned.rule_for(tuned.data, tuned.split)


def _merge_unions(folder: StudyFolder, unions: Iterable[Sequence[str]]) -> None:
    """Merge the boxes of several tests together, each named as "RUN PROTOCOL", where all of these are there."""
    for members in unions:
        names = [member.partition(" ") for member in members]
        files = [folder.boxes(run) / f"{protocol}.parquet" for run, _, protocol in names]
        if not all(file.is_file() for file in files):
            continue
        parts, out = [Detections.read(file) for file in files], folder.union(members)
        if not out.is_file() or read_metadata(out).get("fused") != [part.metadata for part in parts]:
            merge_detections(parts, _rule(parts), [str(file) for file in files]).write(out)


def _report(study: _Study, runs: Sequence[Run]) -> Outcome:
    results = read_results(study.folder.path)
    tables, every = make_tables(results), make_plan(study.preset)
    write_report(study.folder, study.preset, every, study.testing, str(study.data), results, tables, study.device)
    return Outcome(tuple(tables), tuple(check_hits(study.folder, runs, results)), study.folder.report)
