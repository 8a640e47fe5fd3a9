"""The paper's tables from results: which result fills which cell, and the paper's figures beside them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.evaluation.metrics import Mean
from verydeep.inference.protocol import Kind, Protocol
from verydeep.localization.baselines import WHOLE, with_constant_box
from verydeep.localization.detections import Detections
from verydeep.localization.metrics import localization_metrics
from verydeep.nets.architectures import ARCHITECTURES
from verydeep.nets.run_info import RunInfo
from verydeep.results import published
from verydeep.results.published import Scales
from verydeep.results.result import BATCH_NORM, FC_ONLY, ORDER, Network, Result, fused
from verydeep.results.table import METHODS, Column, Row, Table

COMPARED: tuple[Kind, ...] = ("dense", "crops", "dense+crops")
"""The ways of testing of Table 5."""
SHALLOW_NOTE = (
    f"On ILSVRC-2012 the paper found B-5x5 worse by {published.SHALLOW_B_LOSS:g} points of top-1 error; "
    "it does not give the two errors."
)
ALL_BATCH_NORM_NOTE = "All networks have batch norm, which the paper's have not."
NOTE_7 = "Of each network the test of the most views; how others tested theirs, the protocols' descriptions say."
VIEWS: dict[Kind, int] = {
    "center": 1,
    "dense": 2,
    "crops": 50,
    "dense+crops": 52,
    "descriptor": 2,
    "ten-crops": 10,
    "square-crops": 36,
}
"""Of a picture, at one scale."""
NOTE_8 = "Error: share of images whose box for their true class has an IoU below 0.5. Nothing is merged."
NOTE_9 = (
    "Errors: a guess is wrong if its class is, or if its box has an IoU below 0.5 with every true one; the classes are "
    "the same in all rows."
)
ACTION = "voc2012-action"
TRANSFER_TABLES = {"11": "linear classifiers on descriptors, other data sets", "12": "VOC-2012 action classification"}
VARIANTS: dict[str, tuple[str, ...]] = {"fc": (FC_ONLY,), "all": ()}
LAYERS = {"fc": "FC only", "all": "all layers"}
WINDOWS: dict[Kind, str] = {"center": "one", "dense": "all, merged", "crops": "5x5, merged"}


def make_tables(results: Iterable[Result]) -> list[Table]:
    """Return the tables that results fill: 3 to 7 for each set of images, 8 and 9 likewise, then 11 and 12.

    Networks are placed by configuration and training scales, tests by their protocol. Where the paper has a row for a
    configuration that the study has, and its result is missing, the cell is empty; on ILSVRC-2012 all of the paper's
    rows are there. Table 7 has every network by its test of the most views, where others than VGG's are among them; on
    ILSVRC-2012 also the systems that the paper compares with. Table 8 has the localizers tested on one central window,
    on all images; Table 9 has every test, on the images that no threshold was chosen on. Both end with two boxes that
    cost nothing: the whole image, and the box that is right most often on the training images. Tables 11 and 12 end
    with the paper's rows where the data is the same. UserError for one network, tested twice by the same protocol.
    """
    results = list(results)
    tables = [table for tests in class_tests(results) for table in _class_tables(tests)]
    for (data, split), boxes in _by_images(results, "boxes"):
        tables += _box_tables(data, split, sorted(boxes, key=_box_place))
    for number, title in TRANSFER_TABLES.items():
        found = [r for r in results if r.kind == "transfer" and (r.split == ACTION) == (number == "12")]
        tables += [_transfer_table(number, title, found)] if found else []
    return tables


def _by_images(results: Iterable[Result], kind: str) -> list[tuple[tuple[str, str], list[Result]]]:
    sets: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.kind == kind:
            sets.setdefault((result.data, result.split), []).append(result)
    return sorted(sets.items())


def scales_in_words(train: Scales) -> str:
    """Return training scales as the paper writes them: `256`, `[256;512]`."""
    return str(train[0]) if train[0] == train[1] else f"[{train[0]};{train[1]}]"


def _letter(network: Network, words: Sequence[str]) -> str:
    return f"{network.configuration} ({', '.join(words)})" if words else network.configuration


def _system(result: Result, name: Callable[[Network], str]) -> dict[str, str]:
    each = zip(result.networks, result.protocols, strict=True)
    return _together(
        {"network": name(n), "train_scales": scales_in_words(n.train), "test_scales": ",".join(map(str, p.scales))}
        for n, p in each
    )


def _together(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return what members of a fusion have in common once, and what differs with a plus between."""
    rows = list(parts)
    return {key: " + ".join(dict.fromkeys(row[key] for row in rows)) for key in rows[0]}


