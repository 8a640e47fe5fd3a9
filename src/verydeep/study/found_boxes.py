"""The files of boxes in a study, and what their metadata says of networks and test."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verydeep.evaluation.protocol import Protocol
from verydeep.localization.guesses import Guesses, read_metadata
from verydeep.study.found import ORDER, files_in
from verydeep.study.published import Scales


@dataclass(frozen=True)
class BoxNetwork:
    """A localizer and how it was tested.

    Attributes
    ----------
    configuration : str
        The paper's letter.
    train : (int, int)
        Least and greatest S.
    regression : {"scr", "pcr"}
        One box for all classes, or one for each.
    trained_layers : {"fc", "all"}
        What was tuned.
    protocol : Protocol
        One central window, or all.
    batch_norm : bool
        Whether it has what the paper's have not.
    """

    configuration: str
    train: Scales
    regression: str
    trained_layers: str
    protocol: Protocol
    batch_norm: bool

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it stands in a table: by network, then as in Table 8, one scale before several."""
        how = (self.trained_layers == "all", self.regression == "pcr")
        scales = self.protocol.scales
        return (ORDER.index(self.configuration), self.train, how, self.protocol.kind, len(scales), scales)


@dataclass(frozen=True)
class TestedBoxes:
    """One file of boxes: of one network, or of several merged together."""

    path: Path
    networks: tuple[BoxNetwork, ...]
    guesses: Guesses


def find_boxes(study: Path) -> dict[tuple[str, str], list[TestedBoxes]]:
    """Return the files of boxes in a folder and below, by (data set, images), in the tables' order.

    Left out are boxes that are not merged yet, and networks of unknown training scales.

    Raises
    ------
    UserError
        No such folder, or a damaged file.
    """
    sets: dict[tuple[str, str], list[TestedBoxes]] = {}
    for path in files_in(study):
        about = read_metadata(path)
        members = about.get("fused") or [about]
        if about.get("boxes") and about.get("merging") and all(member.get("train_scales") for member in members):
            images = f"{about['split']}, {about['limit']}" if about.get("limit") else str(about["split"])
            found = TestedBoxes(path, tuple(map(_network, members)), Guesses.read(path))
            if found.guesses.counted.any():
                sets.setdefault((about["data"], images), []).append(found)
    for boxes in sets.values():
        boxes.sort(key=lambda tested: (len(tested.networks), [network.place for network in tested.networks]))
    return sets


def _network(about: dict[str, Any]) -> BoxNetwork:
    least, most = about["train_scales"]
    return BoxNetwork(
        about["configuration"],
        (least, most),
        about["regression"],
        about.get("trained_layers") or "all",
        Protocol.parse(about["protocol"]),
        bool(about.get("batch_norm")),
    )
