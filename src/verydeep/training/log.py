"""The run's log: JSON lines for programs, TensorBoard events, a line an epoch for the person who watches."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verydeep.basics.errors import UserError

LOG = "log.jsonl"


class RunLog:
    """Writes `log.jsonl` and `tensorboard/` in a run's folder; of several processes only the first `writes`.

    What a stopped run wrote after its last checkpoint - beyond byte `position` of the log, after `step` in TensorBoard
    - is cut off, so that the log reads as if the run had never stopped.
    """

    def __init__(
        self, folder: Path, position: int = 0, step: int = 0, quiet: bool = False, writes: bool = True
    ) -> None:
        self.quiet = quiet
        self.writes = writes
        if not writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        path = folder / LOG
        size = path.stat().st_size if path.is_file() else 0
        if size < position:
            raise UserError(
                f"{path}: has {size:,} of the {position:,} bytes that the run had written: put it back, or begin anew "
                "with another --out"
            )
        with path.open("ab") as file:
            file.truncate(position)
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    @property
    def position(self) -> int:
        """Bytes written so far, to be kept in a checkpoint."""
        self.file.flush()
        return self.file.tell()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Add one line of kind `train` (every few steps) or `epoch`; numbers also go to TensorBoard as `kind/name`."""
        if not self.writes:
            return
        self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, text: str) -> None:
        """Print a line on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Finish the files."""
        if self.writes:
            self.file.close()
            self.board.close()


def read_log(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the lines of one kind from a run's log, oldest first; none where there is no log.

    A last line that is not whole is left out: the run may be writing it, or have been killed over it.
    """
    path = folder / LOG
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    lines = (json.loads(line) for line in whole.splitlines())
    return [line for line in lines if line["kind"] == kind]


def best_epoch(epochs: Sequence[dict[str, Any]], figure: str) -> dict[str, Any]:
    """Return the line of the epoch whose network was kept: the least `figure`, of equals the least validation loss."""
    return min(epochs, key=lambda line: (float(line[figure]), float(line["val_loss"])))
