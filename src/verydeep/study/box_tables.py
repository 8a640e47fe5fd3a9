"""The paper's Tables 8 and 9 from files of boxes, by their metadata alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.evaluation.protocol import Kind
from verydeep.localization.baselines import WHOLE, with_constant_box
from verydeep.localization.guesses import Guesses
from verydeep.localization.metrics import LocalizationFigures, figures
from verydeep.study import published
from verydeep.study.found_boxes import BoxNetwork, TestedBoxes, find_boxes
from verydeep.study.tables import PAPERS_DATA, Table, in_words, read_tables

NOTE_8 = "Error: share of images whose box for their true class has an IoU below 0.5. Nothing is merged."
NOTE_9 = (
    "Errors: a guess is wrong if its class is, or if its box has an IoU below 0.5 with every true one; the classes are "
    "the same in all rows."
)
LAYERS = {"fc": "FC only", "all": "all layers"}
WINDOWS: dict[Kind, str] = {"center": "one", "dense": "all, merged", "crops": "5x5, merged"}


@dataclass(frozen=True)
class BoxRow:
    """One row of a table.

    Attributes
    ----------
    network : str
        The paper's letter, or what stands in its place: a baseline.
    train, test : str
        S and each Q in pixels.
    boxes : str
        `SCR`, one for all classes, or `PCR`, one for each.
    layers : str
        What was tuned.
    windows : str
        One central window, all of the map's cells or a grid of crops, these merged.
    measured : LocalizationFigures or None
        None where the run is missing.
    paper : float or None
        The paper's error in %, where the data set is the paper's and it gives it.
    """

    network: str
    train: str
    test: str
    boxes: str
    layers: str
    windows: str
    measured: LocalizationFigures | None
    paper: float | None = None


@dataclass(frozen=True)
class BoxTable:
    """Table 8 or 9 for one set of images; attributes as those of `verydeep.study.tables.Table`."""

    number: str
    title: str
    data: str
    split: str
    rows: tuple[BoxRow, ...]
    note: str = ""

    @property
    def has_paper(self) -> bool:
        """Whether the paper's figures stand beside the measured ones."""
        return any(row.paper is not None for row in self.rows)


def read_box_tables(study: str | Path) -> list[BoxTable]:
    """Return Tables 8 and 9 as far as the files of boxes in a folder fill them, for each set of images its own.

    Table 8 has the localizers tested on one central window, on all images. Table 9 has every test, on the images that
    no threshold was chosen on. Both end with two boxes that cost nothing: the whole image, and the box that is right
    most often on the training images.

    Parameters
    ----------
    study : str or Path
        Folder with files of boxes, in it or in folders below.

    Raises
    ------
    UserError
        No such folder, or a damaged file.
    """
    sets = sorted(find_boxes(Path(study)).items())
    return [table for (data, split), found in sets for table in _tables(data, split, found)]


def every_table(study: str | Path) -> list[Table | BoxTable]:
    """Return the tables of posteriors and of boxes that a folder fills; UserError where there are none."""
    boxes = read_box_tables(study)
    try:
        return [*read_tables(study), *boxes]
    except UserError:
        if boxes:
            return list(boxes)
        raise


def _tables(data: str, split: str, found: Sequence[TestedBoxes]) -> Iterator[BoxTable]:
    is_papers = data == PAPERS_DATA
    central = [t for t in found if len(t.networks) == 1 and t.networks[0].protocol.kind == "center"]
    rows = [_row(tested, tested.guesses, _paper_8(tested.networks) if is_papers else None) for tested in central]
    if is_papers:
        rows += [_missing_8(s) for s in published.TABLE_8 if not any(row.paper == s.error for row in rows)]
    if rows:
        rows += _baselines(central[0].guesses) if central else []
        yield BoxTable("8", "boxes given the true class, one central window", data, split, tuple(rows), NOTE_8)
    share = max((t.guesses.metadata["merging"].get("held_out", 0.0) for t in found), default=0.0)
    tested_rows = [(t, t.guesses.without_held_out(share) if share else t.guesses) for t in found]
    rows = [_row(t, guesses, _paper_9(t.networks) if is_papers else None) for t, guesses in tested_rows]
    if is_papers:
        rows += [_missing_9(r) for r in published.TABLE_9 if not any(row.paper == r.top5 for row in rows)]
    if rows:
        rows += _baselines(tested_rows[0][1]) if tested_rows else []
        held = f" Without the {share:.0%} of the images that thresholds were chosen on." if share else ""
        yield BoxTable("9", "classes and boxes", data, split, tuple(rows), NOTE_9 + held)


def _row(tested: TestedBoxes, guesses: Guesses, paper: float | None) -> BoxRow:
    network, train, test, boxes, layers, windows = (
        " + ".join(dict.fromkeys(words)) for words in zip(*map(_words, tested.networks), strict=True)
    )
    return BoxRow(network, train, test, boxes, layers, windows, figures(guesses), paper)


def _words(network: BoxNetwork) -> tuple[str, ...]:
    name = f"{network.configuration} (batch norm)" if network.batch_norm else network.configuration
    return (
        name,
        in_words(network.train),
        ",".join(map(str, network.protocol.scales)),
        network.regression.upper(),
        LAYERS[network.trained_layers],
        WINDOWS[network.protocol.kind],
    )


def _baselines(guesses: Guesses) -> list[BoxRow]:
    boxes = {"whole image": WHOLE, "best constant box": guesses.metadata.get("best_constant_box")}
    if "fused" in guesses.metadata:
        boxes["best constant box"] = guesses.metadata["fused"][0].get("best_constant_box")
    found = {name: figures(with_constant_box(guesses, box)) for name, box in boxes.items() if box}
    return [BoxRow(name, "", "", "", "", "none", measured) for name, measured in found.items()]


def _paper_8(networks: Sequence[BoxNetwork]) -> float | None:
    (network,) = networks
    if (network.configuration, network.train, network.batch_norm) != ("D", published.LARGE, False):
        return None
    wanted = network.regression, network.trained_layers
    return next((s.error for s in published.TABLE_8 if wanted == (s.regression, s.trained_layers)), None)


def _paper_9(networks: Sequence[BoxNetwork]) -> float | None:
    papers = ("D", "pcr", "all", False, "dense")
    for n in networks:
        if (n.configuration, n.regression, n.trained_layers, n.batch_norm, n.protocol.kind) != papers:
            return None
    wanted = {(network.train, network.protocol.scales) for network in networks}
    return next((r.top5 for r in published.TABLE_9 if wanted == set(r.networks)), None)


def _missing_8(settings: published.BoxSettings) -> BoxRow:
    layers = LAYERS[settings.trained_layers]
    return BoxRow("D", "384", "384", settings.regression.upper(), layers, "one", None, settings.error)


def _missing_9(result: published.BoxResult) -> BoxRow:
    train = " + ".join(in_words(scales) for scales, _ in result.networks)
    test = " + ".join(",".join(map(str, scales)) for _, scales in result.networks)
    return BoxRow("D", train, test, "PCR", LAYERS["all"], "all, merged", None, result.top5)
