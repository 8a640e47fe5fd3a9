"""Everything that changes while a run goes on, and its checkpoint."""

import math
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from verydeep.basics.errors import UserError
from verydeep.basics.files import write_aside
from verydeep.nets.network import Network
from verydeep.training.schedule import Schedule
from verydeep.training.step import MovingAverage

_DAMAGE = (
    RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile
)  # fmt: skip
"""What readers raise for a file that is not as it was written."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    step : int
        Steps of the current epoch that are done.
    steps : int
        Steps done since the run began.
    seconds : float
        Time spent training, over all sittings.
    loss_sum, wrong_sum : float
        Sums over the current epoch's steps of the batch's mean loss and error.
    log_position : int
        Bytes of the log that belong to this state.
    recent_sum, before : float
        Sum of the losses since the last whole number of 20 steps, and mean loss of the 20 steps before, at first
        the first step's.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    wrong_sum: float = 0.0
    log_position: int = 0
    recent_sum: float = 0.0
    before: float = math.inf


@dataclass
class State:
    """What a checkpoint holds: weights, momentum, moving average, schedule, progress."""

    net: Network
    optimizer: torch.optim.SGD
    schedule: Schedule
    average: MovingAverage | None
    progress: Progress = field(default_factory=Progress)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        values: dict[str, Any] = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": vars(self.progress),
        }
        if self.average:
            values["average"] = {"steps": self.average.steps, "tensors": self.average.average}
        with write_aside(path) as aside, aside.open("wb") as file:  # torch's own writer has no OSError for a full disk
            torch.save(values, file)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; UserError where the file is damaged."""
        device = next(self.net.parameters()).device
        try:
            with zipfile.ZipFile(path) as records:  # whose checksums torch does not look at
                if damaged := records.testzip():
                    raise ValueError(f"{damaged} has changed since it was written")
            self._take(torch.load(path, map_location=device, weights_only=True))
        except (
            RuntimeError,
            EOFError,
            OSError,
            KeyError,
            TypeError,
            ValueError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
        ) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{path}: damaged checkpoint ({reason}); remove it to begin the run anew") from None

    def _take(self, values: dict[str, Any]) -> None:
        self.net.load_state_dict(values["net"])
        self.optimizer.load_state_dict(values["optimizer"])
        self.schedule.load_state_dict(values["schedule"])
        self.progress = Progress(**values["progress"])
        if self.average:
            self.average.steps = values["average"]["steps"]
            self.average.average = values["average"]["tensors"]
