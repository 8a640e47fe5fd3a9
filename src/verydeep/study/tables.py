"""The paper's Tables 3 to 6 from posteriors files, by their metadata alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.posteriors import Posteriors
from verydeep.evaluation.protocol import Kind, Protocol
from verydeep.study import published
from verydeep.study.found import BATCH_NORM, FC_ONLY, Measured, Network, Tested, find, measure
from verydeep.study.published import Scales

PAPERS_DATA = "ilsvrc-2012"
METHODS: tuple[Kind, ...] = ("dense", "crops", "dense+crops")
SHALLOW_NOTE = (
    f"On ILSVRC-2012 the paper found B-5x5 worse by {published.SHALLOW_B_LOSS:g} points of top-1 error; "
    "it does not give the two errors."
)

ALL_BATCH_NORM_NOTE = "All networks have batch norm, which the paper's have not."


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    network : str
        The paper's letter, or the letters of a fusion.
    train : str
        S in pixels: `256`, or `[256;512]` for a range.
    test : str
        Each Q in pixels.
    method : {"center", "dense", "crops", "dense+crops"}
        As in protocols.
    measured : Measured or None
        None where the run is missing.
    paper : (float, float) or None
        The paper's top-1 and top-5 error in %, where the data set is the paper's and it gives them.
    """

    network: str
    train: str
    test: str
    method: str
    measured: Measured | None
    paper: tuple[float, float] | None = None


@dataclass(frozen=True)
class Table:
    """One table for one set of images.

    Attributes
    ----------
    number : str
        Of the paper's table, or its section.
    title : str
        What it compares.
    data, split : str
        Which images.
    rows : tuple of Row
        In the paper's order.
    note : str
        What a reader must know; may be empty.
    """

    number: str
    title: str
    data: str
    split: str
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def has_paper(self) -> bool:
        """Whether the paper's figures stand beside the measured ones."""
        return any(row.paper for row in self.rows)


# A network and the scales it is tested at.
Entry = tuple[Network, tuple[int, ...]]


def read_tables(study: str | Path) -> list[Table]:
    """Return the tables that the posteriors in a folder fill, for each set of images its own.

    Networks are placed by configuration and training scales, tests by their protocol. Where the paper has a row for
    a configuration that the study has, and the file for it is missing, the cell is empty; on ILSVRC-2012 all of the
    paper's rows are there.

    Parameters
    ----------
    study : str or Path
        Folder with posteriors files, in it or in folders below.

    Raises
    ------
    UserError
        No posteriors there, or a damaged file.
    """
    sets = sorted(find(Path(study)).items())
    return [table for (data, split), found in sets for table in Results(data, split, found).tables()]


