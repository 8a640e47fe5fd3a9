"""A network as a file for another engine, run by that engine at once and compared with the network."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, get_args

from verydeep.basics.errors import UserError
from verydeep.exports.comparison import Comparison, Runner, compare
from verydeep.exports.export_module import Contract, Precision
from verydeep.exports.pictures import Calibration, Picture, from_folder, photographs
from verydeep.images.files import read_picture
from verydeep.nets.families import load
from verydeep.nets.network import Network

FORMATS = {"onnx": "onnx_format", "openvino": "openvino_format", "torch": "torch_program"}
"""Modules of this folder; each is a `Format`."""

TOLERANCE: dict[str, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}
"""Largest difference that an export may show: of a posterior; and, but for int8, of a score to the largest score."""

MOST_CHECKED = 8
"""Pictures of a user's folder that an export is checked on, at each size."""


class Format(Protocol):
    """What a module of `FORMATS` offers."""

    SUFFIX: str

    def write(
        self, net: Network, contract: Contract, precision: str, calibration: Calibration | None, path: Path
    ) -> None:
        """Write the file, perhaps with others beside it."""

    def runner(self, path: Path) -> Runner:
        """Return what runs the file in the format's own engine, on the CPU."""

    def engine(self) -> str:
        """Return name and version of that engine; UserError where it is missing."""


class MismatchError(RuntimeError):
    """An exported network does not give what the network gives."""


@dataclass(frozen=True)
class Export:
    """An exported network and how far it differs from the network.

    Attributes
    ----------
    files : tuple of Path
        What was written; the first is the one that the engine opens.
    format, precision : str
        As asked for.
    contract : Contract
        What it takes and gives.
    engine : str
        What ran it here.
    pictures : str
        In words: what it was run on.
    comparisons : tuple of Comparison
        One for each batch: one picture, then several at each size.
    left_out : str
        In words: what of the network's own test the file cannot do; empty where there is nothing.
    """

    files: tuple[Path, ...]
    format: str
    precision: str
    contract: Contract
    engine: str
    pictures: str
    comparisons: tuple[Comparison, ...]
    left_out: str = ""


def export(
    net: Network | str | Path,
    format: str,
    out: str | Path | None = None,
    *,
    raw_input: bool = False,
    precision: Precision = "fp32",
    calibration: str | Path | None = None,
    check: str | Path | None = None,
    tolerance: float | None = None,
) -> Export:
    """Write a network for another engine, run it there on real pictures, and keep it if it gives the same.

    Batch, height and width stay free, so that the exported network does dense evaluation, too.

    Parameters
    ----------
    net : Network, str or Path
        The network or its weights file. Of a classifier on descriptors the file is that of one view of a picture.
    format : {"onnx", "openvino", "torch"}
        ONNX; OpenVINO's pair of files; a program of `torch.export`.
    out : str or Path, optional
        The file, ending in .onnx, .xml or .pt2; by default beside the weights file, under its name.
    raw_input : bool
        Whether the file takes decoded pictures, uint8 N x H x W x 3, RGB, and gives posteriors, N x K; else it
        takes what `Preprocessing` makes of them, float32 N x 3 x H x W, and gives scores, N x K. Either way the
        second output is the score map, N x K x h x w.
    precision : {"fp32", "fp16", "int8"}
        Of weights and arithmetic; inputs and outputs stay as they are.
    calibration : str or Path, optional
        Folder of pictures like those that the network will be used on; int8 needs it.
    check : str or Path, optional
        Folder of pictures to compare on; by default those of `calibration`, else two photographs that come with
        scikit-learn.
    tolerance : float, optional
        Largest difference that is accepted of a posterior and, but for int8, of a score as a share of the largest
        score; by default `TOLERANCE`'s.

    Raises
    ------
    UserError
        A wrong request, or the engine is not installed.
    MismatchError
        The exported network gives something else than the network; nothing is left of it.
    """
    chosen = _format(format, precision, calibration)
    path = _out(net, out, chosen.SUFFIX, precision)
    engine, contract = chosen.engine(), Contract(raw_input)
    net = copy.deepcopy(net).cpu().eval() if isinstance(net, Network) else load(net, "classify")
    net.check_task("classify")
    folder = check or calibration
    words, pictures = _pictures(None if folder is None else Path(folder))
    samples = Calibration(Path(calibration), net) if calibration else None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as aside:
        draft = Path(aside) / path.name
        chosen.write(net.one_view(), contract, precision, samples, draft)
        comparisons = tuple(compare(net, contract, chosen.runner(draft), pictures))
        _judge(comparisons, precision, tolerance)
        files = sorted(draft.parent.iterdir(), key=lambda file: file == draft)  # the one that engines open is last
        written = [file.replace(path.parent / file.name) for file in files]
    return Export(tuple(written[::-1]), format, precision, contract, engine, words, comparisons, _left_out(net))


def _format(name: str, precision: str, calibration: str | Path | None) -> Format:
    if name not in FORMATS:
        raise UserError(f"format {name!r}: expected one of {', '.join(FORMATS)}")
    if precision not in get_args(Precision):
        raise UserError(f"precision {precision!r}: expected one of {', '.join(get_args(Precision))}")
    if (precision == "int8") != (calibration is not None):
        raise UserError(
            "precision int8 needs --calibration FOLDER, a folder of pictures like those the network will see"
            if calibration is None
            else f"--calibration is for --precision int8, not {precision}; --check names pictures to compare on"
        )
    return cast(Format, import_module(f"verydeep.exports.{FORMATS[name]}"))


def _out(net: Network | str | Path, out: str | Path | None, suffix: str, precision: str) -> Path:
    if out is not None:
        if Path(out).suffix != suffix:
            raise UserError(f"--out {out}: the name must end in {suffix}")
        return Path(out)
    if isinstance(net, Network):
        raise UserError("export: a network that comes from no file needs out, the file to write")
    stem = Path(net).stem
    return Path(net).with_name((stem if precision == "fp32" else f"{stem}-{precision}") + suffix)


def _pictures(folder: Path | None) -> tuple[str, list[Picture]]:
    """Return pictures to compare on, and what they are in words."""
    if folder is None:
        return "the two photographs that come with scikit-learn", photographs()
    files = from_folder(folder, MOST_CHECKED)
    return f"{len(files)} pictures of {folder}", [read_picture(file) for file in files]


def _left_out(net: Network) -> str:
    """Return what a network does for several views of a picture at once, which a file gets one by one."""
    about = net.config.descriptor
    if about is None or (len(about.scales) == 1 and not about.flip):
        return ""
    views = [f"scales {','.join(map(str, about.scales))}"] if len(about.scales) > 1 else []
    views += ["the mirror image"] if about.flip else []
    return (
        f"it answers for one view of a picture: the descriptor that its classifier was made for is one of "
        f"{' and '.join(views)} together, which predict and evaluate do and this file cannot"
    )


def _judge(comparisons: Sequence[Comparison], precision: str, tolerance: float | None) -> None:
    """Raise MismatchError where a difference is larger than accepted, or not a number."""
    most = TOLERANCE[precision] if tolerance is None else tolerance
    for found in comparisons:
        differences = [("a posterior", found.posteriors)]
        if precision != "int8":
            differences.append(("a score, as a share of the largest,", found.scores))
        for what, difference in differences:
            if not difference <= most:
                raise MismatchError(
                    f"at {found.height} x {found.width} pixels {what} differs by {difference:.2g} from the network's; "
                    f"at most {most:g} is accepted for {precision}; nothing was written"
                )
