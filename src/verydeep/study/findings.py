"""What the paper found, looked for in a study: systems in pairs, on the same images, with McNemar's test."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.metrics import mcnemar_of, top_k_error
from verydeep.evaluation.posteriors import Posteriors
from verydeep.study.found import find
from verydeep.study.published import JITTER, LARGE, SMALL, TABLE_3, TABLE_4, TABLE_5, TABLE_6, Scales
from verydeep.study.tables import Results

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
    files = _systems(results)
    papers = {(r.configuration, r.train, r.method, len(r.test) > 1): r.top1 for r in (*TABLE_3, *TABLE_4, *TABLE_5)}
    for claim, first, second in _pairs(set(files)):
        parts = Posteriors.read(files[first]), Posteriors.read(files[second])
        known = first in papers and second in papers
        paper = (papers[first], papers[second]) if known else None
        yield _finding(claim, (_words(first, results), _words(second, results)), *parts, paper)
    jitters = [(name, JITTER, "dense", True) for name in DEPTH if (name, JITTER, "dense", True) in files]
    if len(jitters) > 1:
        networks = [Posteriors.read(files[system]) for system in jitters[-2:]]
        best = min(range(2), key=lambda i: top_k_error(networks[i], 1))
        both = " and ".join(name for name, *_ in jitters[-2:])
        paper = (papers[jitters[-1]], TABLE_6[1].top1) if both == "D and E" else None
        systems = _words(jitters[-2:][best], results), f"{both} together"
        yield _finding("fusion", systems, networks[best], fuse(networks), paper)


def _systems(results: Results) -> dict[System, Path]:
    """Return the files of the paper's kinds of system; networks of other kinds are left out."""
    roles = {own: role for role, own in results.scales.items()}
    files: dict[System, Path] = {}
    for (network, protocol), tested in results.tests.items():
        several = len(protocol.scales) > 1
        usual = several or protocol.scales == (sum(network.train) // 2,)
        if not network.variant and usual and network.train in roles:
            files[network.configuration, roles[network.train], protocol.kind, several] = tested.path
    return files


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


def _words(system: System, results: Results) -> str:
    """Return a system in the paper's notation: configuration/S/Q."""
    name, role, kind, several = system
    least, most = results.scales[role]
    train = str(least) if least == most else f"[{least};{most}]"
    test = next(
        protocol
        for network, protocol in results.tests
        if (network.configuration, network.train, protocol.kind) == (name, (least, most), kind)
        and (len(protocol.scales) > 1) == several
        and (several or protocol.scales[0] == (least + most) // 2)
    )
    return f"{name}/{train}/{','.join(map(str, test.scales))}" + (" & crops" if "crops" in kind else "")


def _finding(
    claim: str, systems: tuple[str, str], first: Posteriors, second: Posteriors, paper: tuple[float, float] | None
) -> Finding:
    p_value = mcnemar_of(first, second, 1).p_value
    return Finding(claim, systems, top_k_error(first, 1), top_k_error(second, 1), p_value, paper)
