"""The folder of a study: whose it is, and what stands in it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_text
from verydeep.evaluation.posteriors import Posteriors
from verydeep.evaluation.protocol import Protocol
from verydeep.localization.guesses import read_metadata
from verydeep.nets.weights import weights_hash
from verydeep.study.plan import Run
from verydeep.study.preset import Preset
from verydeep.training.recipe import parse_toml
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
    def settings(self) -> Path:
        """What is done here: preset and data."""
        return self.path / "study.toml"

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

    def union(self, members: Sequence[str]) -> Path:
        """Return the file of boxes that several tests give together, each named as "RUN PROTOCOL"."""
        return self.path / "boxes" / "unions" / f"{'+'.join(members).replace(' ', '-')}.parquet"

    def tested(self, run: Run) -> list[Protocol]:
        """Return the protocols that the run has been tested by, of those planned and their parts.

        Raises
        ------
        UserError
            A file holds the posteriors of other weights than the run's.
        """
        if run.regression:
            return self._tested_boxes(run)
        weights, folder = self.run(run.name).weights, self.posteriors(run.name)
        planned = dict.fromkeys([*run.protocols, *(leaf for protocol in run.protocols for leaf in protocol.leaves)])
        there = [protocol for protocol in planned if (folder / f"{protocol}.parquet").is_file()]
        own = weights_hash(weights) if there and weights.is_file() else None
        for protocol in there:
            path = folder / f"{protocol}.parquet"
            if Posteriors.read(path).metadata.get("weights_hash") != own:
                raise UserError(f"{path}: posteriors of other weights than {weights}; remove {folder} to test anew")
        return there

    def _tested_boxes(self, run: Run) -> list[Protocol]:
        weights, folder = self.run(run.name).weights, self.boxes(run.name)
        found = {protocol: folder / f"{protocol}.parquet" for protocol in run.protocols}
        about = {protocol: read_metadata(path) for protocol, path in found.items() if path.is_file()}
        own = weights_hash(weights) if about and weights.is_file() else None
        for protocol, values in about.items():
            if values.get("localizer_hash") != own:
                raise UserError(f"{found[protocol]}: boxes of other weights than {weights}; remove {folder}")
        # Without a rule of merging they are the windows' boxes, which a stopped study has not merged yet.
        return [protocol for protocol, values in about.items() if values.get("merging")]

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

    def check(self, preset: Preset, data: str) -> str:
        """Return the settings as text, or raise UserError where the folder holds another study.

        Parameters
        ----------
        preset : Preset
            What is to be done.
        data : str
            Name of the data set.
        """
        wanted = {"data": data, "preset": preset.model_dump(mode="json", exclude_none=True)}
        if self.settings.is_file():
            there = parse_toml(self.settings.read_text(encoding="utf-8"), str(self.settings))
            if there != wanted:
                before = there.get("preset", {}).get("name"), there.get("data")
                now = preset.name, data
                what = f"preset {before[0]} on {before[1]}, here it is {now[0]} on {now[1]}"
                what = what if before != now else f"preset {now[0]} with other settings"
                raise UserError(f"{self.path}: holds another study ({what}); choose another --out or remove it")
        elif self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is no folder; choose another --out")
        elif self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "runs").is_dir():
            raise UserError(f"{self.path}: is there already and holds no study; choose another --out")
        return tomli_w.dumps(wanted)

    def claim(self, preset: Preset, data: str) -> None:
        """Make the folder this study's, or find that it already is; UserError where it is another's."""
        text = self.check(preset, data)
        if not self.settings.is_file():
            write_text(self.settings, text)
