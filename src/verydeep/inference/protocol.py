"""The names of test protocols: one small grammar for command line, API, files and tables."""

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

from verydeep.basics.errors import UserError
from verydeep.nets.network import Network

Kind = Literal["center", "dense", "crops", "dense+crops", "descriptor", "ten-crops", "square-crops"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_GRAMMAR = re.compile(r"(?P<kind>[a-z+-]+)@(?P<scales>\d{1,6}(,\d{1,6})*)")


@dataclass(frozen=True)
class Protocol:
    """How an image becomes a posterior (paper section 3.2 and 4.3).

    ======================  ========================================================================================
    ``center@Q``            the central crop of the picture rescaled to smallest side Q; one view, no flip
    ``dense@Q,...``         the whole uncropped picture and its flip, mean over both and over the scales Q
    ``crops@Q,...``         a 5x5 grid of crops and their flips, 50 a scale, mean over all
    ``dense+crops@...``     mean of the two
    ``descriptor@Q,...``    the whole picture and its flip at all scales as one descriptor, classified once: for
                            networks of `verydeep transfer`
    ``ten-crops@Q``         four corners and center of the central Q x Q square, and their flips: 10 a scale, mean over
                            all; Krizhevsky et al. (2012, section 4.1) with Q = 256
    ``square-crops@Q,...``  of the left, central and right (upper, central and lower) Q x Q square each the four
                            corners, the center and the whole square rescaled to a crop, and their flips: 36 a scale,
                            mean over all; Szegedy et al. (2014, section 7) with Q = 256, 288, 320, 352: 144 crops
    ======================  ========================================================================================

    Parameters
    ----------
    kind : {"center", "dense", "crops", "dense+crops", "descriptor", "ten-crops", "square-crops"}
        Which views of the picture are shown to the network.
    scales : tuple of int
        Smallest sides Q in pixels; kept in ascending order, for their mean does not depend on it.

    Raises
    ------
    UserError
        For an unknown kind, no scale, a scale below 1 or one given twice.

    Examples
    --------
    >>> Protocol.parse("dense@512,256")
    Protocol(kind='dense', scales=(256, 512))
    >>> str(Protocol("dense+crops", (256, 384, 512)))
    'dense+crops@256,384,512'
    """

    kind: Kind
    scales: tuple[int, ...]

    def __post_init__(self) -> None:
        scales = tuple(sorted(self.scales))
        if self.kind not in KINDS or not scales or scales[0] < 1:
            raise _unreadable(f"{self.kind}@{','.join(map(str, self.scales))}")
        if len(set(scales)) < len(scales):
            raise UserError(f"protocol {self.kind}@{','.join(map(str, scales))}: a scale is given twice; once will do")
        object.__setattr__(self, "scales", scales)

    @classmethod
    def parse(cls, text: str) -> "Protocol":
        """Read a protocol's name, such as ``dense@256,384,512``.

        Raises
        ------
        UserError
            Where `text` is no such name; the message shows one.
        """
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None:
            raise _unreadable(text)
        return cls(cast(Kind, match["kind"]), tuple(int(scale) for scale in match["scales"].split(",")))

    def __str__(self) -> str:
        return f"{self.kind}@{','.join(map(str, self.scales))}"

    @property
    def components(self) -> tuple["Protocol", ...]:
        """Protocols whose equally weighted mean this one is; empty where a network must be run."""
        if self.kind == "dense+crops":
            return Protocol("dense", self.scales), Protocol("crops", self.scales)
        if len(self.scales) > 1 and self.kind != "descriptor":
            return self.each_scale
        return ()

    @property
    def each_scale(self) -> tuple["Protocol", ...]:
        """The protocol at each scale alone."""
        return tuple(Protocol(self.kind, (scale,)) for scale in self.scales)

    @property
    def leaves(self) -> tuple["Protocol", ...]:
        """Protocols that need a network whose equally weighted mean this one is; itself where it is one.

        They are of one kind at one scale, but for ``descriptor``, which is of all its scales together.
        """
        return tuple(leaf for part in self.components for leaf in part.leaves) or (self,)

    def check_scales(self, least_size: int, crop: int) -> None:
        """Refuse scales that this network cannot be tested at.

        Parameters
        ----------
        least_size : int
            Smallest image side in pixels that the network takes whole.
        crop : int
            Side in pixels of its crops.

        Raises
        ------
        UserError
            Naming the least scale that works.
        """
        whole = self.kind in ("dense", "descriptor")
        least = least_size if whole else max(crop, least_size)
        if self.scales[0] < least:
            what = "whole pictures" if whole else f"crops of {crop} pixels"
            raise UserError(
                f"protocol {self}: scale {self.scales[0]} is too small for this network's {what}; "
                f"the least is {least}, for example {self.kind}@{least}"
            )


def default_protocol(net: Network) -> Protocol:
    """Return how a network is tested where nothing else is said.

    One whose classifier is one on descriptors by these. Any other by dense evaluation at the scale that suits the
    training, Q = S or the middle of [Smin; Smax], as in the paper's Table 3; where the scales of training are unknown,
    Q is 8/7 of the network's crop: 256 for 224.
    """
    if about := net.config.descriptor:
        return Protocol("descriptor", about.scales)
    least, most = net.provenance.train_scales or 2 * [net.image_size * 8 // 7]
    return Protocol("dense", (max((int(least) + int(most)) // 2, net.image_size),))


def _unreadable(text: str) -> UserError:
    return UserError(
        f"protocol {text!r} is not KIND@SCALE[,SCALE...] with KIND one of {', '.join(KINDS)}; "
        "for example dense@256,384,512"
    )
