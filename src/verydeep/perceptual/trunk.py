"""The convolutions that pictures are compared by: had from anywhere, frozen, and said of every result."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from verydeep.basics.files import file_hash
from verydeep.checkpoints.reading import load
from verydeep.nets.configurations import NAMES, configuration
from verydeep.nets.families import create, trunk_of
from verydeep.nets.network import Network
from verydeep.nets.run_info import RunInfo

PUBLISHED = "397923af"
"""Beginning of the SHA-256 of torchvision's file of VGG-16, which LPIPS's and DISTS's own weights were fitted to."""


def trunk(source: Network | str | Path, seed: int | None = None) -> Network:
    """Return a network of convolutions alone: for D 59 MB, where the whole network has 553.

    Parameters
    ----------
    source : Network, str or Path
        A network, whose tensors are shared; a weights file of any known format; the name of public weights, such as
        `torchvision:vgg16`; or a configuration, such as `D` or `alexnet`, whose weights are then random numbers.
    seed : int, optional
        Of those random numbers; without it they follow torch's global generator.

    Returns
    -------
    Network
        Cut behind pool5, or what a network has in its place, in evaluation mode.

    Raises
    ------
    UserError
        No such file, name or configuration, or no network in it.

    Examples
    --------
    >>> net = trunk("D", seed=0)
    >>> net.layer_names[-1], sum(p.numel() for p in net.parameters())
    ('pool5', 14714688)
    """
    if isinstance(source, Network):
        return trunk_of(source).eval()
    if source in NAMES:
        net = create(str(source), 0, trunk=configuration(str(source)).trunk, seed=seed)
        net.provenance = RunInfo(seed=seed, more={"weights": "random numbers"})
        return net.eval()
    net = load(source, trunk=True)
    if not net.provenance.file:  # a file of ours, which does not name itself
        net.provenance = replace(net.provenance, file=Path(source).name, sha256=file_hash(Path(source)))
    return net


@dataclass(frozen=True)
class TrunkInfo:
    """Which trunk a figure was computed with.

    `sha256` is of the convolutions' arrays, the same for a whole network and for its trunk; `origin` and `input` are in
    words; `as_published` says whether they are of torchvision's file, with which LPIPS and DISTS were published.
    """

    configuration: str
    sha256: str
    origin: str
    as_published: bool
    input: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.configuration}, {self.origin}, SHA-256 {self.sha256[:12]}, input {self.input}"


def describe_trunk(net: Network) -> TrunkInfo:
    """Say which trunk a network has."""
    about, digest = net.provenance, hashlib.sha256()
    for name, tensor in trunk_of(net).state_dict().items():
        values = tensor.detach().cpu().reshape(-1).view(torch.uint8)  # of any type: numpy lacks some
        digest.update(name.encode() + values.numpy().tobytes())
    own = net.preprocessing
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (own.mean, own.std))
    taken = f"{own.channel_order} from 0 to {own.value_range:g}, mean {mean}, std {std}"
    published = (about.sha256 or "").startswith(PUBLISHED)
    return TrunkInfo(net.configuration.name, digest.hexdigest(), _origin(about), published, taken)


def _origin(about: RunInfo) -> str:
    """Say in words where weights come from."""
    name = about.more.get("published_as") or about.file
    if name:
        return f"{name} ({about.format or 'verydeep'}, SHA-256 {(about.sha256 or 'unknown')[:12]})"
    if about.recipe or about.data:
        return f"trained here on {about.data or 'unnamed data'} by {about.recipe or 'no recipe'}, seed {about.seed}"
    return str(about.more.get("weights") or "weights of unknown origin")


def frozen(net: Network, last: str) -> Network:
    """Return a network cut behind a layer before fc8, in evaluation mode, no weight of which ever gets a gradient.

    Tensors are shared. UserError where it has no such layer.
    """
    cut = trunk_of(net, last)
    cut.requires_grad_(False)
    return cut.eval()
