"""What the paper found, looked for in a study: systems in pairs, on the same images, with McNemar's test."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.metrics import mcnemar_of, top_k_error
from verydeep.evaluation.posteriors import Posteriors
from verydeep.study.found import Tested, find
from verydeep.study.published import JITTER, LARGE, SMALL, TABLE_3, TABLE_4, TABLE_5, TABLE_6, Scales
from verydeep.study.tables import METHODS, Results, in_words

SIGNIFICANT = 0.05
DEPTH = ("A", "B", "C", "D", "E")

# A system: configuration, training scales by the paper's name for them, way of testing, one test scale or several.
System = tuple[str, Scales, str, bool]


@dataclass(frozen=True)
class Finding:
    """One comparison of two systems.

    Attributes
    ----------
    claim : str
        What makes the difference in the paper.
    systems : (str, str)
        The first and the second.
    first, second : float
        Top-1 errors in [0, 1].
    p_value : float
        Of McNemar's exact test: the probability of so uneven a split, by chance, of the images that only one of
        the two gets wrong.
    paper : (float, float) or None
        The paper's two errors in %, where it gives both.
    """

    claim: str
    systems: tuple[str, str]
    first: float
    second: float
    p_value: float
    paper: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        """In words: how the second system does beside the first, if the difference is more than chance."""
        if self.p_value >= SIGNIFICANT:
            return "no clear difference"
        return "better" if self.second < self.first else "worse"


def look_for_findings(study: Path) -> list[Finding]:
    """Return the paper's comparisons that the posteriors of a study allow, for each set of images.

    Parameters
    ----------
    study : Path
        Folder with posteriors files, in it or in folders below.

    Raises
    ------
    UserError
        No posteriors there, or a damaged file.
    """
    sets = sorted(find(study).items())
    return [finding for (data, split), found in sets for finding in _comparisons(Results(data, split, found))]


def _comparisons(results: Results) -> Iterator[Finding]:
    systems = _systems(results)
    papers = {(r.configuration, r.train, r.method, len(r.test) > 1): r.top1 for r in (*TABLE_3, *TABLE_4, *TABLE_5)}
    for claim, *pair in _pairs(set(systems)):
        first, second = (Posteriors.read(systems[system].path) for system in pair)
        names = _name(systems[pair[0]]), _name(systems[pair[1]])
        paper = (papers[pair[0]], papers[pair[1]]) if all(system in papers for system in pair) else None
        yield _finding(claim, names, first, second, paper)
    last = [systems[name, JITTER, "dense", True] for name in DEPTH if (name, JITTER, "dense", True) in systems][-2:]
    if len(last) == 2:
        better = min(last, key=lambda tested: tested.measured.top1.rate)
        both = " and ".join(tested.network.configuration for tested in last)
        paper = (papers["E", JITTER, "dense", True], TABLE_6[1].top1) if both == "D and E" else None
        fusion = fuse([Posteriors.read(tested.path) for tested in last])
        yield _finding("fusion", (_name(better), f"{both} together"), Posteriors.read(better.path), fusion, paper)


def _systems(results: Results) -> dict[System, Tested]:
    """Return the tests of the paper's kinds of system; networks of other kinds are left out."""
    roles = {own: role for role, own in results.scales.items()}
    systems: dict[System, Tested] = {}
    for network in results.networks:
        if network.train in roles and not network.variant:
            several = [t for kind in METHODS for t in results.of(network, kind, several=True)]
            for tested in results.single(network) + several:
                key = tested.protocol.kind, len(tested.protocol.scales) > 1
                systems.setdefault((network.configuration, roles[network.train], *key), tested)
    return systems


def _pairs(there: set[System]) -> Iterator[tuple[str, System, System]]:
    """Yield what the paper compares, of the systems that are there."""
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


def _name(tested: Tested) -> str:
    """Return a system in the paper's notation: configuration/S/Q."""
    network, protocol = tested.network, tested.protocol
    crops = " & crops" if protocol.kind == "dense+crops" else ""
    return f"{network.configuration}/{in_words(network.train)}/{','.join(map(str, protocol.scales))}{crops}"


def _finding(
    claim: str, systems: tuple[str, str], first: Posteriors, second: Posteriors, paper: tuple[float, float] | None
) -> Finding:
    p_value = mcnemar_of(first, second, 1).p_value
    return Finding(claim, systems, top_k_error(first, 1), top_k_error(second, 1), p_value, paper)