class Results:
    """The tests of one study on one set of images."""

    def __init__(self, data: str, split: str, found: Sequence[Tested]) -> None:
        self.data, self.split = data, split
        self.is_papers = data == PAPERS_DATA
        # What all networks of a study share sets none of them apart; the paper's figures are for those without.
        self.all_batch_norm = not self.is_papers and all(BATCH_NORM in tested.network.variant for tested in found)
        found = [replace(tested, network=self._kin(tested.network)) for tested in found]
        self.tests: dict[tuple[Network, Protocol], Tested] = {}
        for tested in found:
            other = self.tests.setdefault((tested.network, tested.protocol), tested)
            if other is not tested:
                twice = f"one network, tested twice by {tested.protocol}"
                raise UserError(f"{other.path} and {tested.path}: {twice}; remove one of them")
        self.networks = sorted({network for network, _ in self.tests}, key=lambda network: network.place)
        self.scales = self._own_scales()

    def _kin(self, network: Network) -> Network:
        if not self.all_batch_norm:
            return network
        return replace(network, variant=tuple(word for word in network.variant if word != BATCH_NORM))

    def tables(self) -> Iterator[Table]:
        """Yield the tables that have something to show."""
        made = (
            ("3", "one test scale, dense evaluation", self._single(), ""),
            ("4", "several test scales, dense evaluation", self._several(), ""),
            ("5", "dense evaluation, multi-crop, and both", self._methods(), ""),
            ("6", "fusion: the mean of networks' posteriors", self._fusions(), ""),
            ("4.1", "B against a shallow net with 5x5 filters, one central crop", self._shallow(), SHALLOW_NOTE),
        )
        for number, title, rows, note in made:
            if any(row.measured for row in rows) or (self.is_papers and rows):
                note = " ".join(filter(None, [note, ALL_BATCH_NORM_NOTE if self.all_batch_norm else ""]))
                yield Table(number, title, self.data, self.split, tuple(rows), note)

    def _own_scales(self) -> dict[Scales, Scales]:
        """Return the study's training scales that stand for the paper's 256, 384 and [256;512]."""
        papers = (published.SMALL, published.LARGE, published.JITTER)
        if self.is_papers:
            return dict(zip(papers, papers, strict=True))
        trained = sorted({network.train for network in self.networks if not network.variant})
        fixed = [scales for scales in trained if scales[0] == scales[1]]
        jitter = [scales for scales in trained if scales[0] < scales[1]]
        return dict([*zip(papers, fixed, strict=False), *zip(papers[2:], jitter, strict=False)])

    def of(self, network: Network, kind: Kind, several: bool) -> list[Tested]:
        """Return a network's tests of one kind, at one scale or at several."""
        return [
            tested
            for (owner, protocol), tested in self.tests.items()
            if owner == network and protocol.kind == kind and (len(protocol.scales) > 1) == several
        ]

    def single(self, network: Network) -> list[Tested]:
        """Return a network's dense tests at the paper's one scale: Q = S, or half of Smin + Smax.

        Where that one is missing, the tests at other scales, but for those that only served for a mean of several.
        """
        tests = self.of(network, "dense", several=False)
        parts = {scale for tested in self.of(network, "dense", several=True) for scale in tested.protocol.scales}
        usual = [tested for tested in tests if tested.protocol.scales == (sum(network.train) // 2,)]
        return usual or [tested for tested in tests if tested.protocol.scales[0] not in parts] or tests

    def _single(self) -> list[Row]:
        """Table 3."""
        return self._rows([t for n in self.networks for t in self.single(n)], published.TABLE_3)

    def _several(self) -> list[Row]:
        """Table 4."""
        return self._rows([t for n in self.networks for t in self.of(n, "dense", several=True)], published.TABLE_4)

    def _rows(self, tests: Sequence[Tested], papers: Sequence[published.Result]) -> list[Row]:
        """Return a row for every test, and an empty one where the paper has a row and the study no test."""
        rows = [(t.network.place, self._row(t.network, t.protocol, t.measured)) for t in tests]
        there = {(t.network.configuration, t.network.train) for t in tests if not t.network.variant}
        usual: dict[Scales, Counter[tuple[int, ...]]] = {}
        for tested in tests:
            usual.setdefault(tested.network.train, Counter())[tested.protocol.scales] += 1
        configurations = {network.configuration for network in self.networks}
        for result in papers:
            train = self.scales.get(result.train)
            known = train in usual and result.configuration in configurations
            if train and (known or self.is_papers) and (result.configuration, train) not in there:
                test = result.test if self.is_papers else usual[train].most_common(1)[0][0]
                missing = Network(result.configuration, train, (), "")
                rows.append((missing.place, self._row(missing, Protocol("dense", test), None)))
        return [row for _, row in sorted(rows, key=lambda pair: pair[0])]

    def _row(self, network: Network, protocol: Protocol, measured: Measured | None) -> Row:
        paper = self._paper(network, protocol)
        scales = _commas(protocol.scales)
        return Row(self._name(network), in_words(network.train), scales, protocol.kind, measured, paper)

    def _name(self, network: Network) -> str:
        """Return the letter, and what tells the network from others of the same letter and scales."""
        words = list(network.variant)
        if sum(other.kind == network.kind for other in self.networks) > 1:
            words += [next(t.path.parent.name for (owner, _), t in self.tests.items() if owner == network)]
        return f"{network.configuration} ({', '.join(words)})" if words else network.configuration

    def _paper(self, network: Network, protocol: Protocol) -> tuple[float, float] | None:
        if not self.is_papers or network.variant:
            return None
        wanted = (network.configuration, network.train, protocol.scales, protocol.kind)
        for result in (*published.TABLE_3, *published.TABLE_4, *published.TABLE_5):
            if wanted == (result.configuration, result.train, result.test, result.method):
                return result.top1, result.top5
        return None

    def _methods(self) -> list[Row]:
        """Table 5: three rows for every network tested on crops of several scales."""
        return [
            self._row(entry[0], Protocol(method, entry[1]), self._measured([entry], method))
            for entry in self._compared()
            for method in METHODS
        ]

    def _compared(self) -> list[Entry]:
        """Return what Table 5 compares; on the paper's data D and E also where they are missing."""
        entries = {
            (t.network, t.protocol.scales)
            for k in METHODS[1:]
            for n in self.networks
            for t in self.of(n, k, several=True)
        }
        if self.is_papers:
            entries |= {self._member(member) for member in published.POST_SUBMISSION}
        return sorted(entries, key=lambda entry: (entry[0].place, entry[1]))

    def _fusions(self) -> list[Row]:
        """Table 6: the paper's submission, then pairs of networks tested at several scales."""
        several = [(t.network, t.protocol.scales) for n in self.networks for t in self.of(n, "dense", several=True)]
        plain = [entry for entry in several if not entry[0].variant]
        submission = [self._member(member) for member in published.SUBMISSION]
        rows = [self._fusion(submission, "dense")]
        pairs = [self._pair(plain)] + ([] if self.is_papers else [self._pair(several)])
        for pair in pairs if pairs[0] != pairs[-1] else pairs[:1]:
            rows += [self._fusion(pair, method) for method in METHODS if pair]
        return [row for row in rows if row.measured or self.is_papers]

    def _member(self, member: published.Member) -> Entry:
        """Return the study's own network for one of the paper's ensemble, or a stand-in without weights."""
        variant = (FC_ONLY,) if member.fc_only else ()
        train = self.scales.get(member.train, member.train)
        wanted = (member.configuration, train, variant)
        network = next((n for n in self.networks if n.kind == wanted), Network(*wanted, weights=""))
        usual = Counter(
            t.protocol.scales for n in self.networks if n.train == train for t in self.of(n, "dense", several=True)
        )
        return network, member.test if self.is_papers or not usual else usual.most_common(1)[0][0]

    def _pair(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the paper's pair, D and E, where it is there; else the best two of different configurations."""
        papers = [self._member(member) for member in published.POST_SUBMISSION]
        if self.is_papers or all(entry in entries for entry in papers):
            return papers
        errors = {entry: measured.top1.rate for entry in entries if (measured := self._measured([entry], "dense"))}
        ranked = sorted(errors, key=lambda entry: (errors[entry], entry[0].place))
        others = [entry for entry in ranked if entry[0].configuration != ranked[0][0].configuration]
        return sorted([ranked[0], others[0]], key=lambda entry: entry[0].place) if others else []

    def _fusion(self, entries: Sequence[Entry], method: Kind) -> Row:
        measured, paper = self._measured(entries, method), self._papers_fusion(entries, method)
        if len(entries) == len(published.SUBMISSION):
            letters = ", ".join(sorted({network.configuration for network, _ in entries}))
            return Row(f"submission: 7 networks of {letters}", "various", "various", method, measured, paper)
        names, trains, tests = (
            " + ".join(dict.fromkeys(words))
            for words in zip(
                *((self._name(network), in_words(network.train), _commas(scales)) for network, scales in entries),
                strict=True,
            )
        )
        return Row(names, trains, tests, method, measured, paper)

    def _papers_fusion(self, entries: Sequence[Entry], method: Kind) -> tuple[float, float] | None:
        for fusion in published.TABLE_6 if self.is_papers else ():
            if fusion.method == method and [self._member(member) for member in fusion.members] == list(entries):
                return fusion.top1, fusion.top5
        return None

    def _measured(self, entries: Sequence[Entry], method: Kind) -> Measured | None:
        """Return the errors of one network or the mean of several; None where a file is missing."""
        if len(entries) == 1 and (tested := self.tests.get((entries[0][0], Protocol(method, entries[0][1])))):
            return tested.measured
        files = [path for entry in entries if (path := self._files(entry, method))]
        if len(files) < len(entries):
            return None
        parts = [fuse([Posteriors.read(path) for path in paths], [str(path) for path in paths]) for paths in files]
        return measure(fuse(parts, [str(paths[0]) for paths in files]))

    def _files(self, entry: Entry, method: Kind) -> list[Path]:
        """Return the files whose mean a network's posteriors by one method are; none where one is missing."""
        wanted = Protocol(method, entry[1])
        for protocols in (wanted,), wanted.components:
            found = [self.tests.get((entry[0], protocol)) for protocol in protocols]
            if all(found):
                return [tested.path for tested in found if tested]
        return []

    def _shallow(self) -> list[Row]:
        """Section 4.1: only where the shallow variant has been tested."""
        tests = [
            t for n in self.networks if n.configuration in ("B", "B-5x5") for t in self.of(n, "center", several=False)
        ]
        if not any(t.network.configuration == "B-5x5" for t in tests):
            return []
        return [self._row(t.network, t.protocol, t.measured) for t in tests]


def in_words(train: Scales) -> str:
    """Return training scales as the paper writes them: `256`, `[256;512]`."""
    return str(train[0]) if train[0] == train[1] else f"[{train[0]};{train[1]}]"


def _commas(scales: tuple[int, ...]) -> str:
    return ",".join(map(str, scales))
