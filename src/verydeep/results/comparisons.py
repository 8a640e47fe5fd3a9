"""What the paper found, looked for in a study: systems in pairs, on the same images, with McNemar's test."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from verydeep.results import published
from verydeep.results.published import JITTER, LARGE, SMALL, Scales
from verydeep.results.result import Result, compare, fused
from verydeep.results.tables import COMPARED, ClassTests, class_tests, scales_in_words

SIGNIFICANT = 0.05
DEPTH = ("A", "B", "C", "D", "E")

# A system: configuration, training scales by the paper's name for them, way of testing, one test scale or several.
System = tuple[str, Scales, str, bool]


@dataclass(frozen=True)
class Comparison:
    """One comparison of two systems by their top-1 errors, in [0, 1]."""

    claim: str  # what makes the difference in the paper
    systems: tuple[str, str]
    first: float
    second: float
    p_value: float  # McNemar's: of so uneven a split, by chance, of the images that only one of the two gets wrong
    paper: tuple[float, float] | None  # its two errors in %, where it gives both

    @property
    def verdict(self) -> str:
        """In words: how the second system does beside the first, if the difference is more than chance."""
        if self.p_value >= SIGNIFICANT:
            return "no clear difference"
        return "better" if self.second < self.first else "worse"


def make_comparisons(results: Iterable[Result]) -> list[Comparison]:
    """Return the paper's comparisons that the results of classes allow, for each set of images.

    UserError: one network, tested twice by the same protocol; or systems of one set tested on different images.
    """
    return [comparison for tests in class_tests(results) for comparison in _comparisons(tests)]


def _comparisons(tests: ClassTests) -> Iterator[Comparison]:
    systems = _systems(tests)
    papers: dict[System, float] = {}
    for _, row in published.rows("3", "4", "5"):
        (m,) = row.members
        papers[m.configuration, m.train, row.method, len(m.test) > 1] = row.metrics["top1"]
    for claim, *pair in _pairs(systems):
        first, second = (systems[system] for system in pair)
        paper = (papers[pair[0]], papers[pair[1]]) if all(system in papers for system in pair) else None
        yield _compared(claim, first, second, _name(second), paper)
    last = [systems[name, JITTER, "dense", True] for name in DEPTH if (name, JITTER, "dense", True) in systems][-2:]
    if len(last) == 2:
        better = min(last, key=lambda result: result.top1.rate)
        both = " and ".join(result.network.configuration for result in last)
        paper = (papers["E", JITTER, "dense", True], published.TABLES["6"][1].metrics["top1"])
        together = fused([last], last[0])
        yield _compared("fusion", better, together, f"{both} together", paper if both == "D and E" else None)


def _compared(claim: str, first: Result, second: Result, name: str, paper: tuple[float, float] | None) -> Comparison:
    p_value = compare(first, second).p_value
    return Comparison(claim, (_name(first), name), first.top1.rate, second.top1.rate, p_value, paper)


def _systems(tests: ClassTests) -> dict[System, Result]:
    """Return the tests of the paper's kinds of system; networks of other kinds are left out."""
    roles = {own: role for role, own in tests.scales.items()}
    systems: dict[System, Result] = {}
    for network in tests.networks:
        if network.train in roles and not network.variant:
            several = [result for kind in COMPARED for result in tests.of(network, kind, several=True)]
            for result in tests.single(network) + several:
                key = result.protocol.kind, len(result.protocol.scales) > 1
                systems.setdefault((network.configuration, roles[network.train], *key), result)
    return systems


def _pairs(there: Iterable[System]) -> Iterator[tuple[str, System, System]]:
    """Yield what the paper compares, of the systems that are there."""
    there = set(there)
    small = [name for name in DEPTH if (name, SMALL, "dense", False) in there]
    pairs = [("normalization", "A", "A-LRN"), *(("depth", a, b) for a, b in pairwise(small))]
    wanted: list[tuple[str, System, System]] = [
        (claim, (a, SMALL, "dense", False), (b, SMALL, "dense", False)) for claim, a, b in pairs
    ]
    for name in DEPTH:
        fixed = next((role for role in (LARGE, SMALL) if (name, role, "dense", False) in there), SMALL)
        one, several = (name, JITTER, "dense", False), (name, JITTER, "dense", True)
        wanted.append(("jitter in training", (name, fixed, "dense", False), one))
        wanted.append(("several test scales", one, several))
        wanted.append(("crops beside dense", several, (name, JITTER, "dense+crops", True)))
    yield from (pair for pair in wanted if pair[1] in there and pair[2] in there)


def _name(result: Result) -> str:
    """Return a system in the paper's notation: configuration/S/Q."""
    crops = " & crops" if result.protocol.kind == "dense+crops" else ""
    scales = ",".join(map(str, result.protocol.scales))
    return f"{result.network.configuration}/{scales_in_words(result.network.train)}/{scales}{crops}"
