"""The folder of a study: whose it is, and what stands in it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.basics.files import claim, write_text
from verydeep.evaluation.protocol import Protocol
from verydeep.localization.guesses import read_metadata
from verydeep.nets.weights import weights_hash
from verydeep.results.plan import Preset, Run
from verydeep.training.run_folder import RunFolder


@dataclass(frozen=True)
class StudyFolder:
    """Paths of a study's files.

    Attributes
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def times(self) -> Path:
        """Seconds spent on testing each run, over all sittings."""
        return self.path / "testing-seconds.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def run(self, name: str) -> RunFolder:
        """Return the folder of a training run."""
        return RunFolder(self.path / "runs" / name)

    def posteriors(self, name: str) -> Path:
        """Return the folder of a run's posteriors."""
        return self.path / "posteriors" / name

    def boxes(self, name: str) -> Path:
        """Return the folder of a localizer's boxes."""
        return self.path / "boxes" / name

    def test(self, run: Run, protocol: Protocol) -> Path:
        """Return the file of a run's posteriors by a protocol, or of a localizer's boxes."""
        return (self.boxes if run.regression else self.posteriors)(run.name) / f"{protocol}.parquet"

    def union(self, members: Sequence[str]) -> Path:
        """Return the file of boxes that several tests give together, each named as "RUN PROTOCOL"."""
        return self.path / "boxes" / "unions" / f"{'+'.join(members).replace(' ', '-')}.parquet"

    def tested(self, run: Run) -> list[Protocol]:
        """Return the protocols that the run has been tested by, of those planned and their parts.

        Raises
        ------
        UserError
            A file holds the posteriors or boxes of other weights than the run's.
        """
        leaves = [] if run.regression else [leaf for protocol in run.protocols for leaf in protocol.leaves]
        files = {protocol: self.test(run, protocol) for protocol in dict.fromkeys([*run.protocols, *leaves])}
        about = {protocol: read_metadata(file) for protocol, file in files.items() if file.is_file()}
        what, key = ("boxes", "localizer_hash") if run.regression else ("posteriors", "weights_hash")
        weights = self.run(run.name).weights
        own = weights_hash(weights) if about and weights.is_file() else None
        for protocol, values in about.items():
            if values.get(key) != own:
                file = files[protocol]
                raise UserError(f"{file}: {what} of other weights than {weights}; remove {file.parent} to test anew")
        # Boxes without a rule of merging are the windows', which a stopped study has not merged yet.
        return [protocol for protocol, values in about.items() if not run.regression or values.get("merging")]

    def testing_seconds(self) -> dict[str, float]:
        """Return the seconds spent on testing each run."""
        if not self.times.is_file():
            return {}
        times: dict[str, float] = json.loads(self.times.read_text(encoding="utf-8"))
        return times

    def add_testing_seconds(self, name: str, seconds: float) -> None:
        """Count time spent on testing a run."""
        times = self.testing_seconds()
        write_text(self.times, json.dumps({**times, name: times.get(name, 0.0) + seconds}, indent=2))

    def claim(self, preset: Preset, data: str, look_only: bool = False) -> None:
        """Make the folder this study's, or find that it already is; UserError where it is another's.

        Parameters
        ----------
        preset : Preset
            What is to be done.
        data : str
            Name of the data set.
        look_only : bool
            Whether to write nothing.
        """
        wanted = {"data": data, "preset": preset.model_dump(mode="json", exclude_none=True)}
        # Runs that were trained by themselves are taken over.
        claim(self.path, wanted, "study.toml", "study", difference=_difference, taken_over="runs", look_only=look_only)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if there == here:
        return ""
    before, now = ((study.get("preset", {}).get("name"), study.get("data")) for study in (there, here))
    if before == now:
        return f"preset {now[0]} with other settings"
    return f"preset {before[0]} on {before[1]}, here it is {now[0]} on {now[1]}"
