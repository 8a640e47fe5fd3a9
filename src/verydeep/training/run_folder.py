"""The folder of a run: whose it is, and what stands in it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError
from verydeep.basics.files import claim, file_hash, first_difference, read_text, write_text
from verydeep.checkpoints.converted import as_ours
from verydeep.checkpoints.public import is_name
from verydeep.datasets.content import content_digest
from verydeep.datasets.dataset import Dataset
from verydeep.training.log import LOG, read_log
from verydeep.training.recipe import AT_FIRST, Recipe, parse_toml, validate


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The effective recipe, with the command's own words in its section `run`."""
        return self.path / "recipe.toml"

    @property
    def checkpoint(self) -> Path:
        """All that is needed to continue."""
        return self.path / "last.ckpt"

    @property
    def weights(self) -> Path:
        """The network of the epoch with the least validation error."""
        return self.path / "best.safetensors"

    @property
    def log(self) -> Path:
        """A line for every 20 steps and every epoch."""
        return self.path / LOG

    @property
    def curves(self) -> Path:
        """Plot of loss, error and learning rate."""
        return self.path / "curves.png"

    @property
    def card(self) -> Path:
        """Model card; written last, so that its presence says that the run is finished."""
        return self.path / "card.md"

    @property
    def failed(self) -> Path:
        """What a run that has diverged ended with; gone when it is continued."""
        return self.path / "failed.txt"

    @property
    def checksums(self) -> Path:
        """SHA-256 of the other files of a finished run but the card; written just before it."""
        return self.path / "checksums.json"

    def seal(self) -> None:
        """Keep the checksums of what a finished run is read by."""
        files = (self.recipe, self.checkpoint, self.weights, self.log)
        write_text(self.checksums, json.dumps({file.name: file_hash(file) for file in files}, indent=1))

    def check_seal(self) -> None:
        """Raise UserError for the first file of a finished run that is gone, or is not what it was at the end."""
        if not self.checksums.is_file():  # a run of before
            return
        for name, digest in json.loads(self.checksums.read_text(encoding="utf-8")).items():
            file = self.path / name
            if not file.is_file() or file_hash(file) != digest:
                state = "has changed" if file.is_file() else "is gone"
                raise UserError(f"{file}: {state} since the run ended; put it back, or train anew with another --out")

    @property
    def doubt(self) -> str:
        """Why the weights are not those of a finished run, in words; empty where they are, or this is no run."""
        if not self.recipe.is_file() or self.card.is_file():
            return ""
        if self.failed.is_file():
            return f"training failed: {self.failed.read_text(encoding='utf-8').strip()}"
        done = [line["epoch"] for line in read_log(self.path, "epoch")]
        epochs = parse_toml(read_text(self.recipe), str(self.recipe))["schedule"]["epochs"]
        return f"training is not finished (epoch {max(done, default=0)} of {epochs})"

    def claim(self, recipe: Recipe, words: dict[str, str], *, look_only: bool = False) -> None:
        """Make the folder this run's; UserError where it holds another, by recipe or command, or what is no run."""
        identity = {"run": words, **recipe.model_dump(mode="json")}
        claim(self.path, identity, self.recipe.name, "run", difference=self._difference, look_only=look_only)

    @property
    def engine(self) -> str | None:
        """The engine that the run there began with; None where there is none yet."""
        there = parse_toml(read_text(self.recipe), str(self.recipe)) if self.recipe.is_file() else None
        return None if there is None else str(there.get("engine", AT_FIRST))

    def _difference(self, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
        words, wanted = there.get("run", {}), here["run"]
        # Validated, so that a run from before a key was there counts with the key's default.
        known = {"engine": AT_FIRST, **{key: value for key, value in there.items() if key != "run"}}
        recipe = validate(known, self.recipe)
        if "content_sha256" not in words:  # a run from before contents were looked at
            wanted = {key: value for key, value in wanted.items() if key != "content_sha256"}
        before = {"run": _without_places(words), **recipe.model_dump(mode="json")}
        difference = first_difference(before, {**here, "run": _without_places(wanted)})
        if difference.startswith("run.data_sha256"):
            return f"of {words.get('data')}: other images or labels than {wanted['data']} has now"
        if difference.startswith("run.content_sha256"):
            return f"of {words.get('data')}: the images of {wanted['data']} have changed since, under the same names"
        return difference


def _without_places(words: Mapping[str, str]) -> dict[str, str]:
    """Return what names a run without where data and first weights lie: their hashes stand for them."""
    return {key: value for key, value in words.items() if key not in ("data", "init_from")}


def find_weights(source: str | Path) -> Path:
    """Return the weights file that a run's folder, a path or the name of public weights stands for; UserError for none.

    Files of other projects are converted once, and kept: see `verydeep.checkpoints.converted`. A run that is not
    finished, or has failed, is named on stderr, once: its network is half-made.
    """
    if is_name(str(source)):
        return as_ours(str(source))
    path = Path(source)
    weights = RunFolder(path).weights if path.is_dir() else path
    folder = RunFolder(weights.parent)
    doubt = folder.doubt if weights.name == folder.weights.name else ""
    if not weights.is_file():
        missing = f"a run without {weights.name} ({doubt or 'not trained yet?'})"
        raise UserError(f"{path}: {missing if path.is_dir() else 'no such weights file or run'}")
    if doubt:
        _warn(f"{path}: {doubt}: figures are those of a half-made network")
    return as_ours(str(weights))


@cache  # a command asks for the same weights several times
def _warn(text: str) -> None:
    print(f"verydeep: warning: {text}", file=sys.stderr, flush=True)


def source_words(
    net: str,
    data: str | Path,
    training: Dataset,
    validation: Dataset,
    init_from: str | Path | None,
    task: dict[str, str] | None = None,
) -> dict[str, str]:
    """Return what names a run beside its recipe: data and first weights by content, not by the place they lie in."""
    prints = training.fingerprint(boxes=bool(task)) + validation.fingerprint(boxes=bool(task))
    words = {"net": net, "data": str(data), "data_sha256": sha256(prints.encode()).hexdigest(), **(task or {})}
    if content := content_digest(training) + content_digest(validation):
        words["content_sha256"] = sha256(content.encode()).hexdigest()
    if init_from is not None:
        words["init_from"] = str(init_from)
        words["init_from_sha256"] = file_hash(find_weights(init_from))
    return words
