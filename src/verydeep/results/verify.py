"""The paper's figures, checked with weights that are there: D and E, trained with scale jitter, tested as it says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from verydeep.basics.errors import UserError
from verydeep.checkpoints.reading import load
from verydeep.datasets.opening import OnBadImage, open_dataset
from verydeep.evaluation.evaluate import Evaluator
from verydeep.evaluation.fuse import fuse
from verydeep.evaluation.metrics import ErrorRate, errors
from verydeep.inference.protocol import Protocol
from verydeep.inference.runtime import Runtime
from verydeep.nets.network import Network
from verydeep.results import published
from verydeep.results.plan import measure_data, testing_macs
from verydeep.results.study import PUBLISHED
from verydeep.results.tables import scales_in_words

WITHIN = 0.3
"""Percentage points of error that a measured figure may differ from the published one."""

IMAGES = 50_000
"""Validation images of ILSVRC-2012, which the published figures are for."""

NETWORKS = ("D", "E")


@dataclass(frozen=True)
class Claim:
    """A figure of the paper that needs no other networks than D and E, and what was measured."""

    table: str
    networks: tuple[str, ...]  # D, E, or both: the mean of their posteriors
    protocol: Protocol
    top1: float  # in %
    top5: float
    measured: Mapping[str, ErrorRate] = field(default_factory=dict)  # top1, and top5 of more than five classes

    @property
    def differences(self) -> tuple[float, float]:
        """Measured less published error, top-1 and top-5, in percentage points; NaN with five classes or fewer."""
        top5 = self.measured["top5"].rate if "top5" in self.measured else float("nan")
        return 100 * self.measured["top1"].rate - self.top1, 100 * top5 - self.top5

    @property
    def passed(self) -> bool:
        """Whether both errors are within `WITHIN` of the published ones."""
        return all(abs(difference) <= WITHIN + 1e-9 for difference in self.differences)


def claims() -> Iterator[Claim]:
    """Yield the rows of Tables 3 to 6 that need D and E trained with S in [256;512] alone.

    Examples
    --------
    >>> [(claim.table, str(claim.protocol)) for claim in claims() if claim.networks == ("E",)][:2]
    [('3', 'dense@384'), ('4', 'dense@256,384,512')]
    """
    for number, row in published.rows("3", "4", "5", "6"):
        if all(m.configuration in NETWORKS and (m.train, m.tuned) == (published.JITTER, "all") for m in row.members):
            names = tuple(member.configuration for member in row.members)
            protocol = Protocol(row.method, row.members[0].test)
            yield Claim(number, names, protocol, row.metrics["top1"], row.metrics["top5"])


class Verification:
    """The tests of one D and one E on ILSVRC-2012's validation images, in any of its layouts.

    `out` is the folder for the posteriors; what is there is not computed again. UserError for weights of another
    network, or trained at other scales, and images that cannot be read.
    """

    def __init__(
        self,
        data: str | Path,
        weights: Mapping[str, str | Path],
        out: Path,
        *,
        device: str = "auto",
        on_bad_image: OnBadImage = "error",
    ) -> None:
        self.protocols = list(dict.fromkeys(claim.protocol for claim in claims()))
        nets = {name: _network(name, weights[name]) for name in NETWORKS}
        self.dataset = open_dataset(data, "val", reader="ilsvrc", on_bad_image=on_bad_image)
        self.evaluators = {
            name: Evaluator(net, self.dataset, runtime=Runtime(device), cache=out / "posteriors" / name)
            for name, net in nets.items()
        }
        for evaluator in self.evaluators.values():
            for protocol in self.protocols:
                evaluator.check(protocol)

    @property
    def note(self) -> str:
        """Say that the published figures are not for these images, where they are not; else nothing."""
        name, images, classes = self.dataset.name, len(self.dataset), len(self.dataset.classes)
        if name == published.DATA and images == IMAGES:
            return ""
        return (
            f"The published figures are for the {IMAGES:,} validation images of ILSVRC-2012; these are {images:,} of "
            f"{classes:,} classes ({name}), and the comparison says nothing."
        )

    def multiply_adds(self) -> int:
        """Return the multiply-adds of all tests; the network's share of the time is nearly all of it."""
        data = measure_data(self.dataset, self.dataset)
        leaves = dict.fromkeys(leaf for protocol in self.protocols for leaf in protocol.leaves)
        return sum(testing_macs(evaluator.forward.net, leaves, data) for evaluator in self.evaluators.values())

    def run(self) -> list[Claim]:
        """Test what is missing and return the paper's figures with the measured ones, table by table."""
        for evaluator in self.evaluators.values():
            for protocol in self.protocols:
                evaluator.posteriors(protocol)
        return [replace(claim, measured=self._measure(claim)) for claim in claims()]

    def _measure(self, claim: Claim) -> Mapping[str, ErrorRate]:
        return errors(fuse([self.evaluators[name].posteriors(claim.protocol) for name in claim.networks]))


def check_request(
    data: str | None, weights_d: str | None, weights_e: str | None, only: Sequence[str] | None
) -> tuple[str, dict[str, str]]:
    """Return data and weights by network; UserError where something is missing, or asked for that there is not."""
    if not (data and weights_d and weights_e):
        raise UserError(
            f"--preset {PUBLISHED} needs --data (ILSVRC-2012's validation images), --weights-d and --weights-e "
            "(configurations D and E as the authors released them)"
        )
    if only:
        raise UserError(f"--only names runs to train, and --preset {PUBLISHED} trains none")
    return data, {"D": weights_d, "E": weights_e}


def _network(name: str, source: str | Path) -> Network:
    net = load(source)
    net.check_task("classify", source)
    if net.configuration.name != name:
        raise UserError(f"{source}: holds configuration {net.configuration.name}, expected {name}")
    scales = net.provenance.train_scales or published.JITTER
    if scales != published.JITTER:
        raise UserError(
            f"{source}: trained at S in {scales_in_words(scales)}, but the figures to compare with are for "
            f"{scales_in_words(published.JITTER)}"
        )
    net.provenance = replace(net.provenance, train_scales=scales)  # so that `verydeep tables` knows the network's place
    return net