Entry = tuple[Network, tuple[int, ...]]
"""A network and the scales it is tested at."""


class ClassTests:
    """The tests of a study's networks on one set of images, by network and protocol."""

    def __init__(self, data: str, split: str, results: Sequence[Result]) -> None:
        self.data, self.split = data, split
        self.is_papers = data == published.DATA
        # What all networks of a study share sets none of them apart; the paper's figures are for those without.
        self.all_batch_norm = not self.is_papers and all(BATCH_NORM in r.network.variant for r in results)
        self.results: dict[tuple[Network, Protocol], Result] = {}
        for result in results:
            network = result.network
            if self.all_batch_norm:
                network = replace(network, variant=tuple(word for word in network.variant if word != BATCH_NORM))
            other = self.results.setdefault((network, result.protocol), replace(result, networks=(network,)))
            if other.path != result.path:
                twice = f"one network, tested twice by {result.protocol}"
                raise UserError(f"{other.path} and {result.path}: {twice}; remove one of them")
        # Of the same place those first whose file is: a set's order would be another every time.
        self.networks = sorted(dict.fromkeys(net for net, _ in self.results), key=lambda network: network.place)
        self.scales = self._own_scales()

    def _own_scales(self) -> dict[Scales, Scales]:
        """Return the study's training scales that stand for the paper's 256, 384 and [256;512]."""
        papers = (published.SMALL, published.LARGE, published.JITTER)
        if self.is_papers:
            return dict(zip(papers, papers, strict=True))
        trained = sorted({network.train for network in self.networks if not network.variant})
        fixed = [scales for scales in trained if scales[0] == scales[1]]
        jitter = [scales for scales in trained if scales[0] < scales[1]]
        return dict([*zip(papers, fixed, strict=False), *zip(papers[2:], jitter, strict=False)])

    def of(self, network: Network, kind: Kind, several: bool) -> list[Result]:
        """Return a network's tests of one kind, at one scale or at several."""
        return [
            result
            for (owner, protocol), result in self.results.items()
            if owner == network and protocol.kind == kind and (len(protocol.scales) > 1) == several
        ]

    def single(self, network: Network) -> list[Result]:
        """Return a network's dense tests at the paper's one scale: Q = S, or half of Smin + Smax.

        Where that one is missing, the tests at other scales, but for those that only served for a mean of several.
        """
        tests = self.of(network, "dense", several=False)
        parts = {scale for result in self.of(network, "dense", several=True) for scale in result.protocol.scales}
        usual = [result for result in tests if result.protocol.scales == (sum(network.train) // 2,)]
        return usual or [result for result in tests if result.protocol.scales[0] not in parts] or tests

    def every_of(self, network: Network) -> list[Result]:
        """Return a network's tests."""
        return [result for (owner, _), result in self.results.items() if owner == network]

    def every(self, kind: Kind, several: bool) -> list[Result]:
        """Return all networks' tests of one kind, at one scale or at several."""
        return [result for network in self.networks for result in self.of(network, kind, several)]

    def measured(self, entries: Sequence[Entry], method: Kind) -> Result:
        """Return what one network or the mean of several measures by one method; no metrics where a file is missing."""
        if len(entries) == 1 and (result := self.results.get((entries[0][0], Protocol(method, entries[0][1])))):
            return result
        parts = [part for entry in entries if (part := self._parts(entry, method))]
        networks, protocols = zip(*((network, Protocol(method, scales)) for network, scales in entries), strict=True)
        empty = Result("classes", Path(), self.data, self.split, networks, protocols)
        return fused(parts, empty) if len(parts) == len(entries) else empty

    def _parts(self, entry: Entry, method: Kind) -> list[Result]:
        """Return the tests whose mean a network's posteriors by one method are; none where one is missing."""
        wanted = Protocol(method, entry[1])
        for protocols in (wanted,), wanted.components:
            found = [self.results.get((entry[0], protocol)) for protocol in protocols]
            if all(found):
                return [result for result in found if result]
        return []

    def name(self, network: Network) -> str:
        """Return the letter, and what tells the network from others of the same letter and scales."""
        words = list(network.variant)
        if sum(other.kind == network.kind for other in self.networks) > 1:
            words += [next(r.path.parent.name for (owner, _), r in self.results.items() if owner == network)]
        return _letter(network, words)

    def member(self, member: published.Member) -> Entry:
        """Return the study's own network for one of the paper's, or a stand-in without weights."""
        train = self.scales.get(member.train, member.train)
        wanted = (member.configuration, train, VARIANTS[member.tuned])
        network = next((n for n in self.networks if n.kind == wanted), Network(*wanted))
        usual = Counter(r.protocol.scales for r in self.every("dense", several=True) if r.network.train == train)
        return network, member.test if self.is_papers or not usual else usual.most_common(1)[0][0]


def class_tests(results: Iterable[Result]) -> list[ClassTests]:
    """Return the tests of classes among results, for each set of images its own."""
    return [ClassTests(data, split, found) for (data, split), found in _by_images(results, "classes")]


def _class_tables(tests: ClassTests) -> Iterator[Table]:
    single = [result for network in tests.networks for result in tests.single(network)]
    for number, title, found, note in (
        ("3", "one test scale, dense evaluation", _with_missing(tests, "3", single), ""),
        ("4", "several test scales, dense evaluation", _with_missing(tests, "4", tests.every("dense", True)), ""),
        ("5", "dense evaluation, multi-crop, and both", _methods(tests), ""),
        ("6", "fusion: the mean of networks' posteriors", _fusions(tests), ""),
        ("4.1", "B against a shallow net with 5x5 filters, one central crop", _shallow(tests), SHALLOW_NOTE),
    ):
        if any(result.metrics for result in found) or (tests.is_papers and found):
            notes = [note, ALL_BATCH_NORM_NOTE if tests.all_batch_norm else ""]
            rows = tuple(_class_row(tests, result) for result in found)
            yield Table(
                number, title, _class_columns(rows), rows, tests.data, tests.split, " ".join(filter(None, notes))
            )
    if tests.is_papers or any(network.configuration in ARCHITECTURES for network in tests.networks):
        compared = tuple(_compared(tests))
        yield Table(
            "7", "systems beside each other", _class_columns(compared), compared, tests.data, tests.split, NOTE_7
        )


def _compared(tests: ClassTests) -> Iterator[Row]:
    """Yield each network by its test of the most views, fusions, and on the paper's data the systems it gives."""
    results = [_most_views(tests, network) for network in tests.networks]
    shown = set[str]()
    for result in [*results, *_fusions(tests)]:
        name = _papers_name(result) if tests.is_papers else ""
        if result.metrics:
            shown.add(name)
            yield {**_class_row(tests, result), **(_of_paper(name) if name else {})}
    for row in published.TABLES["7"] if tests.is_papers else ():
        if row.name not in shown:
            blank = {"train_scales": "", "test_scales": "", "method_name": "", "method": "", "images": None}
            yield {"network": row.name, **blank, "top1": None, "top5": None, **_of_paper(row.name)}


def _most_views(tests: ClassTests, network: Network) -> Result:
    result = max(tests.every_of(network), key=_views)
    both = tests.measured([(network, result.protocol.scales)], "dense+crops")
    return both if both.metrics else result


def _views(result: Result) -> int:
    """Return how many views of a picture a test is of."""
    return sum(VIEWS[protocol.kind] * len(protocol.scales) for protocol in result.protocols)


def _papers_name(result: Result) -> str:
    """Return what Table 7 calls a test of ours; an empty text where it has none such."""
    kind, count = result.protocol.kind, len(result.networks)
    if count > 1:
        by_count = {len(published.SUBMISSION): ("dense", 2), len(published.POST_SUBMISSION): ("dense+crops", 0)}
        method, place = by_count.get(count, ("", 0))
        return published.TABLES["7"][place].name if method == kind else ""
    name = result.network.configuration
    return "" if result.network.variant or (name == "E" and kind != "dense+crops") else published.SYSTEMS.get(name, "")


def _of_paper(name: str) -> Row:
    (row,) = (row for row in published.TABLES["7"] if row.name == name)
    top1, top5 = (row.metrics.get(key) for key in ("top1", "top5"))
    words = "/".join("-" if value is None else f"{value:.1f}" for value in (top1, top5))
    return {"paper": words, "paper_top1_error": top1, "paper_top5_error": top5}


def _class_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    return (
        Column("network", "network"),
        Column("train_scales", "S"),
        Column("test_scales", "Q"),
        Column("method_name", "" if len({row["method"] for row in rows}) == 1 else "method", data=False),
        Column("method"),
        Column("images"),
        Column("top1", "top-1", best="least"),
        Column("top5", "top-5", best="least"),
        Column("paper", "paper" if any(row["paper"] for row in rows) else "", data=False),
        Column("paper_top1_error"),
        Column("paper_top5_error"),
    )


def _class_row(tests: ClassTests, result: Result) -> Row:
    words = _system(result, tests.name)
    if len(result.networks) == len(published.SUBMISSION):
        letters = ", ".join(sorted({network.configuration for network in result.networks}))
        words = {"network": f"submission: 7 networks of {letters}", "train_scales": "various", "test_scales": "various"}
    paper = _papers_figures(tests, result)
    measured, method = result.metrics, result.protocol.kind
    return {
        **words,
        "method_name": METHODS[method],
        "method": method,
        "images": result.images or None,
        "top1": measured.get("top1"),
        "top5": measured.get("top5", "-" if measured else None),  # five classes or fewer have none
        "paper": f"{paper['top1']:.1f}/{paper['top5']:.1f}" if paper else None,
        "paper_top1_error": paper.get("top1"),
        "paper_top5_error": paper.get("top5"),
    }


def _papers_figures(tests: ClassTests, result: Result) -> Mapping[str, float]:
    own = [(n.kind, p.scales) for n, p in zip(result.networks, result.protocols, strict=True)]
    for _, row in published.rows("3", "4", "5", "6") if tests.is_papers else ():
        members = [((m.configuration, m.train, VARIANTS[m.tuned]), m.test) for m in row.members]
        if row.method == result.protocol.kind and members == own:
            return row.metrics
    return {}


def _with_missing(tests: ClassTests, number: str, results: list[Result]) -> list[Result]:
    """Return results in their order, and empty ones where the paper has a row and the study no test."""
    there = {(r.network.configuration, r.network.train) for r in results if not r.network.variant}
    usual: dict[Scales, Counter[tuple[int, ...]]] = {}
    for result in results:
        usual.setdefault(result.network.train, Counter())[result.protocol.scales] += 1
    configurations, missing = {network.configuration for network in tests.networks}, []
    for row in published.TABLES[number]:
        (member,) = row.members
        train = tests.scales.get(member.train)
        known = train in usual and member.configuration in configurations
        if train and (known or tests.is_papers) and (member.configuration, train) not in there:
            scales = member.test if tests.is_papers else usual[train].most_common(1)[0][0]
            missing.append(tests.measured([(Network(member.configuration, train), scales)], "dense"))
    return sorted([*results, *missing], key=lambda result: result.network.place)


def _methods(tests: ClassTests) -> list[Result]:
    """Return three cells for every network tested on crops of several scales; on the paper's data for D and E, too."""
    entries = [(r.network, r.protocol.scales) for kind in COMPARED[1:] for r in tests.every(kind, several=True)]
    if tests.is_papers:
        entries += map(tests.member, published.POST_SUBMISSION)
    ordered = sorted(dict.fromkeys(entries), key=lambda entry: (entry[0].place, entry[1]))
    return [tests.measured([entry], method) for entry in ordered for method in COMPARED]


def _fusions(tests: ClassTests) -> list[Result]:
    """Return the paper's submission, then pairs of networks tested at several scales."""
    several = [(r.network, r.protocol.scales) for r in tests.every("dense", several=True)]
    plain = [entry for entry in several if not entry[0].variant]
    pairs = [_pair(tests, plain)] + ([] if tests.is_papers else [_pair(tests, several)])
    wanted = [(tuple(map(tests.member, published.SUBMISSION)), COMPARED[0])]
    wanted += [(pair, method) for pair in dict.fromkeys(pairs) if pair for method in COMPARED]
    found = [tests.measured(entries, method) for entries, method in wanted]
    return [result for result in found if result.metrics or tests.is_papers]


def _pair(tests: ClassTests, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the paper's pair, D and E, where it is there; else the best two of different configurations."""
    papers = tuple(map(tests.member, published.POST_SUBMISSION))
    if tests.is_papers or all(entry in entries for entry in papers):
        return papers
    errors = {entry: tests.measured([entry], "dense").top1.rate for entry in entries}
    ranked = sorted(errors, key=lambda entry: (errors[entry], entry[0].place))
    others = [entry for entry in ranked if entry[0].configuration != ranked[0][0].configuration]
    return tuple(sorted([ranked[0], others[0]], key=lambda entry: entry[0].place)) if others else ()


def _shallow(tests: ClassTests) -> list[Result]:
    """Return the tests of section 4.1, only where the shallow variant has been tested."""
    found = [r for r in tests.every("center", several=False) if r.network.configuration in ("B", "B-5x5")]
    return found if any(r.network.configuration == "B-5x5" for r in found) else []


def _box_place(result: Result) -> tuple[object, ...]:
    """Return where it stands in a table: by network, then as in Table 8, one scale before several, unions last."""
    return len(result.networks), [
        (
            ORDER.index(n.configuration),
            n.train,
            n.tuned == "all",
            n.regression == "pcr",
            p.kind,
            len(p.scales),
            p.scales,
        )
        for n, p in zip(result.networks, result.protocols, strict=True)
    ]


def _box_tables(data: str, split: str, results: Sequence[Result]) -> Iterator[Table]:
    central = [r for r in results if len(r.networks) == 1 and r.protocol.kind == "center"]
    # Where images were held out, Table 9 leaves them out of every row, whichever test they were held out of.
    share = max((r.about["merging"].get("held_out", 0.0) for r in results), default=0.0)
    held = f" Without the {share:.0%} of the images that thresholds were chosen on." if share else ""
    for number, title, chosen, left_out, note in (
        ("8", "boxes given the true class, one central window", central, 0.0, NOTE_8),
        ("9", "classes and boxes", results, share, NOTE_9 + held),
    ):
        papers = published.TABLES[number] if data == published.DATA else ()
        matched = [next((row for row in papers if set(row.members) == _members(r, row)), None) for r in chosen]
        detections = [_without(r, left_out) for r in chosen]
        rows = [_box_row(*measured) for measured in zip(chosen, detections, matched, strict=True)]
        rows += [_box_row(_not_tested(row), None, row) for row in papers if row not in matched]
        if rows:
            rows += _baselines(detections[0]) if detections else []
            yield Table(number, title, _box_columns(number, rows), tuple(rows), data, split, note)


def _without(result: Result, share: float) -> Detections:
    assert result.detections is not None
    return result.detections.without_held_out(share) if share else result.detections


def _not_tested(row: published.Row) -> Result:
    networks = tuple(Network(m.configuration, m.train, (), "", m.regression, m.tuned) for m in row.members)
    return Result("boxes", Path(), "", "", networks, tuple(Protocol(row.method, m.test) for m in row.members))


def _box_columns(number: str, rows: Sequence[Row]) -> tuple[Column, ...]:
    whole = number == "9"
    return (
        Column("network", "network"),
        Column("train_scales", "S"),
        Column("test_scales", "Q"),
        Column("boxes", "boxes"),
        Column("tuned_layers", "tuned"),
        Column("windows", "windows" if whole else ""),
        Column("images"),
        Column("top5", "top-5" if whole else "", best="least"),
        Column("top1", "top-1" if whole else "", best="least"),
        Column("given_class", "error given class", best="least"),
        Column("mean_iou", "mean IoU", best="greatest"),
        Column("paper_error", "paper" if any(row["paper_error"] for row in rows) else ""),
    )


def _members(result: Result, row: published.Row) -> set[published.Member]:
    """Return a result's networks as the paper's rows name theirs; none where it is of another kind than this row."""
    pairs = list(zip(result.networks, result.protocols, strict=True))
    if any(n.variant or p.kind != row.method for n, p in pairs):
        return set()
    # Table 8 has one S and one Q for all; a localizer of that S counts whatever its crop's Q.
    scales = [p.scales if row.method == "dense" else row.members[0].test for _, p in pairs]
    return {
        published.Member(n.configuration, n.train, q, n.tuned, n.regression)
        for (n, _), q in zip(pairs, scales, strict=True)
    }


def _box_row(result: Result, detections: Detections | None, paper: published.Row | None) -> Row:
    words = _system(result, lambda network: _letter(network, network.variant))
    kinds = (
        {"boxes": n.regression.upper(), "tuned_layers": LAYERS[n.tuned], "windows": WINDOWS[p.kind]}
        for n, p in zip(result.networks, result.protocols, strict=True)
    )
    return _measured_row(
        {**words, **_together(kinds)}, detections, next(iter(paper.metrics.values())) if paper else None
    )


def _measured_row(words: Row, detections: Detections | None, paper: float | None) -> Row:
    measured = vars(localization_metrics(detections)) if detections else {}
    return {**words, **measured, "paper_error": paper}


def _baselines(detections: Detections) -> list[Row]:
    boxes = {"whole image": WHOLE, "best constant box": RunInfo.of_test(detections.metadata).best_constant_box}
    found = {name: with_constant_box(detections, box) for name, box in boxes.items() if box}
    empty = dict.fromkeys(("train_scales", "test_scales", "boxes", "tuned_layers"), "")
    return [_measured_row({"network": name, **empty, "windows": "none"}, made, None) for name, made in found.items()]


def _transfer_table(number: str, title: str, results: Sequence[Result]) -> Table:
    rows: dict[str, dict[str, str | Mean]] = {}
    for result in results:
        rows.setdefault(result.name, {"system": result.name})[_heading(result)] = result.metrics["merit"]
    headings = dict.fromkeys(map(_heading, results))
    protocols = {words: protocol for protocol, (_, words) in published.TRANSFERS.items() if words in headings}
    papers = []
    for row in published.TABLES[number]:
        cells = {words: mean for words, key in protocols.items() if (mean := _papers_mean(row, key))}
        papers += [{"system": f"{row.name} (paper)", "paper": True, **cells}] if cells else []
    columns = (Column("system", "system"), *(Column(words, words) for words in headings))
    return Table(number, title, columns, (*rows.values(), *papers))


def _papers_mean(row: published.Row, key: str) -> Mean | None:
    value, std = (row.metrics.get(name) for name in (key, f"{key}_std"))
    return None if value is None else Mean(value / 100, None if std is None else std / 100)


def _heading(result: Result) -> str:
    """Return what stands above a data set's column: the paper's words where it is the paper's, else its name."""
    classes, words = published.TRANSFERS.get(result.split, (0, ""))
    same = len(result.about["identity"]["classes"]) == classes
    return words if same else f"{result.data}, {result.about['measure']}"
